"""The whole recipe, and the rules that span sections."""

from typing import Any

from pydantic import Field, ValidationError, model_validator

from smelt.recipe.merge import put
from smelt.recipe.mistakes import in_words, located
from smelt.recipe.parts.position import check_training
from smelt.recipe.sections.base import Section
from smelt.recipe.sections.corpus import Corpus
from smelt.recipe.sections.dataset import Dataset
from smelt.recipe.sections.evals import Evals
from smelt.recipe.sections.infra import Infra
from smelt.recipe.sections.model import Model, ModelOrStart
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
            if isinstance(self.model, Model):
                self._check_model_at(index, self.train)
        return self

    def _check_model_at(self, index: int, train: Train) -> None:
        try:
            model = self.model_at(index)
        except ValidationError as error:
            raise ValueError(f"train.stages.{index}.set: model.{in_words(error.errors()[0])}") from None
        for layer in model.each_layer:
            check_training(layer.position, train.sequence_of(index))

    def model_at(self, stage: int) -> Model:
        """The model section that stage `stage` trains: with all that the stages up to it have `set`."""
        model: Model = self.section("model")
        changes = [each for earlier in self.section("train").stages[: stage + 1] for each in earlier.set.items()]
        if not changes:
            return model
        section = {"model": model.model_dump()}
        for key, value in changes:
            try:
                put(section, key.split("."), value)
            except IndexError:
                raise located(("per_layer",), f"has no entry {key.split('.')[2]}") from None
        return Model.model_validate(section["model"])

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
