"""One kind of tokenizer at many sizes, on the same text: what each doubling of the vocabulary gains."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer as Backend

from smelt.errors import InputError
from smelt.recipe.sections.tokenizer import TrainTokenizer
from smelt.tokenizer.encode import Encoder
from smelt.tokenizer.tokenizer import Tokenizer
from smelt.tokenizer.train import train_tokenizer


@dataclass(frozen=True)
class Size:
    """A vocabulary of `ids` and the `tokens` it makes of each source's `bytes` of held-out text."""

    ids: int
    tokens: Mapping[str, int]
    bytes: Mapping[str, int]

    def row(self) -> dict[str, Any]:
        """Counts, and bytes a token by source, JSON-serialisable."""
        ratio = {source: self.bytes[source] / self.tokens[source] for source in self.tokens}
        return {"ids": self.ids, "tokens": dict(self.tokens), "bytes": dict(self.bytes), "bytes_per_token": ratio}


def sweep(
    section: TrainTokenizer, sizes: Sequence[int], train: Sequence[str], held_out: Mapping[str, Sequence[str]]
) -> list[Size]:
    """Train at every size on the texts of `train` and encode those of `held_out`, by source; in order of size.

    BPE is trained once, at the largest size: a smaller one has the first of its merges. Raises InputError where the
    texts have too few pieces for the largest.
    """
    sizes = sorted(set(sizes))
    bytes_ = {source: sum(len(text.encode()) for text in texts) for source, texts in held_out.items()}
    largest = train_tokenizer(sizes[-1], train, section.kind, section.digits)
    if len(largest) < sizes[-1]:
        raise InputError(
            f"the sample has pieces for {len(largest):,} ids, not {sizes[-1]:,}; raise tokenizer.train.sample_bytes "
            "or sweep smaller sizes"
        )
    found = []
    for size in sizes:
        if size == sizes[-1]:
            tokenizer = largest
        elif section.kind == "bpe":
            tokenizer = cut(largest, size)
        else:
            tokenizer = train_tokenizer(size, train, section.kind, section.digits)
        found.append(Size(size, _tokens(tokenizer, held_out), bytes_))
    return found


def _tokens(tokenizer: Tokenizer, held_out: Mapping[str, Sequence[str]]) -> dict[str, int]:
    encode, tokens = Encoder(tokenizer), {}
    for source, texts in held_out.items():
        encode.restart()
        tokens[source] = len(encode(texts).ids)
    return tokens


def gains(sizes: Sequence[Size]) -> list[float]:
    """Share of the tokens that each size saves against the one before it, over all the text."""
    totals = [sum(size.tokens.values()) for size in sizes]
    return [1 - after / before for before, after in pairwise(totals)]


def cut(tokenizer: Tokenizer, ids: int) -> Tokenizer:
    """A byte-level BPE tokenizer of ours as training it with a vocabulary of `ids` would have left it."""
    whole = json.loads(tokenizer.json)
    vocab: dict[str, int] = whole["model"]["vocab"]
    made = {"".join(merge) for merge in whole["model"]["merges"]}
    kept = {token for token in vocab if token not in made}
    merges = []
    for merge in whole["model"]["merges"]:
        if len(kept) >= ids:
            break
        merges.append(merge)
        kept.add("".join(merge))
    model = {**whole["model"], "vocab": {token: vocab[token] for token in vocab if token in kept}, "merges": merges}
    return Tokenizer(Backend.from_str(json.dumps({**whole, "model": model})), dict(tokenizer.config))
