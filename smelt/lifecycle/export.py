"""Models across the border: a checkpoint to a Hugging Face folder, and one of those to our layout."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

from smelt.errors import InputError
from smelt.files import MANIFEST, check_directory, whole_directory
from smelt.model.families.compare import compare
from smelt.model.families.export import export_weights, replaceable
from smelt.model.families.importer import import_weights
from smelt.model.weights import DESCRIPTION, load_weights
from smelt.recipe.load import load_recipe
from smelt.tokenizer.tokenizer import load_tokenizer

KIND = "model"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
)


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    family: str | None = None,
    check: bool = False,
    warn: Callable[[str], None] = warnings.warn,
) -> str:
    """Write `out` as `transformers` reads it, with the tokenizer; returns the family.

    `checkpoint` is a run's, whose context is the longest sequence that its stages trained on, or an imported model,
    which keeps its own. `check` compares both models block by block before `out` appears.
    """
    if not (checkpoint / DESCRIPTION).is_file():
        raise InputError(
            f"{checkpoint}: not a checkpoint, nor an imported model; give runs/RUN/checkpoints/step-NNNNNNNN or what "
            "`smelt import` wrote"
        )
    if (checkpoint / MANIFEST).is_file():
        check_directory(checkpoint)
    inner = checkpoint / "tokenizer"
    if not (checkpoint / "recipe.yaml").is_file():
        files = inner if inner.is_dir() else None
        return export_weights(checkpoint, out, tokenizer=files, family=family, check=check, warn=warn)
    train = load_recipe(checkpoint / "recipe.yaml").section("train")
    context = max(train.sequence_of(stage) for stage in range(len(train.stages)))
    return export_weights(
        checkpoint, out, tokenizer=load_tokenizer(inner), context=context, family=family, check=check, warn=warn
    )


def import_folder(folder: Path, out: Path, *, check: bool = False, warn: Callable[[str], None] = warnings.warn) -> int:
    """Write a Hugging Face folder's model, and the files of its tokenizer, in our layout; returns how many parameters.

    Weights keep the dtypes they are stored in. `check` compares both models block by block before `out` appears.
    """
    replaceable(out, KIND, "imported")
    with whole_directory(out, {"kind": KIND}) as into:
        parameters = import_weights(folder, into, warn)
        if (folder / "tokenizer.json").is_file():
            (into / "tokenizer").mkdir()
            for name in TOKENIZER_FILES:
                if (folder / name).is_file():
                    shutil.copyfile(folder / name, into / "tokenizer" / name)
        if check:
            compare(load_weights(into), folder)
    return parameters
