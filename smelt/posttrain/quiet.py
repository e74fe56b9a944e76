"""Silence for other libraries' bars, notes and warnings, so that stdout and stderr are the command's own."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
import transformers


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no notes of transformers, TRL and datasets within the block."""
    bars, level = datasets.are_progress_bars_disabled(), transformers.logging.get_verbosity()
    theirs = transformers.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)
        if theirs:
            transformers.logging.enable_progress_bar()
        if not bars:
            datasets.enable_progress_bars()
