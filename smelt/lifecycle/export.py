"""Models across the border: a checkpoint to a Hugging Face folder, and one of those to our layout."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

from smelt.errors import InputError
from smelt.files import MANIFEST, check_directory, replaceable, whole_directory
from smelt.model.families.compare import compare
from smelt.model.families.export import export_weights
from smelt.model.families.importer import import_weights
from smelt.model.tensor_files import Source, TensorFolder
from smelt.model.weights import DESCRIPTION, load_weights
from smelt.optim.averaging import AVERAGE, Followed, Mean
from smelt.recipe.load import load_recipe
from smelt.recipe.plan import Plan
from smelt.recipe.sections.optimizer import ExponentialAverage, Soup
from smelt.tokenizer.tokenizer import load_tokenizer
from smelt.train.checkpoints import OPTIMIZER, checkpoints

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
    average: bool = False,
    warn: Callable[[str], None] = warnings.warn,
) -> str:
    """Write `out` as `transformers` reads it, with the tokenizer; returns the family.

    `checkpoint` is a run's, whose context is the longest sequence that its stages trained on, or an imported model,
    which keeps its own. `check` compares both models block by block before `out` appears. `average` takes what the
    recipe's `train.averaging` says in place of the weights.
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
        if average:
            raise InputError(f"{checkpoint}: an imported model, which has no averages; export it without --average")
        files = inner if inner.is_dir() else None
        return export_weights(checkpoint, out, tokenizer=files, family=family, check=check, warn=warn)
    recipe = load_recipe(checkpoint / "recipe.yaml")
    return export_weights(
        checkpoint,
        out,
        tokenizer=load_tokenizer(inner),
        context=max(segment.sequence for segment in Plan(recipe).segments),
        family=family,
        check=check,
        weights=averaged_weights(checkpoint, recipe.section("train").averaging) if average else None,
        warn=warn,
    )


def averaged_weights(checkpoint: Path, averaging: ExponentialAverage | Soup | None) -> Source:
    """The average that a run keeps in its checkpoint, or the mean of its last checkpoints up to this one."""
    if averaging is None:
        raise InputError(f"{checkpoint}: its recipe has no train.averaging, so there is no average; drop --average")
    if isinstance(averaging, ExponentialAverage):
        state = TensorFolder(checkpoint, OPTIMIZER)
        if not any(name.startswith(f"{AVERAGE}.") for name in state.specs):
            raise InputError(f"{checkpoint}: holds no average yet, as at step 0; choose a later one, or drop --average")
        return Followed(TensorFolder(checkpoint), state)
    here = checkpoint.resolve()
    found = [path for path in checkpoints(here.parent.parent) if path <= here][-averaging.last :]
    if len(found) < averaging.last or found[-1] != here:
        raise InputError(
            f"{checkpoint}: train.averaging takes the mean of the last {averaging.last} checkpoints of a run, but only "
            f"{len(found)} are beside it; choose a later one, or export without --average"
        )
    for path in found:
        check_directory(path)
    return Mean([TensorFolder(path) for path in found])


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
