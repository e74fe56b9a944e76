"""Batches become checkpoints and `metrics.jsonl`: one loop, one step function, stages.

It offers hooks and knows none of their owners. `smelt.train` is this room and, called, the function of that name.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """`smelt.train(recipe)`: see `smelt.lifecycle.run.train`."""
        return import_module("smelt.lifecycle.run").train(*arguments, **named)


sys.modules[__name__].__class__ = _Room
