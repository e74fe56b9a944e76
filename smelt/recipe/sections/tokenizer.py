"""`tokenizer`: train one, or load one."""

from pydantic import Field, model_validator

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class TrainTokenizer(Section):
    """Byte-level BPE over a sample of the corpus, `sample_bytes` in all, drawn evenly from every source."""

    vocab: Count = Field(default=32_768, ge=384)
    sample_bytes: Count = 100_000_000


class Tokenizer(Section):
    """Exactly one of `train` and `load` (a folder with `tokenizer.json`, or a hub id)."""

    train: TrainTokenizer | None = None
    load: str | None = None

    @model_validator(mode="after")
    def _one(self) -> "Tokenizer":
        if (self.train is None) == (self.load is None):
            raise ValueError("give exactly one of 'train' and 'load'")
        return self
