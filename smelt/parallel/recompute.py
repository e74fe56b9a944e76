"""Activation checkpointing: what the backward pass computes again rather than remember, layer by layer."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

# Products and attention, which take most of the time: kept. Norms, rotations, activations and casts are computed again.
KEPT = (
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::_grouped_mm",
    "aten::_scaled_mm",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "smelt::attention",
)


def recompute(layers: Iterable[nn.Module], amount: Literal["none", "selective", "full"]) -> None:
    """Makes each of `layers` remember only what it read (`full`), that and the results of its products and attention
    (`selective`), or everything (`none`). Gradients stay the same."""
    if amount == "none":
        return
    contexts = {"context_fn": functools.partial(create_selective_checkpoint_contexts, _policy)}
    for layer in layers:
        # The method, not a module around it: names of parameters stay, and FSDP's hooks lie outside.
        layer.forward = _again(layer.forward, contexts if amount == "selective" else {})


def _again(forward: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def call(*arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **named)
        # No layer draws random numbers, so no generator's state need be kept.
        return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False, **options, **named)

    return call


def _policy(context: Any, operator: Any, *arguments: Any, **named: Any) -> CheckpointPolicy:
    name = operator.name().partition(".")[0] if hasattr(operator, "name") else str(operator)
    kept = name in KEPT or name == "flex_attention"
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
