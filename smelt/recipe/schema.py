"""The whole recipe, and the rules that span sections."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field, model_validator

from smelt.recipe.parts.position import check_training
from smelt.recipe.plan import Plan, Segment
from smelt.recipe.sections.amendment import Amendment
from smelt.recipe.sections.base import Section
from smelt.recipe.sections.corpus import Corpus
from smelt.recipe.sections.dataset import Dataset
from smelt.recipe.sections.evals import Evals
from smelt.recipe.sections.infra import Infra
from smelt.recipe.sections.model import ModelOrStart
from smelt.recipe.sections.posttrain import Posttrain
from smelt.recipe.sections.tokenizer import Tokenizer
from smelt.recipe.sections.train import Train


class Recipe(Section):
    """One file that says everything about a run. A section that a command does not need may be absent."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(default=0, ge=0, lt=2**63)
    corpus: Corpus | None = None
    tokenizer: Tokenizer | None = None
    dataset: Dataset = Dataset()
    model: ModelOrStart | None = None
    train: Train | None = None
    evals: Evals = Evals()
    posttrain: Posttrain | None = None
    infra: Infra = Infra()
    amendments: tuple[Amendment, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        shared = set(self.dataset.shards) & set(self.corpus.sources if self.corpus else ())
        if shared:
            raise ValueError(f"dataset.shards: '{min(shared)}' is a source of 'corpus' too; rename one of them")
        self._check_sources()
        if self.train is None and self.amendments:
            raise ValueError("amendments: they change how a model is trained; add the section 'train'")
        if self.train is None:
            return self
        for segment in Plan(self).segments:
            self._check(segment)
        return self

    def _check_sources(self) -> None:
        """Names of sources, wherever they stand beside mixtures, are known ones."""
        plain = (*(self.corpus.sources if self.corpus else ()), *self.dataset.shards)
        shared = set(plain) & set(self.dataset.long)
        if shared:
            raise ValueError(f"dataset.long: '{min(shared)}' is the name of another source; choose another")
        named = [
            *((f"dataset.long.{name}.of", each.of, plain) for name, each in self.dataset.long.items()),
            *(
                (f"dataset.classes.{name}", source, self.sources)
                for name, sources in self.dataset.classes.items()
                for source in sources
            ),
            *(("train.caps", source, self.sources) for source in (self.train.caps if self.train else ())),
            *self._adapted(),
        ]
        for place, source, known in named:
            if source not in known:
                words = ", ".join(known) or "none; add a corpus section"
                raise ValueError(f"{place}: unknown source '{source}' (known sources: {words})")

    def _adapted(self) -> Iterator[tuple[str, str, Sequence[str]]]:
        """Sources that `train.adapt` names, each with its key and what may stand there."""
        section = self.train.adapt if self.train else None
        for name, each in section.capabilities.items() if section else ():
            place = f"train.adapt.capabilities.{name}"
            unknown = next((task for task in each.tasks if task not in self.evals.tasks), None)
            if unknown is not None:
                raise ValueError(f"{place}.tasks: '{unknown}' is not measured along the way; add it to evals.tasks")
            yield from ((f"{place}.sources", source, self.sources) for source in each.sources)
            texts = tuple(self.corpus.sources) if self.corpus else ()
            yield from ((f"{place}.validation", source, texts) for source in each.validation)

    def _check(self, segment: Segment) -> None:
        stage = segment.train.stages[max(0, segment.stage)]
        planned = self.train is not None and stage in self.train.stages
        where = f"train.stages.{segment.stage}.mixture" if planned else "amendments.set"
        for source in segment.mixture:
            if source not in self.sources:
                known = ", ".join(self.sources) or "none; add a corpus section"
                raise ValueError(
                    f"{where}: unknown source '{source}' in stage '{segment.name}' (known sources: {known})"
                )
        if self.dataset.span % segment.sequence:
            raise ValueError(
                f"dataset.span ({self.dataset.span}) must be a multiple of the sequence ({segment.sequence}) of stage "
                f"'{segment.name}', as windows are cut from spans"
            )
        if segment.batch_tokens % segment.sequence:
            raise ValueError(
                f"train.batch_warmup: batch_tokens ({segment.batch_tokens}) must be a multiple of the sequence "
                f"({segment.sequence}) of stage '{segment.name}'"
            )
        for layer in segment.model.each_layer if segment.model else ():
            check_training(layer.position, segment.sequence)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of all sources, in the order of the recipe."""
        return (*(self.corpus.sources if self.corpus else ()), *self.dataset.shards, *self.dataset.long)

    def section(self, name: str) -> Any:
        """A section that the command at hand needs; InputError when the recipe has none."""
        from smelt.errors import InputError

        value = getattr(self, name)
        if value is None:
            raise InputError(f"recipe '{self.name}': this command needs the section '{name}', which is missing; add it")
        return value
