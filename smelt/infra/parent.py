"""Processes that do not outlive the one that watches over them; without it two lives of a run could write at once."""

import ctypes
import os
import sys
from signal import SIGKILL, Signals

_PARENT_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG


def end_with_parent(signal: Signals) -> None:
    """Have this process sent `signal` when its parent dies. Linux only: elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal)


def end_with_agent() -> None:
    """Where torchrun started this process, be killed as soon as torchrun is."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(SIGKILL)
