"""The evals room turns a model and named tasks into scores with their standard errors and chance levels.

Validation text is scored in bits per byte, beside a bigram of the training text as the least a model must beat.
"""
