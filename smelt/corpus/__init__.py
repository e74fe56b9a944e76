"""The corpus room turns readers (files, the hub, sources that come with Python) into documents.

It keeps some of each source's documents for validation and writes the rest, as compressed JSON Lines, for training.
"""
