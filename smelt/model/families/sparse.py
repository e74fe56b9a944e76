"""Fields and tensors that families with experts share."""

from typing import Any

from smelt.errors import InputError
from smelt.model.families.family import Config
from smelt.model.families.rules import Rule, same
from smelt.recipe.parts.moe import MixtureOfExperts
from smelt.recipe.sections.model import Model

SILU = {"silu": "swiglu"}
"""Activations of experts, by their `hidden_act`."""

ROUTER_LOSS = {"output_router_logits": False, "router_aux_loss_coef": 0.0}
"""Fields of a loss that only transformers' own training reads; they decide no forward pass, and `read` ignores them."""


def experts(theirs: str, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj") -> list[Rule]:
    """Rules for a file that holds every expert's matrices by themselves, named `THEIRS.{e}.gate_proj.weight`."""
    names = {"gate": gate, "up": up, "down": down}
    return [
        same(f"layers.{{}}.feedforward.experts.{ours}", f"{theirs}.{{e}}.{name}.weight") for ours, name in names.items()
    ]


def shared(theirs: str) -> list[Rule]:
    """Rules for the network that every token passes."""
    return [
        same(f"layers.{{}}.feedforward.shared.{name}.weight", f"{theirs}.{name}_proj.weight")
        for name in ("gate", "up", "down")
    ]


def router(theirs: str) -> Rule:
    """The router's matrix."""
    return same("layers.{}.feedforward.router.weight", f"{theirs}.weight")


def require(config: Config, field: str, *values: Any) -> None:
    """InputError unless `field` has one of these values, the only ones whose maths we have."""
    if config[field] not in values:
        raise InputError(
            f"config.json: '{field}' is {config[field]!r}, which this decoder does not compute (only "
            f"{' or '.join(map(repr, values))}); use a checkpoint without it"
        )


def read_qwen_experts(config: Config, **more: Any) -> list[dict[str, Any]]:
    """The `feedforward` of each layer by Qwen's fields: experts in none, every few, or all but some; `more` joins the
    fields of those that have experts."""
    count = number_of_experts(config)
    step, listed = config["decoder_sparse_step"], config["mlp_only_layers"] or ()
    dense = {"kind": "swiglu", "width": config["intermediate_size"]}
    mixture = {
        "kind": "moe",
        "experts": count,
        "top_k": config["num_experts_per_tok"],
        "width": config["moe_intermediate_size"],
        "normalize": config["norm_topk_prob"],
        **more,
    }
    layers = range(config["num_hidden_layers"])
    return [mixture if count and index not in listed and (index + 1) % step == 0 else dense for index in layers]


def write_qwen_experts(config: Model) -> dict[str, Any]:
    """The way back from `read_qwen_experts`."""
    mixture, dense = first_mixture(config), dense_width(config)
    if mixture is None:
        return {"num_experts": 0, "intermediate_size": dense}
    return {
        "intermediate_size": dense or mixture.width,
        "num_experts": mixture.experts,
        "num_experts_per_tok": mixture.top_k,
        "moe_intermediate_size": mixture.width,
        "norm_topk_prob": mixture.normalize,
        "mlp_only_layers": [index for index, layer in enumerate(config.each_layer) if layer.feedforward.kind != "moe"],
        "decoder_sparse_step": 1,
    }


def number_of_experts(config: Config) -> int:
    """Experts of a layer, under either of the names it has had."""
    return int(config["num_experts"] if config["num_local_experts"] is None else config["num_local_experts"])


def first_mixture(config: Model) -> MixtureOfExperts | None:
    """The first layer's experts, of those that have any."""
    found = (layer.feedforward for layer in config.each_layer if layer.feedforward.kind == "moe")
    return next(found, None)


def shared_width(mixture: MixtureOfExperts) -> int:
    """Channels of the network beside the experts; ValueError when there is none, where a family always has one."""
    if mixture.shared_width is None:
        raise ValueError("feedforward.shared_width is None, and it has a shared network beside its experts")
    return mixture.shared_width


def dense_width(config: Model) -> int | None:
    """`width` of the first layer without experts; None where every layer has them."""
    found = (layer.feedforward.width for layer in config.each_layer if layer.feedforward.kind not in ("moe", "none"))
    return next(found, None)
