"""The whole recipe, and the rules that span sections."""

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
        if self.train is None and self.amendments:
            raise ValueError("amendments: they change how a model is trained; add the section 'train'")
        if self.train is None:
            return self
        for segment in Plan(self).segments:
            self._check(segment)
        return self

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
        return (*(self.corpus.sources if self.corpus else ()), *self.dataset.shards)

    def section(self, name: str) -> Any:
        """A section that the command at hand needs; InputError when the recipe has none."""
        from smelt.errors import InputError

        value = getattr(self, name)
        if value is None:
            raise InputError(f"recipe '{self.name}': this command needs the section '{name}', which is missing; add it")
        return value
