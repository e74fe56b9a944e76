"""The texts that a tokenizer learns from: a part of the corpus, drawn evenly or like the mixture it will serve."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from smelt.corpus.build import documents
from smelt.errors import InputError
from smelt.files import read_json
from smelt.recipe.mixtures.weights import shares as mixture_shares
from smelt.recipe.schema import Recipe


def mixture_weights(recipe: Recipe) -> dict[str, float]:
    """The share of all training tokens that each source of the corpus has, over all stages; they sum to 1.

    As the stages are written: no caps, ramps, amendments or trunk, so a run's frozen recipe has the weights of the one
    it came from. Long documents count for the source that they are of; sources of ready-made shards have no text here,
    and are left out.
    """
    if recipe.corpus is None or recipe.train is None:
        raise InputError("tokenizer.train.draw: 'mixture' needs a corpus and train.stages; add them, or use 'even'")
    tokens = dict.fromkeys(recipe.corpus.sources, 0.0)
    of = {name: long.of for name, long in recipe.dataset.long.items()}
    for stage in recipe.train.stages:
        length = stage.tokens or (stage.steps or 0) * recipe.train.batch_tokens
        for name, share in mixture_shares(stage.mixture).items():
            if (source := of.get(name, name)) in tokens:
                tokens[source] += length * share
    total = sum(tokens.values())
    if not total:
        raise InputError("tokenizer.train.draw: no stage draws from a source of the corpus; use 'even'")
    return {source: count / total for source, count in tokens.items()}


def sample(corpus: Path, total: int, weights: Mapping[str, float] | None = None) -> Iterator[str]:
    """Training documents of about `total` bytes in all, of each source as `shares` has it (by default, evenly).

    A source's documents are taken at even distances, so they come from all over it; the last one may be cut.
    """
    sizes = {source: splits["train"]["bytes"] for source, splits in read_json(corpus / "report.json").items()}
    for source, share in shares(sizes, total, weights or dict.fromkeys(sizes, 1)).items():
        seen = taken = 0
        for document in documents(corpus, source, "train"):
            size = len(document.text.encode())
            if share and taken * sizes[source] <= seen * share:
                yield document.text[: share - taken]
                taken += size
            seen += size


def shares(sizes: Mapping[str, int], total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Bytes to take from each source: `total` split by `weights`, what a small source lacks spread over the others.

    >>> shares({"small": 10, "large": 1000, "huge": 5000}, 310, {"small": 1, "large": 1, "huge": 1})
    {'small': 10, 'large': 150, 'huge': 150}
    """
    found = dict.fromkeys(sizes, 0)
    wanted = [source for source in sizes if weights.get(source, 0) > 0]
    left, weight = total, sum(weights[source] for source in wanted)
    for source in sorted(wanted, key=lambda name: sizes[name] / weights[name]):
        found[source] = min(sizes[source], int(left * weights[source] // weight), left)
        left -= found[source]
        weight -= weights[source]
    return found
