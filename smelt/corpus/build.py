"""A recipe's sources -> one folder a source with compressed JSON Lines for training and validation, and reports.

Sources that are only read and split stream straight through; anything more goes through `smelt.corpus.stages`.
"""

import contextlib
import shutil
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from smelt.corpus import decontaminate
from smelt.corpus.alone import alone
from smelt.corpus.document import Document
from smelt.corpus.readers import inputs
from smelt.corpus.splits import Counts, documents, write_splits
from smelt.corpus.stages import reports
from smelt.corpus.stages.assembly import settle, total, write_bad, write_reports
from smelt.corpus.stages.bad_share import check_bad_share
from smelt.corpus.stages.decisions import Table
from smelt.corpus.stages.hearing import Progress
from smelt.corpus.stages.pipeline import Pipeline
from smelt.corpus.stages.texts import Intake
from smelt.errors import InputError
from smelt.files import MANIFEST, check_directory, disk_errors, fingerprint, read_json, whole_directory
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.corpus import Corpus

__all__ = ["FORMAT", "Report", "build_corpus", "corpus_inputs", "documents"]

FORMAT = 3
Report = dict[str, Counts]


def corpus_inputs(recipe: Recipe) -> dict[str, Any]:
    """Everything the corpus depends on, JSON-serialisable; two equal results mean the same documents."""
    corpus: Corpus = recipe.section("corpus")
    sources: dict[str, Any] = {}
    for name, source in corpus.sources.items():
        with _naming(name):
            sources[name] = inputs(source.read, recipe.seed)
            if source.filter:
                sources[name] = {**sources[name], "scores": [each.scoring() for each in source.filter]}
    found = {"format": FORMAT, "corpus": corpus.model_dump(mode="json", exclude={"executor"}), "sources": sources}
    return {**found, "protected": decontaminate.inputs(corpus.decontaminate)} if corpus.decontaminate else found


def build_corpus(recipe: Recipe, out: Path, progress: Progress | None = None, artifacts: Path | None = None) -> Report:
    """Write every source of the recipe under `out`; returns {source: {split: {"documents", "bytes"}}}, bytes of text.

    `progress(what, documents so far)` is called now and then. `artifacts` is a folder where the results of stages are
    kept and found again, by this and by other recipes. Raises InputError for anything wrong with a source.
    """
    corpus: Corpus = recipe.section("corpus")
    made_from = corpus_inputs(recipe)
    whole = whole_directory(out, {"kind": "corpus", "inputs": made_from})
    if corpus.executor.kind == "local" and not _is_worked_on(corpus):
        with whole as folder:
            return _stream(corpus, recipe.seed, folder, progress)
    key = fingerprint(made_from)
    with _kept(artifacts, out) as root, alone(root / f".{key}.lock") as waited:
        if waited and (out / MANIFEST).is_file() and check_directory(out, contents=False)["inputs"] == made_from:
            found: Report = read_json(out / "report.json")
            return found
        return Pipeline(corpus, recipe.seed, root, key, progress).run(whole)


def _is_worked_on(corpus: Corpus) -> bool:
    """Whether documents are changed or dropped."""
    across = corpus.lines or corpus.dedup or corpus.decontaminate
    return bool(across) or any(source.edit or source.filter for source in corpus.sources.values())


@contextlib.contextmanager
def _kept(artifacts: Path | None, out: Path) -> Iterator[Path]:
    """Where stages leave their results; a temporary folder where nobody keeps them."""
    if artifacts is not None:
        yield artifacts
        return
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        root = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.stages."))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _stream(corpus: Corpus, seed: int, folder: Path, progress: Progress | None) -> Report:
    """Build without stages, in one pass over each source."""
    report, funnels, histograms = {}, {}, {}
    for name, source in corpus.sources.items():

        def heard(count: int, name: str = name) -> None:
            if progress:
                progress(name, count)

        intake = Intake(source, name, seed, None, heard)
        sizes = array("q")
        with _naming(name):
            incoming = _sized(intake.documents(), sizes)
            counts = write_splits(folder / name, incoming, lambda share: share < corpus.validation_fraction)
        marks = [{**intake.counts(), "edits": {}}]
        if intake.bad:
            check_bad_share(name, source, seed, marks, corpus.bad_share, intake.bad[0])
        funnels[name] = reports.funnel(marks, (), (), total(counts))
        report[name] = settle(name, folder / name, counts, funnels[name])
        size = np.array(sizes, np.int64).reshape(-1, 2)
        histograms[name] = reports.measured(Table.of({name: [len(size)]}), name, size, marks, {})
        write_bad(folder, name, intake.bad)
    write_reports(folder, report, funnels, histograms)
    return report


def _sized(incoming: Iterator[Document], sizes: "array[int]") -> Iterator[Document]:
    for document in incoming:
        sizes.extend((len(document.text), len(document.text.encode())))
        yield document


@contextlib.contextmanager
def _naming(source: str) -> Iterator[None]:
    """Put the source's key before the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"corpus.sources.{source}: {error}") from error
