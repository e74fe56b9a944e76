"""Every kind of mixer and feed-forward that a recipe can name."""

from typing import Annotated, Any, get_args

from pydantic import Field, SerializerFunctionWrapHandler, TypeAdapter, ValidatorFunctionWrapHandler, WrapSerializer
from pydantic.functional_validators import WrapValidator

from smelt.recipe.parts.attention import GroupedQuery
from smelt.recipe.parts.custom import Custom, custom_part, is_custom
from smelt.recipe.parts.deltanet import GatedDeltaNet
from smelt.recipe.parts.dense import GeGLU, ReLU2, SwiGLU
from smelt.recipe.parts.latent import Latent
from smelt.recipe.parts.linear import LinearAttention
from smelt.recipe.parts.mamba2 import Mamba2
from smelt.recipe.parts.moe import MixtureOfExperts
from smelt.recipe.parts.nothing import Nothing
from smelt.recipe.parts.parallel import Parallel
from smelt.recipe.parts.position import Position
from smelt.recipe.sections.base import Section


def _or_custom(usual: str) -> WrapValidator:
    """Adds `module:Class`, and `usual` as the kind when none is given."""

    def validate(value: Any, known: ValidatorFunctionWrapHandler) -> Any:
        if isinstance(value, Custom):
            return value
        if isinstance(value, dict):
            value = {"kind": usual, **value}
            if is_custom(value):
                return custom_part(value)
        return known(value)

    return WrapValidator(validate)


def _dump(value: Any, known: SerializerFunctionWrapHandler) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Custom) else known(value)


Mixer = Annotated[
    Annotated[
        GroupedQuery | Latent | Mamba2 | GatedDeltaNet | LinearAttention | Parallel | Nothing,
        Field(discriminator="kind"),
    ],
    _or_custom("gqa"),
    WrapSerializer(_dump),
]
FeedForward = Annotated[
    Annotated[SwiGLU | GeGLU | ReLU2 | MixtureOfExperts | Nothing, Field(discriminator="kind")],
    _or_custom("swiglu"),
    WrapSerializer(_dump),
]
MIXER: TypeAdapter[Any] = TypeAdapter(Mixer)


def _by_kind(union: Any) -> dict[str, type[Section]]:
    return {get_args(part.model_fields["kind"].annotation)[0]: part for part in get_args(get_args(union)[0])}


KINDS = {"attention": _by_kind(Mixer), "position": _by_kind(Position), "feedforward": _by_kind(FeedForward)}
