"""The same weights under another model section, as stages of training ask for."""

from typing import Any

import torch
from torch import nn

from smelt.model.decoder import Decoder
from smelt.recipe.sections.model import Model


def reconfigure(parts: nn.Module, old: Model, new: Model, vocab: int) -> None:
    """Make of `parts`, a decoder of `old` or some of its modules under their names, what a decoder of `new` would be.

    Shapes stay, and so does every attribute on which plain decoders of both agree: what was put on a module from
    outside goes on.
    """
    with torch.device("meta"):
        before, after = (dict(Decoder(config, vocab).named_modules()) for config in (old, new))
    for name, module in parts.named_modules():
        if name in after:
            _follow(module, vars(before[name]), vars(after[name]))


def _follow(module: nn.Module, before: dict[str, Any], after: dict[str, Any]) -> None:
    for key, value in after.items():
        if not key.startswith("_") and value != before[key]:
            setattr(module, key, value)
