"""Processes that do not outlive the one that watches over them; without it two lives of a run could write at once."""

import ctypes
import sys
from signal import Signals

_PARENT_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG


def end_with_parent(signal: Signals) -> None:
    """Have this process sent `signal` when the thread that started it ends. Linux only: elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal)
