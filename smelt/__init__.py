"""smelt trains language models end to end: from the question whether to train at all to an exported assistant."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "load_recipe": "smelt.recipe.load",
    "run": "smelt.lifecycle.run",
    "load_model": "smelt.model.load",
    "load_tokenizer": "smelt.tokenizer.tokenizer",
    "generate": "smelt.model.generate",
    "evaluate": "smelt.evals.run",
    "plot_run": "smelt.report.plots",
}
__all__ = ["__version__", "train", *_LAZY]


def __getattr__(name: str) -> Any:
    if name == "train":
        return import_module("smelt.train")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'smelt' has no attribute '{name}'")
