"""The recipe is the run: YAML and overrides become one typed, frozen `Recipe`, or one line that says what is wrong.

This room imports no torch, so that every mistake in a recipe is found at once.
"""
