"""What an edit is to the pipeline: a function of a text that also says what it changed."""

from collections.abc import Callable, Mapping

Edit = Callable[[str], tuple[str, Mapping[str, int]]]
"""A text -> its new text, and how often what was changed."""
