"""Watches a run's evaluations for plateaus: says what mixture would answer one, or has the run go on with it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from smelt.files import read_json
from smelt.recipe.branch import with_amendments
from smelt.recipe.load import load_recipe
from smelt.recipe.mixtures.plateau import Point, Recommendation, recommend
from smelt.recipe.plan import Plan, Segment
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.adapt import Adapt, Capability
from smelt.recipe.sections.amendment import Amendment
from smelt.train.checkpoints import step_in
from smelt.train.loop import Hook, Training
from smelt.train.records import event


class Adaptation(Hook):
    """Looks, on the first rank and at each logged step, at what has been measured since the mixture last changed; not
    at what a life that the run was taken back from had measured of later steps.

    A recommendation is said and put into the events, unless it is the one before again. Where the recipe says `apply`,
    the run is asked to leave, and `amended` gives the recipe that it goes on with.
    """

    def __init__(self, section: Adapt, say: Callable[[str], None]) -> None:
        self._section, self._say = section, say
        self._seen: list[_File] = []
        self._abandoned: set[_File] = set()
        self._told = ""
        self._made: tuple[int, Recommendation] | None = None

    def started(self, training: Training) -> None:
        self._seen, self._told, self._made = [], "", None
        self._abandoned = {each for each in _evaluations(training.run) if each.step > training.at.step}

    def stepped(self, training: Training, row: dict[str, Any] | None) -> None:
        if row is None or not training.engine.world.is_first or self._made is not None:
            return
        done = [each for each in _evaluations(training.run) if each not in self._abandoned]
        if done == self._seen:
            return
        self._seen = done
        segment = training.plan.at(training.at.step)
        if segment.stage < 0 or training.at.step >= training.plan.total_steps:
            return
        since = _mixed_since(training.plan, segment)
        mixture = segment.train.stages[segment.stage].mixture
        found = recommend(self._section, curves(self._section, [each.path for each in done], since), mixture)
        if found is not None and self._told != f"{found.stalled} {found.mixture}":
            self._told = f"{found.stalled} {found.mixture}"
            self._tell(training, segment, found)

    def amended(self, recipe: Recipe, run: Path, step: int) -> Recipe | None:
        """The `recipe` that a run which left at `step` goes on with; None where it was not asked to."""
        if self._made is None:
            return None
        stage, found = self._made
        recipe = restored(recipe, load_recipe(run / "recipe.yaml"))
        change = Amendment.model_validate(
            {"from_step": step, "set": {f"train.stages.{stage}.mixture": dict(found.mixture)}, "by": "plateau"}
        )
        return with_amendments(recipe, (*recipe.amendments, change), "the recipe")

    def _tell(self, training: Training, segment: Segment, found: Recommendation) -> None:
        gains = {name: {"state": each.state, "gain": each.gain} for name, each in found.trends.items()}
        facts = {"stalled": found.stalled, "trends": gains, "mixture": dict(found.mixture)}
        event(training.run, "plateau", step=training.at.step, applied=self._section.apply, **facts)
        self._say(f"step {training.at.step}: {found}")
        if self._section.apply:
            self._made = segment.stage, found
            training.stop.replan.set()


def curves(section: Adapt, evaluations: list[Path], since: int) -> dict[str, list[Point]]:
    """The evaluations of each capability in the files, those of steps before `since` left out, in order."""
    points: dict[str, list[Point]] = {name: [] for name in section.capabilities}
    for path in evaluations:
        scores = read_json(path)
        if scores.get("step", -1) < since or scores.get("model", "base") != "base":
            continue
        for name, capability in section.capabilities.items():
            point = _point(capability, scores)
            if point is not None:
                points[name].append(point)
    return points


def _point(capability: Capability, scores: Mapping[str, Any]) -> Point | None:
    """The mean over its tasks, or minus the mean bits per byte; None where any was not measured."""
    tasks = [scores["tasks"].get(task) for task in capability.tasks]
    texts = [scores["validation"].get(source) for source in capability.validation]
    if None in tasks or None in texts:
        return None
    if tasks:
        error = sum(_error(each) ** 2 for each in tasks) ** 0.5 / len(tasks)
        return Point(scores["tokens"], sum(each["score"] for each in tasks) / len(tasks), error)
    return Point(scores["tokens"], -sum(each["bits_per_byte"] for each in texts) / len(texts))


def _error(task: Mapping[str, Any]) -> float:
    """The standard error of a share of `n` items with two right and two wrong ones added (Agresti & Coull 1998), so
    that none right of a few does not pass for certainty."""
    n = task["n"] + 4
    share = (task["score"] * task["n"] + 2) / n
    return float((share * (1 - share) / n) ** 0.5)


def _mixed_since(plan: Plan, segment: Segment) -> int:
    """The step at which the mixture of a segment began."""
    since = segment.first
    for before in reversed([each for each in plan.segments if each.end <= segment.first]):
        if before.mixture != segment.mixture:
            break
        since = before.first
    return since


def restored(recipe: Recipe, frozen: Recipe | None) -> Recipe:
    """`recipe` with the amendments that its run, `frozen`, made by itself, in the order in which they were made."""
    if frozen is None or any(each.by == "plateau" for each in recipe.amendments):
        return recipe
    users = [each for each in frozen.amendments if each.by != "plateau"]
    if len(users) == len(frozen.amendments) or list(recipe.amendments[: len(users)]) != users:
        return recipe
    amendments = (*frozen.amendments, *recipe.amendments[len(users) :])
    return with_amendments(recipe, amendments, "the recipe, with those that the run made by itself")


class _File(NamedTuple):
    """What is on record of one step, and when it was written."""

    step: int
    path: Path
    written: int


def _evaluations(run: Path) -> list[_File]:
    """All evaluations that are there, by step."""
    found = [(step_in(path.stem), path) for path in (run / "evals").glob("step-*.json")]
    return sorted(_File(step, path, path.stat().st_mtime_ns) for step, path in found if step is not None)
