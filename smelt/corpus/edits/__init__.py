"""Edits change the text of a document, and count what they changed, before filters judge it."""
