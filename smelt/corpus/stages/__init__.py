"""The steps of building a corpus, each cut into tasks, one a part of a source.

A task writes whole files and its completion mark last, so that a killed one is done again alone, anywhere.
"""
