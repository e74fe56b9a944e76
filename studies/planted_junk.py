"""Junk of known kinds, planted among clean documents, and what `recipes/corpus-demo.yaml` makes of it.

A copy of the folder that SMELT_DATA names is made, with the junk mixed into its files; the recipe builds a corpus from
it; then every planted document, and every clean one, is looked for in what was kept.
"""

import argparse
import gzip
import json
import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smelt.corpus.splits import SPLITS, documents
from smelt.lifecycle.artifacts import corpus as build
from smelt.recipe.load import load_recipe
from smelt.report.corpus.html import write_corpus_report

RECIPE = Path(__file__).parents[1] / "recipes" / "corpus-demo.yaml"
FILES = {  # in the order in which the recipe reads them
    "textbooks": ("en_textbooks",),
    "books": ("en_books",),
    "technical": ("en_technical_eips", "en_technical_peps"),
    "math": ("math_gsm8k_train", "math_textbooks"),
    "code": ("code_python_stdlib",),
    "french": ("fr",),
}
NOTICE = "Sign up for our weekly newsletter and never miss an offer from our partners!"
MENU = (
    "Home | About us | Contact",
    "Accept all cookies",
    "Log in or register",
    "Share this page on your favourite network",
    "All rights reserved.",
    "Terms of service | Privacy policy",
    "Click here to read more...",
    "Add to cart",
    "Show more results",
    "Back to top",
)
NEAR = 0.01  # of words exchanged: about nine of ten five-word shingles stay
EXACT, ITEMS = "exact copies", "benchmark items"  # a copy is left where its text is kept twice
GOALS = {EXACT: 1.0, ITEMS: 1.0}
OTHERS, LOST = 0.95, 0.01
Row = dict[str, Any]


@dataclass
class Planted:
    """Junk by kind -> ids; the ids of documents that a line was added to; and what was there before."""

    junk: dict[str, set[str]] = field(default_factory=dict)
    noticed: set[str] = field(default_factory=set)
    clean: dict[str, str] = field(default_factory=dict)

    def row(self, kind: str, text: str) -> Row:
        """A document of a kind of junk."""
        names = self.junk.setdefault(kind, set())
        names.add(f"planted {kind} {len(names)}")
        return {"text": text, "id": f"planted {kind} {len(names) - 1}", "source": "planted"}


def plant(data: Path, out: Path, most: int | None = None, seed: int = 0) -> Planted:
    """Write `data` again under `out`, of each file the first `most` documents, with junk among them."""
    draw, planted = random.Random(seed), Planted()
    names = [name for each in FILES.values() for name in each]
    files = {name: list(_rows(data / "pretrain" / f"{name}.jsonl.gz", most)) for name in names}
    for name, rows in files.items():
        planted.clean.update({f"{name} {row['id']}": row["text"] for row in rows})
    french = [row["text"] for row in files["fr"]]
    carriers = [row["text"] for row in files["en_textbooks"] if len(row["text"]) > 3000]
    questions = [row["question"] for row in _rows(data / "eval" / "gsm8k_test.jsonl.gz", most)]
    _notices(files["en_textbooks"], planted, draw)
    for rows in list(files.values()):
        _copies(rows, files, planted, draw)
    for number, question in enumerate(questions):
        name = "en_textbooks" if number % 2 else "math_gsm8k_train"
        _insert(files[name], planted.row(ITEMS, _hidden(question, number, carriers, draw)), draw)
    many = max(10, len(questions) // 10)
    for _ in range(many):
        _insert(files["en_textbooks"], planted.row("boilerplate", _boilerplate(draw)), draw)
        broken = draw.choice(list(_mojibake(draw.choice(french))))
        _insert(files["fr"], planted.row("mojibake", broken), draw)
        _insert(files["en_books"], planted.row("another language", draw.choice(french)[:5000]), draw)
        spam = f"{draw.choice(carriers)[:1000]}\n{'buy cheap pills now ' * draw.randint(40, 90)}"
        _insert(files["math_textbooks"], planted.row("repeated spans", spam), draw)
    for name, rows in files.items():
        _write(out / "pretrain" / f"{name}.jsonl.gz", rows)
    (out / "eval").mkdir(parents=True, exist_ok=True)
    _write(out / "eval" / "gsm8k_test.jsonl.gz", list(_rows(data / "eval" / "gsm8k_test.jsonl.gz", None)))
    return planted


def judge(corpus: Path, planted: Planted) -> list[Row]:
    """One row a kind of junk: how many documents were planted, what share of them is gone, and the goal."""
    kept = [document for source in FILES for split in SPLITS for document in documents(corpus, source, split)]
    names, texts = {document.id for document in kept}, [document.text for document in kept]
    found = []
    for kind, junk in planted.junk.items():
        left = len(texts) - len(set(texts)) if kind == EXACT else len(junk & names)
        gone = 1 - left / len(junk)
        found.append({"kind": kind, "planted": len(junk), "gone": gone, "goal": GOALS.get(kind, OTHERS)})
    noticed = sum(NOTICE in text for text in texts)
    share = 1 - max(0, noticed - 1) / max(1, len(planted.noticed) - 1)
    found.append({"kind": "repeated lines", "planted": len(planted.noticed), "gone": share, "goal": 1.0})
    lost = [name for name in planted.clean if name.partition(" ")[2] not in names]
    share = 1 - len(lost) / len(planted.clean)
    found.append({"kind": "clean, kept", "planted": len(planted.clean), "gone": share, "goal": 1 - LOST})
    return found


def _notices(rows: list[Row], planted: Planted, draw: random.Random) -> None:
    """A line that many pages have, at the end of some documents."""
    for row in rows:
        if draw.random() < 0.1:
            row["text"] = f"{row['text']}\n{NOTICE}"
            planted.noticed.add(row["id"])


def _copies(rows: list[Row], files: dict[str, list[Row]], planted: Planted, draw: random.Random) -> None:
    """Exact copies, every second one in a later source, and near copies, each after its original."""
    elsewhere = files["fr"] if rows is files["code_python_stdlib"] else files["code_python_stdlib"]
    for number, row in enumerate(draw.sample(rows, max(2, len(rows) // 20))):
        copy = planted.row(EXACT, row["text"])
        if number % 2 and rows is not files["fr"]:
            _insert(elsewhere, copy, draw, len(elsewhere) // 2)
        else:
            _insert(rows, copy, draw, rows.index(row) + 1)
    long = [row for row in rows if len(row["text"].split()) > 100]
    for row in draw.sample(long, min(len(long), max(2, len(rows) // 40))):
        words = row["text"].split(" ")
        for place in draw.sample(range(len(words)), max(1, round(NEAR * len(words)))):
            words[place] = draw.choice(words)
        _insert(rows, planted.row("near copies", " ".join(words)), draw, rows.index(row) + 1)


def _hidden(question: str, number: int, carriers: list[str], draw: random.Random) -> str:
    """A question as it is, in capitals, respaced, or in the middle of somebody's text."""
    shape = number // 2 % 4
    if shape == 0:
        return question
    if shape == 1:
        return question.upper()
    if shape == 2:
        return f"Exercise {number}.\n{question.replace(' ', '  ').replace('.', ' .')}\nWrite down your answer."
    text = draw.choice(carriers)
    start = draw.randrange(len(text) - 2000)
    return f"{text[start : start + 1000]}\n\n{question}\n\n{text[start + 1000 : start + 2000]}"


def _boilerplate(draw: random.Random) -> str:
    return "\n".join(f"{draw.choice(MENU)} {draw.randint(1, 999)}" for _ in range(draw.randint(8, 40)))


def _mojibake(text: str) -> Iterator[str]:
    yield text.encode().decode("latin-1")
    yield text.encode("latin-1", "replace").decode("utf-8", "replace")


def _insert(rows: list[Row], row: Row, draw: random.Random, first: int = 0) -> None:
    rows.insert(draw.randint(first, len(rows)), row)


def _rows(path: Path, most: int | None) -> Iterator[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file):
            if most is None or number < most:
                yield json.loads(line)


def _write(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def study(data: Path, out: Path, most: int | None = None, overrides: tuple[str, ...] = ()) -> list[Row]:
    """Plant, build, judge; leaves the corpus and its page under `out`."""
    planted = plant(data, out / "data", most)
    before = os.environ.get("SMELT_DATA")
    os.environ["SMELT_DATA"] = str((out / "data").resolve())
    try:
        corpus = build(load_recipe(RECIPE, overrides), out)
    finally:
        os.environ.pop("SMELT_DATA") if before is None else os.environ.update(SMELT_DATA=before)
    print(write_corpus_report(corpus), file=sys.stderr)
    return judge(corpus, planted)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="a folder for the planted data and the corpus")
    parser.add_argument("--documents", type=int, help="the first so many of each file; all by default")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the rows here")
    options = parser.parse_args()
    if not os.environ.get("SMELT_DATA"):
        parser.error("SMELT_DATA is unset: it names a folder of small real datasets")
    results = study(Path(os.environ["SMELT_DATA"]), options.out, options.documents)
    for each in results:
        verdict = "ok" if each["gone"] >= each["goal"] else "MISSED"
        share = "kept" if each["kind"].startswith("clean") else "gone"
        print(f"{each['kind']:<18} {each['planted']:>7,} {100 * each['gone']:>7.2f} % {share} {verdict}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(any(each["gone"] < each["goal"] for each in results))
