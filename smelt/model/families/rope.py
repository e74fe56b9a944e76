"""Rotary positions and their scaling as `config.json` spells them, in both of its ways."""

import math
from typing import Any

from smelt.errors import InputError
from smelt.model.families.family import Config
from smelt.recipe.parts.position import DualChunk, LinearScaling, Llama3Scaling, Rope

ROPE = {
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 10_000.0,
    "partial_rotary_factor": None,
    "original_max_position_embeddings": None,
}
"""The fields that `read_rope` reads, for `Family.defaults`."""


def read_rope(config: Config, partial: bool = False) -> dict[str, Any]:
    """Rotary positions from `rope_parameters`, or from the older `rope_theta` beside `rope_scaling`.

    `partial`: the family turns `partial_rotary_factor` of each head.
    """
    name = "rope_scaling" if config["rope_scaling"] else "rope_parameters"  # the order of transformers
    rope = dict(config[name] or {})
    kind = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope.pop("type", None)
    theta = rope.pop("rope_theta", None) or config["rope_theta"]
    fraction = rope.pop("partial_rotary_factor", None) or config["partial_rotary_factor"] or 1.0
    if fraction != 1 and not partial:
        raise InputError(
            f"config.json: 'partial_rotary_factor' is {fraction!r}, which this family does not compute (only 1.0); "
            "use a checkpoint without it"
        )
    inside = rope.pop("original_max_position_embeddings", None)
    original = config["original_max_position_embeddings"] or inside or config["max_position_embeddings"]
    scaling = _read_scaling(kind, rope, original, config, name)
    unread = [field for field, value in rope.items() if value is not None]
    if unread:
        raise InputError(
            f"config.json: '{name}' has '{unread[0]}', which this decoder does not compute for rope_type '{kind}'; "
            "use a checkpoint without it"
        )
    return {"kind": "rope", "theta": float(theta), "fraction": fraction, "scaling": scaling}


def _read_scaling(kind: str, rope: dict[str, Any], original: int, config: Config, where: str) -> dict[str, Any] | None:
    """The scaling that `rope` describes, taking what it reads out of it."""
    if kind == "default":
        return None
    if kind == "linear":
        return {"kind": kind, "factor": rope.pop("factor")}
    if kind == "llama3":
        low, high = rope.pop("low_freq_factor"), rope.pop("high_freq_factor")
        factor = rope.pop("factor")
        return {"kind": kind, "factor": factor, "original": original, "low_frequency": low, "high_frequency": high}
    if kind == "yarn":
        factor = rope.pop("factor") or config["max_position_embeddings"] / original
        return {
            "kind": kind,
            "factor": factor,
            "original": original,
            "beta_fast": rope.pop("beta_fast", None) or 32.0,
            "beta_slow": rope.pop("beta_slow", None) or 1.0,
            "temperature": _temperature(factor, rope),
            "truncate": rope.pop("truncate", True),
        }
    raise InputError(
        f"config.json: '{where}' asks for rope_type '{kind}', which this decoder does not compute (only default, "
        "linear, llama3, yarn); use a checkpoint without it"
    )


def _temperature(factor: float, rope: dict[str, Any]) -> float | None:
    """`attention_factor`, or the ratio that DeepSeek's two `mscale` fields give, or None for the usual."""
    given, over, under = (rope.pop(name, None) for name in ("attention_factor", "mscale", "mscale_all_dim"))
    if given is None and over and under:
        above, below = (0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0 for scale in (over, under))
        return above / below
    return None if given is None else float(given)


def write_rope(position: Rope) -> dict[str, Any]:
    """`rope_parameters` of rotary positions; ValueError for a scaling that transformers does not have."""
    scaling = position.scaling
    fields: dict[str, Any] = {"rope_type": "default", "rope_theta": position.theta}
    if position.fraction != 1:
        fields["partial_rotary_factor"] = position.fraction
    if scaling is None:
        return fields
    if isinstance(scaling, DualChunk):
        raise ValueError(f"position.scaling is '{scaling.kind}', which transformers does not have")
    fields |= {"rope_type": scaling.kind, "factor": scaling.factor}
    if isinstance(scaling, LinearScaling):
        return fields
    fields["original_max_position_embeddings"] = scaling.original
    if isinstance(scaling, Llama3Scaling):
        return {**fields, "low_freq_factor": scaling.low_frequency, "high_freq_factor": scaling.high_frequency}
    if scaling.temperature is not None:
        fields["attention_factor"] = scaling.temperature
    ramp = {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow, "truncate": scaling.truncate}
    return {**fields, **ramp}
