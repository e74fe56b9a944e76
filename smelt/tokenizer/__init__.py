"""The tokenizer room trains a byte-level BPE tokenizer on a sample of the corpus, or loads one.

What it saves is an ordinary `tokenizer.json` with its configuration, which other tools read too.
"""
