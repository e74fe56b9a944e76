"""`tokenizer`: train one, or load one."""

from typing import Literal

from pydantic import Field, model_validator

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class TrainTokenizer(Section):
    """A byte-level tokenizer of `vocab` ids, learnt from `sample_bytes` of the corpus.

    `draw: even` takes as much text of every source, `mixture` as much as the stages of training will, weighted by their
    tokens. `digits: single` makes every digit a token, `groups-of-3` lets up to three be one.
    """

    kind: Literal["bpe", "unigram"] = "bpe"
    vocab: Count = Field(default=32_768, ge=384)
    digits: Literal["single", "groups-of-3"] = "single"
    sample_bytes: Count = 100_000_000
    draw: Literal["even", "mixture"] = "even"


class Tokenizer(Section):
    """Exactly one of `train` and `load` (a folder with `tokenizer.json`, or a hub id)."""

    train: TrainTokenizer | None = None
    load: str | None = None

    @model_validator(mode="after")
    def _one(self) -> "Tokenizer":
        if (self.train is None) == (self.load is None):
            raise ValueError("give exactly one of 'train' and 'load'")
        return self
