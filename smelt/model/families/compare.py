"""A decoder against transformers' own model of the same folder, block by block, on a batch of random tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smelt.errors import InputError
from smelt.model.decoder import Decoder

TOLERANCE = 1e-3
_BATCH, _SHORTEST, _LONGEST = 2, 48, 512


def compare(ours: Decoder, folder: Path) -> float:
    """The largest difference between the logits of `ours` and those of the model that transformers loads from `folder`.

    Both compute in float32. InputError names the first block whose activations differ by more than a thousandth of the
    largest of them, and by how much; or says that transformers is not installed.
    """
    theirs = _load(folder)
    activations = ours.dtype
    ours.dtype = torch.float32
    try:
        tokens = _probe(ours)
        with torch.no_grad(), _recording(ours.layers) as mine, _recording(_blocks(theirs, len(ours.layers))) as other:
            logits = ours(tokens), theirs(tokens, use_cache=False).logits.float()
    finally:
        ours.dtype = activations
    names = ["the embedding", *(f"layer {index}" for index in range(len(ours.layers))), "the head"]
    difference = 0.0
    for name, a, b in zip(names, [*mine, logits[0]], [*other, logits[1]], strict=True):
        difference, largest = float((a - b).abs().max()), float(b.abs().max())
        if not difference <= TOLERANCE * largest:  # NaN differs too
            raise InputError(
                f"{folder}: {name} is the first block whose activations differ from those of transformers, by "
                f"{difference:.3g} where they reach {largest:.3g}; import or export it again, or report its config.json"
            )
    return difference


def _load(folder: Path) -> Any:
    try:
        from transformers import AutoModelForCausalLM
    except ImportError:
        raise InputError("the check needs transformers; pip install 'smelt[post]', or leave the check out") from None
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    return model.eval()


def _probe(model: Decoder) -> Tensor:
    """Random tokens `[2, seq]`, longer than the widest window where that is not too long."""
    windows = [getattr(layer.attention, "window", None) or 0 for layer in model.config.each_layer]
    length = min(max(_SHORTEST, max(windows) + 16), _LONGEST)
    return torch.randint(0, model.vocab, (_BATCH, length), generator=torch.Generator().manual_seed(0))


def _blocks(theirs: Any, count: int) -> nn.ModuleList:
    return next(
        module
        for name, module in theirs.named_modules()
        if isinstance(module, nn.ModuleList) and name.endswith("layers") and len(module) == count
    )


@contextmanager
def _recording(blocks: nn.ModuleList) -> Iterator[list[Tensor]]:
    """What the first block reads and every block returns, float32, once the model has run."""
    seen: list[Tensor] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).float())

    def after(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        seen.append((out[0] if isinstance(out, tuple) else out).float())

    hooks = [blocks[0].register_forward_pre_hook(before, with_kwargs=True)]
    hooks += [block.register_forward_hook(after) for block in blocks]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
