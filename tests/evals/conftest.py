"""A small tokenizer of arithmetic and code, and small decoders."""

from collections.abc import Callable

import pytest
import torch

from smelt.corpus.arithmetic import problem
from smelt.model.decoder import Decoder
from smelt.model.init import initialise
from smelt.recipe.sections.model import Model
from smelt.tokenizer.tokenizer import Tokenizer
from smelt.tokenizer.train import train_tokenizer

SECTION = {"hidden": 32, "layers": 2, "attention": {"heads": 2, "kv_heads": 1}, "feedforward": {"width": 64}}


@pytest.fixture(scope="session")
def texts() -> list[str]:
    kinds = ("addition", "subtraction", "words")
    problems = [problem(0, index, "train", kinds) for index in range(300)]
    return [f"Question: {each.question}\nAnswer: {each.work}" for each in problems]


@pytest.fixture(scope="session")
def tokenizer(texts: list[str]) -> Tokenizer:
    return train_tokenizer(512, [*texts, "def read(self):\n    return self.value\n" * 20])


@pytest.fixture
def decoder(tokenizer: Tokenizer) -> Decoder:
    model = Decoder(Model.model_validate(SECTION), tokenizer.padded)
    initialise(model, 0)
    with torch.no_grad():
        for parameter in model.parameters():  # larger weights than at the start, so that predictions differ
            if parameter.ndim == 2:
                parameter *= 8
    return model


@pytest.fixture
def uniform_decoder(tokenizer: Tokenizer) -> Decoder:
    """A model to which every token is as likely as any other."""
    model = Decoder(Model.model_validate(SECTION), tokenizer.padded)
    initialise(model, 0)
    with torch.no_grad():
        model.embedding.weight.zero_()
    return model


@pytest.fixture
def plain_log_probability(decoder: Decoder) -> Callable[[list[int], int], float]:
    """Summed log-probability of ids[first:], one sequence at a time from whole logits."""

    def scored(ids: list[int], first: int) -> float:
        with torch.no_grad():
            logs = decoder(torch.tensor([ids]))[0].double().log_softmax(-1)
        return sum(float(logs[place - 1, ids[place]]) for place in range(first, len(ids)))

    return scored
