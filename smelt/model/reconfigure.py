"""The same weights under another model section, as stages of training ask for."""

import torch

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
