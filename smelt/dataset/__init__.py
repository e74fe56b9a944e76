"""The dataset room turns documents into token shards, and a step number into the batch of that step.

The order is a pure function of recipe, seed and step: nothing is stored, so any step can be drawn at any time.
"""
