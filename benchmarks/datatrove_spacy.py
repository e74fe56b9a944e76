"""The peer's own environment: datatrove with spaCy, which is no requirement of ours, kept under ~/.cache/smelt."""

import os
import subprocess
import venv
from pathlib import Path

ENVIRONMENT = Path.home() / ".cache" / "smelt" / "datatrove-spacy"
PACKAGES = ("datatrove==0.10.1", "spacy==3.8.18", "regex", "orjson", "tokenizers", "xxhash==3.8.2")


def command(script: str, *arguments: str) -> list[str]:
    """Runs `loops/SCRIPT` there; the first call makes the environment."""
    python, installed = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "installed"
    if not installed.exists() or installed.read_text() != " ".join(PACKAGES):
        venv.create(ENVIRONMENT, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        installed.write_text(" ".join(PACKAGES))
    return [str(python), str(Path(__file__).parent / "loops" / script), *arguments]


def surroundings() -> dict[str, str]:
    """Environment variables of a process there."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
