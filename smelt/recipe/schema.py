"""The whole recipe, and the rules that span sections."""

from typing import Any

from pydantic import Field, model_validator

from smelt.recipe.sections.base import Section
from smelt.recipe.sections.corpus import Corpus
from smelt.recipe.sections.dataset import Dataset
from smelt.recipe.sections.evals import Evals
from smelt.recipe.sections.infra import Infra
from smelt.recipe.sections.model import Model
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
    model: Model | None = None
    train: Train | None = None
    evals: Evals = Evals()
    posttrain: Posttrain | None = None
    infra: Infra = Infra()

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        sources = self.sources
        shared = set(self.dataset.shards) & set(self.corpus.sources if self.corpus else ())
        if shared:
            raise ValueError(f"dataset.shards: '{min(shared)}' is a source of 'corpus' too; rename one of them")
        if self.train is None:
            return self
        for index, stage in enumerate(self.train.stages):
            for source in stage.mixture:
                if source not in sources:
                    known = ", ".join(sources) or "none; add a corpus section"
                    raise ValueError(
                        f"train.stages.{index}.mixture: unknown source '{source}' in stage '{stage.name}' "
                        f"(known sources: {known})"
                    )
            sequence = self.train.sequence_of(index)
            if self.dataset.span % sequence:
                raise ValueError(
                    f"dataset.span ({self.dataset.span}) must be a multiple of the sequence ({sequence}) of stage "
                    f"'{stage.name}', as windows are cut from spans"
                )
        return self

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
