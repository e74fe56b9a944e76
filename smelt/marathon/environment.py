"""`env.json`: what a run ran on and with."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import smelt

_LIBRARIES = ("torch", "numpy", "tokenizers", "safetensors", "transformers", "trl", "datasets")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, hardware, git state and command line, JSON-serialisable."""
    return {
        "smelt": smelt.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name))},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "git": _git(),
        "command": " ".join(sys.argv),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git() -> str | None:
    """Commit of the code, with `+changes` when the work tree differs from it; None outside a checkout."""
    folder = Path(smelt.__file__).parent
    try:
        commit = subprocess.run(
            ["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", folder, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changed else commit
