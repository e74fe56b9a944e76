"""`train.optimizer`, `skip_step` and `averaging`: how weights move, when they do not, and what is kept beside them."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidatorFunctionWrapHandler,
    WrapSerializer,
    field_validator,
    model_validator,
)
from pydantic.functional_validators import WrapValidator

from smelt.recipe.mistakes import located
from smelt.recipe.parts.custom import imported, source_hash
from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count, CountOrZero

NOT_MATRICES = ("embedding", "positions", "head", "router", "conv")


class ParameterGroup(Section):
    """Parameters in whose name the regular expression `match` is found: the learning rate is multiplied by `lr_factor`,
    and `weight_decay`, if given, replaces the optimizer's."""

    match: str
    lr_factor: float = Field(default=1.0, ge=0)
    weight_decay: float | None = Field(default=None, ge=0)

    @field_validator("match")
    @classmethod
    def _pattern(cls, match: str) -> str:
        try:
            re.compile(match)
        except re.error as error:
            raise ValueError(f"'{match}' is no regular expression ({error}); mend it") from None
        return match


class Optimizer(Section):
    """What every rule has. A parameter belongs to the first of `groups` that matches its name; one whose name contains
    a `no_decay` word does not decay unless its group says so."""

    kind: str
    lr: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    no_decay: tuple[str, ...] = ("embedding", "norm")
    groups: tuple[ParameterGroup, ...] = ()


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)


class Muon(Optimizer):
    """Orthogonalised momentum (Jordan et al. 2024) for matrices, AdamW with `betas` and `eps` for all else.

    Parameters whose name contains an `adamw` word are no matrices. `adjust_lr` scales a step by the matrix's shape: so
    that its root mean square is that of AdamW's, and one learning rate does for both (Liu et al. 2025), or as Jordan's
    `original` did.
    """

    kind: Literal["muon"]
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    momentum: float = Field(default=0.95, ge=0, lt=1)
    nesterov: bool = True
    adjust_lr: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    adamw: tuple[str, ...] = NOT_MATRICES


class AdEMAMix(Optimizer):
    """AdamW that adds `alpha` times a slow average of gradients, kept with the third of `betas` (Pagliardini et al.
    2024). Over `warmup_steps` alpha rises from 0, and the third beta from the first."""

    kind: Literal["ademamix"]
    betas: tuple[float, float, float] = (0.9, 0.95, 0.9999)
    alpha: float = Field(default=5.0, ge=0)
    warmup_steps: CountOrZero = 0
    eps: float = Field(default=1e-8, gt=0)


class Lion(Optimizer):
    """The sign of an interpolated momentum (Chen et al. 2023); wants a tenth to a third of AdamW's learning rate."""

    kind: Literal["lion"]
    betas: tuple[float, float] = (0.9, 0.99)


class OwnOptimizer(Optimizer):
    """Any `torch.optim.Optimizer`, as `module:Class`, called with `arguments`.

    `source`, filled in when the recipe is read, is the hash of the file that holds a class of the user's own.
    """

    arguments: dict[str, Any] = Field(default_factory=dict)
    source: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_source(cls, fields: Any) -> Any:
        kind = fields["kind"]
        if kind.startswith("torch.") or fields.get("source"):
            return fields
        return {**fields, "source": source_hash(imported(kind, kind.partition(":")[0]))}


def _or_own(value: Any, known: ValidatorFunctionWrapHandler) -> Any:
    """Adds `module:Class`, and AdamW where no kind is given."""
    if isinstance(value, dict):
        value = {"kind": "adamw", **value}
        if isinstance(value["kind"], str) and ":" in value["kind"]:
            return _own(value)
    return value if isinstance(value, OwnOptimizer) else known(value)


def _own(fields: dict[str, Any]) -> OwnOptimizer:
    unknown = [key for key in fields if key not in OwnOptimizer.model_fields]
    if unknown:
        raise located((unknown[0],), f"'{fields['kind']}' takes its own arguments under 'arguments'; move it there")
    return OwnOptimizer.model_validate(fields)


def _dump(value: Any, known: SerializerFunctionWrapHandler) -> Any:
    return value.model_dump(mode="json") if isinstance(value, OwnOptimizer) else known(value)


AnyOptimizer = Annotated[
    Annotated[AdamW | Muon | AdEMAMix | Lion, Field(discriminator="kind")],
    WrapValidator(_or_own),
    WrapSerializer(_dump),
]


class SkipStep(Section):
    """Passes over a step whose loss or gradient norm is not finite, or lies more than `sigmas` standard deviations
    above the mean of the last `window` steps that counted; `patience` finite ones in a row are a new level, not
    outliers, and counting starts afresh."""

    sigmas: float = Field(default=6.0, gt=0)
    window: Count = 128
    patience: Count = 32


class ExponentialAverage(Section):
    """Keeps, beside the weights, their average over steps, each counting `decay` times as much as the next."""

    kind: Literal["ema"]
    decay: float = Field(default=0.999, gt=0, lt=1)


class Soup(Section):
    """The mean of the weights of a run's last `last` checkpoints, taken when one is exported."""

    kind: Literal["soup"]
    last: Count = 3


Averaging = Annotated[ExponentialAverage | Soup, Field(discriminator="kind")]
