"""Small random models of ours and of transformers, and batches of documents."""

from typing import Any

import torch
from torch import Tensor

from smelt.model.decoder import Decoder
from smelt.model.init import initialise
from smelt.model.measures import mean, totals
from smelt.recipe.sections.model import Model

VOCAB = 61


def section(**changes: Any) -> Model:
    """A small model section."""
    fields: dict[str, Any] = {
        "hidden": 32,
        "layers": 3,
        "attention": {"heads": 4, "kv_heads": 2},
        "position": {"kind": "rope", "theta": 1000.0},
        "feedforward": {"width": 48},
        "init": {"kind": "normal", "std": 0.2},
    }
    return Model.model_validate({**fields, **changes})


def decoder(
    config: Model | None = None, vocab: int = VOCAB, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Decoder:
    """An initialised decoder; norm weights are moved off 1 so that forgetting one shows."""
    model = Decoder(config or section(), vocab, dtype)
    initialise(model, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator(name))
    return model


def settled(model: Decoder) -> dict[str, Tensor]:
    """What the model followed since the last step, as means."""
    return {name: mean(total) for name, total in totals(model).items()}


def generator(seed: object = 0) -> torch.Generator:
    """A generator for `seed`, any printable value."""
    return torch.Generator().manual_seed(sum(map(ord, str(seed))))


def tokens(batch: int, sequence: int, vocab: int = VOCAB, seed: int = 0) -> Tensor:
    """Random ids."""
    return torch.randint(0, vocab, (batch, sequence), generator=generator(seed))


def starts_of(lengths: list[list[int]]) -> Tensor:
    """`starts` for rows of documents with these lengths."""
    rows = []
    for row in lengths:
        begins = torch.tensor([0, *row]).cumsum(0)[:-1]
        rows.append(begins.repeat_interleave(torch.tensor(row)))
    return torch.stack(rows).to(torch.int32)
