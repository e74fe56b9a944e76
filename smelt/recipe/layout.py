"""Whether a layout fits the model, the batches and the processes at hand; known before a process starts."""

from collections.abc import Iterator

from smelt.errors import InputError
from smelt.recipe.parts.custom import Custom
from smelt.recipe.parts.moe import MixtureOfExperts
from smelt.recipe.parts.parallel import Parallel
from smelt.recipe.parts.part import Part
from smelt.recipe.pipeline import check_pipeline, micro_batches
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.infra import Layout
from smelt.recipe.sections.model import Model

# What tensor-parallel processes share out, by kind of part; of the second, 1 is shared by all instead.
CUT = {
    "gqa": ("heads", "kv_heads"),
    "mla": ("heads",),
    "linear": ("heads",),
    "gated_deltanet": ("key_heads", "value_heads"),
    "mamba2": ("heads", "groups", "norm_groups"),
    "swiglu": ("width",),
    "geglu": ("width",),
    "relu2": ("width",),
    "moe": ("width", "shared_width"),
}
MAY_BE_ONE = ("groups", "norm_groups")


def check_layout(recipe: Recipe, world: int) -> Layout:
    """The recipe's layout with `data` as a number, for `world` processes; InputError for whatever does not fit.

    Of a model that starts from a checkpoint, only what the recipe itself says is checked until it is resolved.
    """
    layout = resolve_layout(recipe.infra.layout, world)
    if isinstance(recipe.model, Model):
        check_pipeline(recipe.model, layout, recipe.infra)
        _check_model(layout, recipe.model)
    if recipe.train is not None:
        _check_batches(layout, recipe)
    return layout


def resolve_layout(layout: Layout, world: int) -> Layout:
    """`layout` with `data` as a number; InputError when its product is not `world`."""
    others = layout.pipeline * layout.context * layout.tensor
    data = layout.data
    if data == "auto":
        if world % others:
            raise InputError(
                f"infra.layout: pipeline {layout.pipeline} x context {layout.context} x tensor {layout.tensor} = "
                f"{others} does not divide the {world} processes; change one of them, or start a multiple of {others}"
            )
        data = world // others
    if data * others != world:
        raise InputError(
            f"infra.layout: pipeline {layout.pipeline} x data {data} x context {layout.context} x tensor "
            f"{layout.tensor} = {data * others}, but {world} processes run; set data to 'auto', or start "
            f"{data * others}"
        )
    if data % layout.replicate:
        raise InputError(
            f"infra.layout.replicate: {layout.replicate} does not divide the {data} data processes; use a divisor"
        )
    sharing = data // layout.replicate * layout.context * layout.tensor
    if sharing % layout.expert:
        raise InputError(
            f"infra.layout.expert: {layout.expert} does not divide the {sharing} data, context and tensor processes of "
            "one copy of the model; use a divisor"
        )
    if layout.sequence_parallel and layout.tensor == 1:
        raise InputError("infra.layout.sequence_parallel: needs tensor > 1; raise tensor, or drop it")
    return layout.model_copy(update={"data": data})


def _check_model(layout: Layout, model: Model) -> None:
    """Every layer must be one that can be shared out as the layout says."""
    for index, each in enumerate(model.each_layer):
        for name, part in (("attention", each.attention), ("feedforward", each.feedforward)):
            place = f"layer {index}, {name}"
            if isinstance(part, MixtureOfExperts) and layout.expert > 1:
                _divides("expert", layout.expert, f"experts ({part.experts}) of {place}", part.experts)
            elif layout.tensor > 1:
                for field, size in _cut(part, place):
                    _divides("tensor", layout.tensor, f"{field} ({size}) of {place}", size)
    if layout.expert > 1 and not any(isinstance(each.feedforward, MixtureOfExperts) for each in model.each_layer):
        raise InputError(f"infra.layout.expert: {layout.expert}, but the model has no experts; set it to 1")


def _cut(part: Part, place: str) -> Iterator[tuple[str, int]]:
    """What a part has to be divisible by; InputError for a part that cannot be cut."""
    if isinstance(part, Custom):
        raise InputError(f"infra.layout.tensor: {place} is a part of your own, which cannot be cut; set tensor to 1")
    if isinstance(part, Parallel):
        for branch in part.branches:
            yield from _cut(branch.mixer, place)
        return
    for name in CUT.get(part.kind, ()):  # type: ignore[attr-defined]
        size = getattr(part, name)
        if size is not None and not (name in MAY_BE_ONE and size == 1):
            yield name, size


def _check_batches(layout: Layout, recipe: Recipe) -> None:
    """Every batch must split evenly over the data processes, every sequence over those that share it."""
    names = [name for name in ("context", "tensor") if getattr(layout, name) > 1]
    seen = {(each.name, each.sequence, each.windows) for each in Plan(recipe).segments if each.stage >= 0}
    for stage, sequence, rows in sorted(seen):
        place, data = f"of stage '{stage}'", int(layout.data)
        _divides(" x ".join(names), layout.context * layout.tensor, f"the sequence ({sequence}) {place}", sequence)
        if rows % data:
            raise InputError(
                f"infra.layout.data: a batch of {rows} rows {place} does not split evenly over {data} data processes; "
                f"make train.batch_tokens a multiple of {data * sequence}"
            )
        if layout.pipeline > 1:
            most = rows // data if recipe.infra.micro_batch == "auto" else recipe.infra.micro_batch
            micro_batches(rows // data, most, layout.schedule, layout.pipeline)


def _divides(field: str, by: int, what: str, size: int) -> None:
    if size % by:
        raise InputError(f"infra.layout.{field}: {by} does not divide {what}; use a divisor")
