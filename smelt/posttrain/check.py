"""The check that a trainer trains what it should: its loss against the model's own, one conversation at a time."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from smelt.errors import InputError

_IGNORED = -100
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


def own_loss(model: Any, batch: Mapping[str, Tensor]) -> float:
    """Mean loss, in nats, over the labelled tokens of a trainer's batch, from the model's plain logits.

    Every conversation runs alone, without padding or neighbours, so that padding, packing and a trainer's own way
    through the model all have to agree with it. `batch` holds `input_ids` and `labels` `[rows, seq]`, and either
    `attention_mask` or, packed, `position_ids`.
    """
    total, count = 0.0, 0
    for ids, labels in _conversations(batch):
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1].float()
        total += float(F.cross_entropy(logits, labels[1:], ignore_index=_IGNORED, reduction="sum"))
        count += int((labels[1:] != _IGNORED).sum())
    return total / max(1, count)


def check_loss(trainers: float, own: float, dtype: torch.dtype) -> None:
    """InputError when a trainer's loss is not the model's own, as then it would train something else in silence."""
    if not abs(trainers - own) <= _TOLERANCE[dtype] * max(1.0, abs(own)):
        raise InputError(
            f"model: the trainer's loss on the first batch is {trainers:.5f}, the model's own {own:.5f}; the trainer "
            "does not support this architecture or this packing: try packing: false, or another model"
        )


def _conversations(batch: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids and labels of each conversation in a padded or packed batch."""
    ids, labels = batch["input_ids"], batch["labels"]
    for row in range(len(ids)):
        if "attention_mask" in batch:
            inside = batch["attention_mask"][row].bool()
            yield ids[row][inside], labels[row][inside]
        else:
            starts = (batch["position_ids"][row] == 0).nonzero().flatten().tolist()
            for start, end in zip(starts, [*starts[1:], ids.shape[1]], strict=True):
                yield ids[row, start:end], labels[row, start:end]
