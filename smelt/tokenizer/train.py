"""A tokenizer for a recipe: byte-level BPE trained on an even sample of the corpus, or a copy of one that exists."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from smelt.corpus.build import documents
from smelt.errors import InputError
from smelt.files import read_json, sha256, whole_directory
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.tokenizer import Tokenizer as Section
from smelt.tokenizer.tokenizer import SPECIAL, Tokenizer, load_tokenizer

FORMAT = 1
# Qwen's pattern: English contractions, words, single digits, runs of signs, line ends, spaces.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|pad|>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 10**30,
}


def train_tokenizer(vocab: int, texts: Iterable[str]) -> Tokenizer:
    """Byte-level BPE of at most `vocab` ids (the special ones first), the same for the same texts in the same order.

    No normaliser: every text decodes to itself. Digits are single tokens. Fewer ids come out when the texts run out
    of pairs to merge.
    """
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend, dict(_CONFIG))


def tokenizer_inputs(recipe: Recipe, corpus_key: str) -> dict[str, Any]:
    """Everything the tokenizer depends on, JSON-serialisable: the corpus when it is trained, its files when loaded."""
    section: Section = recipe.section("tokenizer")
    if section.load is None:
        return {"format": FORMAT, "tokenizer": section.model_dump(), "corpus": corpus_key}
    place = Path(section.load).expanduser()
    files = sorted(place.glob("*.js*") if place.is_dir() else [place] if place.is_file() else [])
    return {"format": FORMAT, "load": section.load, "files": {file.name: sha256(file) for file in files}}


def build_tokenizer(recipe: Recipe, corpus: Path | None, out: Path) -> Tokenizer:
    """Train the recipe's tokenizer on the built corpus, or load it, and save it as the folder `out`."""
    section: Section = recipe.section("tokenizer")
    if section.load is not None:
        tokenizer = load_tokenizer(section.load)
    elif corpus is None:
        raise InputError("tokenizer.train: needs a corpus to learn from; add a section 'corpus', or use 'load'")
    else:
        assert section.train is not None
        tokenizer = train_tokenizer(section.train.vocab, sample(corpus, section.train.sample_bytes))
    with whole_directory(out, {"kind": "tokenizer", "hash": tokenizer.hash, "length": len(tokenizer)}) as folder:
        tokenizer.save(folder)
    return tokenizer


def sample(corpus: Path, total: int) -> Iterator[str]:
    """Training documents of about `total` bytes in all, as evenly from every source as their sizes allow.

    A source's documents are taken at even distances, so they come from all over it; the last one may be cut.
    """
    sizes = {source: splits["train"]["bytes"] for source, splits in read_json(corpus / "report.json").items()}
    for source, share in even_shares(sizes, total).items():
        seen = taken = 0
        for document in documents(corpus, source, "train"):
            size = len(document.text.encode())
            if taken * sizes[source] <= seen * share:
                yield document.text[: share - taken]
                taken += size
            seen += size


def even_shares(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """Bytes to take from each source: equal shares of `total`, what a small source lacks spread over the others.

    >>> even_shares({"small": 10, "large": 1000, "huge": 5000}, 310)
    {'small': 10, 'large': 150, 'huge': 150}
    """
    shares: dict[str, int] = {}
    left = total
    for done, source in enumerate(sorted(sizes, key=lambda name: sizes[name])):
        shares[source] = min(sizes[source], left // (len(sizes) - done))
        left -= shares[source]
    return {source: shares[source] for source in sizes}
