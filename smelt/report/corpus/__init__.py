"""Turns the folder of a built corpus into one page: what was dropped and why, with examples to judge by.

It reads files only, so it works on a corpus that was copied from elsewhere.
"""
