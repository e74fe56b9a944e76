"""datatrove's MinHash deduplication and n-gram decontamination in an environment of their own; prints CPU seconds.

    datatrove_dedup.py dedup CORPUS FOLDER NGRAM BANDS ROWS [regex]
    datatrove_dedup.py decontaminate CORPUS PROTECTED NGRAM [regex]

Words are spaCy's, or with `regex` those of a regular expression. `dedup` leaves (document, cluster) in FOLDER.
"""

import gzip
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import regex
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.text import ngrams, simplify_text


class RegexWords:
    def word_tokenize(self, text: str) -> list[str]:
        return regex.findall(r"\w+|[^\w\s]", text)


def dedup(corpus: Path, folder: Path, ngram: int, bands: int, rows: int, words: Any) -> float:
    """Its four stages as its example has them, one task after the other."""
    config = MinhashConfig(n_grams=ngram, num_buckets=bands, hashes_per_bucket=rows)
    signed, matched, removed = (str(folder / name) for name in ("signatures", "buckets", "remove"))
    reader = JsonlReader(str(corpus.parent), glob_pattern=corpus.name)
    signer = MinhashDedupSignature(output_folder=signed, config=config)
    signer.word_tokenizer = words or signer.word_tokenizer
    signer.word_tokenizer.word_tokenize("It loads what it needs.")
    stages: list[tuple[int, list[Any]]] = [
        (1, [reader, signer]),
        (bands, [MinhashDedupBuckets(input_folder=signed, output_folder=matched, config=config)]),
        (1, [MinhashDedupCluster(input_folder=matched, output_folder=removed, config=config, save_cluster_id=True)]),
        (1, [reader, MinhashDedupFilter(input_folder=removed), JsonlWriter(str(folder / "kept"), compression=None)]),
    ]
    start = time.process_time()
    for number, (tasks, pipeline) in enumerate(stages):
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(folder / f"logs{number}")).run()
    return time.process_time() - start


def decontaminate(corpus: Path, protected: Path, ngram: int, words: Any) -> float:
    """Its filter alone; the index is made with its own words and hashes."""
    with tempfile.TemporaryDirectory() as empty:
        peer = NGramsDecontFilter(empty, NGramsDecontConfig(n_grams=ngram))
    peer.tokenizer = words or peer.tokenizer
    peer._index_hashes = {}
    for line in gzip.decompress(protected.read_bytes()).splitlines():
        split = peer.tokenizer.word_tokenize(simplify_text(json.loads(line)["question"]))
        peer._index_hashes |= {peer.hash_func(" ".join(run)): "protected" for run in ngrams(split, ngram)}
    texts = [json.loads(line)["text"] for line in corpus.read_bytes().splitlines()]
    start = time.process_time()
    for text in texts:
        peer.filter(Document(text=text, id="0"))
    return time.process_time() - start


def main() -> None:
    work, corpus, other, *rest = sys.argv[1:]
    words = RegexWords() if rest[-1] == "regex" else None
    numbers = [int(each) for each in rest if each != "regex"]
    run = {"dedup": dedup, "decontaminate": decontaminate}[work]
    print(run(Path(corpus), Path(other), *numbers, words))


if __name__ == "__main__":
    main()
