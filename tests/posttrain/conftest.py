"""A small tokenizer of conversations, and a small base model in Hugging Face's form."""

from pathlib import Path

import pytest

from smelt.model.decoder import Decoder
from smelt.model.families import export_model
from smelt.model.init import initialise
from smelt.posttrain.instructions import instructions
from smelt.recipe.sections.model import Model
from smelt.tokenizer.tokenizer import Tokenizer
from smelt.tokenizer.train import train_tokenizer

SECTION = {"hidden": 48, "layers": 2, "attention": {"heads": 4, "kv_heads": 2}, "feedforward": {"width": 96}}


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    rows = instructions(0, 400)
    return train_tokenizer(512, (message["content"] for row in rows for message in row["messages"]))


@pytest.fixture(scope="session")
def base(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = Decoder(Model.model_validate(SECTION), tokenizer.padded)
    initialise(model, 0)
    folder = tmp_path_factory.mktemp("base") / "hf"
    export_model(model, folder, tokenizer=tokenizer, context=256)
    return folder
