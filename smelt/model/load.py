"""A decoder from a folder, whoever wrote it."""

from pathlib import Path

import torch

from smelt.errors import InputError
from smelt.model.decoder import Decoder
from smelt.model.families import import_model
from smelt.model.weights import DESCRIPTION, load_weights


def load_model(path: str | Path, dtype: torch.dtype | None = None) -> Decoder:
    """The decoder in one of our checkpoints or a Hugging Face folder, float32 weights, ready to evaluate.

    `dtype` is that of the activations; None takes the one the folder was written with.
    """
    folder = Path(path)
    if (folder / DESCRIPTION).is_file():
        return load_weights(folder, dtype)
    if (folder / "config.json").is_file():
        return import_model(folder, dtype)
    raise InputError(
        f"{folder}: not a model folder (neither {DESCRIPTION} nor config.json); give a checkpoint such as "
        "runs/RUN/checkpoints/step-00001000 or a Hugging Face folder"
    )
