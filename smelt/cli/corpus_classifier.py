"""`smelt corpus classifier`: train the model behind the filter `classifier`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from smelt.cli.common import Json, answer


def classifier(
    labelled: Annotated[str, typer.Argument(help="JSON Lines of labelled texts: a file, a folder or a glob.")],
    out: Annotated[Path, typer.Argument(help="The folder to write the model into.")],
    text: Annotated[str, typer.Option(help="The field of the text.")] = "text",
    label: Annotated[str, typer.Option(help="The field of the label: a number, or a word.")] = "label",
    positive: Annotated[str | None, typer.Option(help="Of words, the label whose probability is the score.")] = None,
    words: Annotated[int, typer.Option(min=1, max=5, help="The longest word n-grams.")] = 2,
    characters: Annotated[str | None, typer.Option(help="Character n-grams too, such as 3-5.")] = None,
    buckets: Annotated[int, typer.Option(min=2**10, max=2**24, help="How many weights n-grams share.")] = 2**18,
    as_json: Json = False,
) -> None:
    """Train a quality classifier on hashed n-grams, and measure it on a tenth of the texts, which it never saw.

    Numbers as labels (such as 0 to 5) make a regression, words a classification.

    Example: smelt corpus classifier labelled.jsonl models/educational --label score
    """
    from smelt.corpus.classifier.features import Shape
    from smelt.corpus.classifier.labels import labelled as read
    from smelt.corpus.classifier.model import KIND, Model, save
    from smelt.corpus.classifier.train import train
    from smelt.corpus.files import matching
    from smelt.files import replaceable, sha256

    replaceable(out, KIND, "classifier")
    shape = Shape(words=words, characters=_lengths(characters), buckets=buckets)
    files = matching(labelled, "jsonl")
    model, report = train(*read(files, text, label), shape, positive)
    trained = {"files": {file.name: sha256(file) for file in files}, "text": text, "label": label, "measures": report}
    save(Model(model.facts.model_copy(update={"trained": trained}), model.weights, model.bias), out)
    answer(as_json, {"path": out, "report": report}, f"{out}\n{_table(report)}")


def _lengths(characters: str | None) -> tuple[int, int] | None:
    from smelt.errors import InputError

    if characters is None:
        return None
    fewest, _, most = characters.partition("-")
    if not (fewest.isdecimal() and (most or fewest).isdecimal() and 1 <= int(fewest) <= int(most or fewest) <= 10):
        raise InputError(f"--characters '{characters}': not lengths from 1 to 10; write them as 3-5")
    return int(fewest), int(most or fewest)


def _table(report: dict[str, Any]) -> str:
    examples = report["examples"]
    whole = ", ".join(
        f"{name.replace('_', ' ')} {value:.3f}" for name, value in report.items() if isinstance(value, float)
    )
    lines = [
        f"{report['task']}: {examples['trained']:,} examples learned from, {examples['measured']:,} measured on",
        whole,
        f"{'min_score':>10} {'kept':>8} {'precision':>10} {'recall':>8} {'F1':>6}",
    ]
    for row in report["thresholds"]:
        kept = f"{100 * row['kept']:.1f} %"
        scores = f"{row['precision']:>10.3f} {row['recall']:>8.3f} {row['f1']:>6.3f}"
        lines.append(f"{row['threshold']:>10g} {kept:>8} {scores}")
    return "\n".join(lines)
