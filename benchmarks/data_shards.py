"""Text to token shards on this machine's cores: `smelt data build` beside datatrove's tokenization pipeline and
`datasets.map`, all with one tokenizer, on the documents of one built corpus."""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import main, medians, row

from smelt.corpus.build import build_corpus
from smelt.dataset.build import build_shards
from smelt.files import read_json
from smelt.recipe.schema import Recipe
from smelt.tokenizer.sample import sample
from smelt.tokenizer.tokenizer import Tokenizer, load_tokenizer
from smelt.tokenizer.train import train_tokenizer

SOURCES = ("en_textbooks", "en_books", "en_technical_peps", "code_python_stdlib", "math_textbooks", "zh", "es")
VOCABULARY, SAMPLE = 32_768, 20_000_000
QUICK_DOCUMENTS = 100
GOAL = 8.0


def recipe(documents: int | None) -> Recipe:
    """Sources of the folder that SMELT_DATA names, or the first `documents` of each."""
    folder = Path(os.environ["SMELT_DATA"], "pretrain")
    sources = {
        name: {"read": {"kind": "jsonl", "path": str(folder / f"{name}.jsonl.gz")}, "documents": documents}
        for name in SOURCES
    }
    return Recipe.model_validate({"name": "shards", "corpus": {"sources": sources}})


def datatrove(corpus: Path, tokenizer: Path, out: Path, shuffle: bool, workers: int) -> None:
    """Its reader and its tokenizer over the same files, a task a worker."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    pipeline = [
        JsonlReader(str(corpus), compression="zstd", glob_pattern="*/*.jsonl.zst"),
        DocumentTokenizer(
            str(out / "tokens"), str(tokenizer), eos_token="<|endoftext|>", shuffle_documents=shuffle, seed=0
        ),
    ]
    with contextlib.redirect_stderr(io.StringIO()):
        LocalPipelineExecutor(pipeline, tasks=workers, workers=workers, logging_dir=str(out / "logs")).run()


def datasets_map(corpus: Path, tokenizer: Tokenizer, out: Path, processes: int | None) -> None:
    """`map` over the same files in batches of a thousand, with `tokenizers`' fastest call."""
    import datasets
    import tokenizers

    datasets.disable_progress_bars()
    backend = tokenizers.Tokenizer.from_str(tokenizer.json)

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"ids": [each.ids for each in backend.encode_batch_fast(batch["text"], add_special_tokens=False)]}

    files = sorted(map(str, corpus.glob("*/*.jsonl.zst")))
    data: Any = datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(out))
    data.map(encode, batched=True, remove_columns=data.column_names, num_proc=processes)


def same_tokens(corpus: Path, ours: Path, theirs: Path) -> None:
    """Both wrote as many tokens, and as many of each id; SystemExit where they did not."""
    counts = [np.zeros(2**16, dtype=np.int64) for _ in range(2)]
    for count, folder in zip(counts, (ours, theirs), strict=True):
        for file in folder.rglob("*.ds"):
            count += np.bincount(np.fromfile(file, dtype="<u2"), minlength=2**16)
    if not np.array_equal(*counts):
        raise SystemExit(f"{ours} and {theirs} do not hold the same tokens")


def rows(quick: bool) -> list[dict[str, Any]]:
    """MB of text a second, and how many times those of each peer at its faster setting."""
    made = recipe(QUICK_DOCUMENTS if quick else None)
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        scratch = Path(name)
        corpus, saved = scratch / "corpus", scratch / "tokenizer"
        build_corpus(made, corpus)
        train_tokenizer(VOCABULARY, sample(corpus, SAMPLE)).save(saved)
        tokenizer = load_tokenizer(saved)
        report = read_json(corpus / "report.json")
        size = sum(split["bytes"] for splits in report.values() for split in splits.values()) / 1e6

        def fresh(run: Callable[[Path], object]) -> Callable[[], object]:
            def case() -> None:
                shutil.rmtree(scratch / "out", ignore_errors=True)
                run(scratch / "out")

            return case

        peers: dict[str, Callable[[Path], object]] = {
            **{
                f"datatrove, {'' if shuffle else 'un'}shuffled, {workers}": lambda out, s=shuffle, w=workers: datatrove(
                    corpus, saved / "tokenizer.json", out, s, w
                )
                for shuffle in (True, False)
                for workers in (1, 2)
            },
            **{
                f"datasets.map, {processes}": lambda out, p=processes: datasets_map(
                    corpus, tokenizer, out, p if p > 1 else None
                )
                for processes in (1, 2)
            },
        }
        cases = {name: fresh(run) for name, run in peers.items()}
        cases["ours"] = fresh(lambda out: build_shards(made, corpus, tokenizer, out))
        build_shards(made, corpus, tokenizer, scratch / "ours")
        datatrove(corpus, saved / "tokenizer.json", scratch / "theirs", False, 1)
        same_tokens(corpus, scratch / "ours", scratch / "theirs")
        speeds = {case: size / seconds for case, seconds in medians(cases, 1 if quick else 3).items()}
    ours = speeds.pop("ours")
    found = []
    for peer in ("datatrove", "datasets.map"):
        best = max(speed for case, speed in speeds.items() if case.startswith(peer))
        every = {case: speed for case, speed in speeds.items() if case.startswith(peer)}
        found.append(row(f"text to shards, {peer}", "MB/s", ours, every, ours / best, GOAL))
    return found


if __name__ == "__main__":
    main(rows)
