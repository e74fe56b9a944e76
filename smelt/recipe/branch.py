"""Runs that go on from a step of another, whose past becomes their own, and runs that go on with amendments."""

from collections.abc import Collection, Iterable
from typing import Any

from pydantic import ValidationError

from smelt.errors import InputError
from smelt.recipe.dump import differences
from smelt.recipe.mistakes import in_words
from smelt.recipe.plan import Plan, Segment
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.amendment import Amendment
from smelt.recipe.sections.trunk import Stretch, Trunk

_BEGINNING = ("load", "source", "init")  # of a model: where its weights came from


def resolve_from(recipe: Recipe, trunk: Recipe) -> Recipe:
    """`recipe` with the past that `train.from` names written out, from the frozen recipe of the trunk.

    Raises InputError where the two do not agree on seed, model or data, or the trunk has no such step.
    """
    start: Trunk = recipe.section("train").trunk
    refused = differences(_shared(trunk, trunk.sources), _shared(recipe, trunk.sources))
    if refused:
        raise InputError(
            f"train.from: run '{start.run}' differs in {'; '.join(map(str, refused[:3]))}; it can only go on with the "
            "seed, the model and the sources that it was trained with"
        )
    plan = Plan(trunk)
    if not start.step <= plan.total_steps:
        raise InputError(f"train.from.step: run '{start.run}' has steps 1 to {plan.total_steps}, not {start.step}")
    stages = plan.segments[0].stage
    past = [
        _stretch(segment, stages, min(segment.end, start.step))
        for segment in plan.segments
        if segment.first < start.step
    ]
    return with_past(recipe, tuple(past))


def with_past(recipe: Recipe, past: tuple[Stretch, ...]) -> Recipe:
    """`recipe` with a past that is known, such as that of its own run when it goes on."""
    train = recipe.section("train")
    known = train.model_copy(update={"trunk": train.trunk.model_copy(update={"past": past})})
    return _changed(recipe, train=known.model_dump())


def with_amendments(recipe: Recipe, amendments: Iterable[Amendment], whose: str) -> Recipe:
    """`recipe`, which a message calls `whose`, with these amendments; InputError where it cannot take them."""
    try:
        return _changed(recipe, amendments=[each.model_dump() for each in amendments])
    except InputError as error:
        raise InputError(
            f"amendments: they do not fit {whose} ({error}); keep to sources and stages that it has"
        ) from None


def _changed(recipe: Recipe, **sections: Any) -> Recipe:
    try:
        return Recipe.model_validate({**recipe.model_dump(), **sections})
    except ValidationError as error:
        raise InputError(in_words(error.errors()[0])) from None


def _stretch(segment: Segment, stages: int, end: int) -> Stretch:
    return Stretch(
        stage=segment.stage - stages,
        name=segment.name,
        steps=end - segment.first,
        sequence=segment.sequence,
        batch_tokens=segment.batch_tokens,
        mixture=dict(segment.mixture),
        skip=segment.skip,
        shared=segment.shared,
        set=dict(segment.set),
        packing=segment.packing,
    )


def _shared(recipe: Recipe, sources: Collection[str]) -> dict[str, Any]:
    """What a run must share with its trunk, which has `sources`; it may have further ones."""
    data = recipe.model_dump(mode="json", include={"seed", "model", "tokenizer", "corpus", "dataset"})
    model, corpus, dataset = data["model"] or {}, data["corpus"] or {}, data["dataset"]
    if corpus:
        corpus["sources"] = {name: source for name, source in corpus["sources"].items() if name in sources}
    dataset["shards"] = [name for name in dataset["shards"] if name in sources]
    dataset["long"] = {name: each for name, each in dataset["long"].items() if name in sources}
    del dataset["classes"]
    data["model"] = {name: value for name, value in model.items() if name not in _BEGINNING}
    data["order of sources"] = ", ".join(name for name in recipe.sources if name in sources)
    return data
