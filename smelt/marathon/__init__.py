"""A recipe becomes a finished run: the place where the loop, evaluation and hooks are put together."""
