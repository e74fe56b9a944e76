"""Models across the border: a checkpoint to a Hugging Face folder, and one of those to our layout."""

from pathlib import Path

from smelt.errors import InputError
from smelt.files import check_directory, read_json, whole_directory
from smelt.model.families import export_model
from smelt.model.load import load_model
from smelt.model.weights import save_weights
from smelt.recipe.load import load_recipe
from smelt.tokenizer.tokenizer import load_tokenizer


def export_checkpoint(checkpoint: Path, out: Path) -> str:
    """Write `out` as `transformers` reads it, with the tokenizer; returns the family.

    The context is the longest sequence that the run's stages trained on.
    """
    if not (checkpoint / "recipe.yaml").is_file():
        raise InputError(f"{checkpoint}: not a checkpoint of a run; give runs/RUN/checkpoints/step-NNNNNNNN")
    check_directory(checkpoint)
    train = load_recipe(checkpoint / "recipe.yaml").section("train")
    context = max(train.sequence_of(stage) for stage in range(len(train.stages)))
    tokenizer = load_tokenizer(checkpoint / "tokenizer")
    export_model(load_model(checkpoint), out, tokenizer=tokenizer, context=context)
    family: str = read_json(out / "config.json")["model_type"]
    return family


def import_folder(folder: Path, out: Path) -> int:
    """Write a Hugging Face folder's model (and tokenizer, if any) in our layout; returns how many parameters it has."""
    model = load_model(folder)
    with whole_directory(out, {"kind": "model", "from": "hugging-face"}) as into:
        save_weights(model, into)
        if (folder / "tokenizer.json").is_file():
            load_tokenizer(folder).save(into / "tokenizer")
    return sum(parameter.numel() for parameter in model.parameters())
