"""The same weights under another model section, as stages of training ask for."""

from typing import Any

import torch
from torch import nn

from smelt.model.decoder import Decoder
from smelt.recipe.sections.model import Model


def reconfigured(model: Decoder, config: Model) -> Decoder:
    """A decoder of `config`, which changes no shapes, that shares every parameter and buffer with `model`: an optimizer
    of one goes on with the other."""
    with torch.device("meta"):
        new = Decoder(config, model.vocab, model.dtype)
    for mine, theirs in zip(model.modules(), new.modules(), strict=True):
        theirs._parameters, theirs._buffers = mine._parameters, mine._buffers
    return new.train(model.training)


def reconfigure(parts: nn.Module, old: Model, new: Model, vocab: int) -> None:
    """Make of `parts`, a decoder of `old` or some of its modules under their names, what a decoder of `new` would be.

    Shapes stay, and so does every attribute on which plain decoders of both agree: what was put on a module from
    outside goes on.
    """
    with torch.device("meta"):
        before, after = (dict(Decoder(config, vocab).named_modules()) for config in (old, new))
    for name, module in parts.named_modules():
        name = name.replace("_checkpoint_wrapped_module.", "").removesuffix("._checkpoint_wrapped_module")
        if name in after:
            _follow(module, vars(before[name]), vars(after[name]))


def _follow(module: nn.Module, before: dict[str, Any], after: dict[str, Any]) -> None:
    for key, value in after.items():
        if not key.startswith("_") and key not in ("fills", "training", "dtype") and value != before[key]:
            setattr(module, key, value)
