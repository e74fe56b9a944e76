"""A tokenizer for a recipe: byte-level BPE or Unigram trained on a sample of its corpus, or a copy of a given one."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from smelt.errors import InputError
from smelt.files import sha256, whole_directory
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.tokenizer import Tokenizer as Section
from smelt.tokenizer.sample import mixture_weights, sample
from smelt.tokenizer.tokenizer import SPECIAL, Tokenizer, load_tokenizer, local_files

FORMAT = 1
# Qwen's pattern: English contractions, words, digits, runs of signs, line ends, spaces; with groups of digits, GPT-4's.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS = {"single": r"\p{N}", "groups-of-3": r"\p{N}{1,3}"}
_UNSEEN = 257 * 1e-4  # the trainer lifts each of them by 1e-4 over the one before
_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|pad|>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 10**30,
}


def train_tokenizer(
    vocab: int,
    texts: Iterable[str],
    kind: Literal["bpe", "unigram"] = "bpe",
    digits: Literal["single", "groups-of-3"] = "single",
) -> Tokenizer:
    """A byte-level tokenizer of at most `vocab` ids (the special ones first), the same for the same texts in order.

    No normaliser: every text decodes to itself. `kind` is "bpe" (Sennrich et al. 2016, over bytes) or "unigram" (Kudo
    2018); `digits` are tokens of their own, or in groups of up to three from the left. Fewer ids come out when the
    texts run out of pieces.
    """
    backend = Backend(models.BPE() if kind == "bpe" else models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN % _DIGITS[digits]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer if kind == "bpe" else trainers.UnigramTrainer
    special = [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(
        texts, trainer(vocab_size=vocab, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    return Tokenizer(backend if kind == "bpe" else _settled(backend), dict(_CONFIG))


def _settled(unigram: Backend) -> Backend:
    """The same pieces as of any other training on the same texts, in one order.

    The trainer adds up in no fixed order, so scores differ in their last digits, and it ranks the bytes that it never
    saw as they come; those get the lowest score.
    """
    whole = json.loads(unigram.to_str())
    special, pieces = whole["model"]["vocab"][: len(SPECIAL)], dict(whole["model"]["vocab"][len(SPECIAL) :])
    lowest = min(pieces.values())
    for piece, score in pieces.items():
        unseen = len(piece) == 1 and score < lowest + _UNSEEN
        pieces[piece] = round(lowest if unseen else score, 9)
    whole["model"]["vocab"] = [*special, *sorted(pieces.items(), key=lambda entry: (-entry[1], entry[0]))]
    return Backend.from_str(json.dumps(whole))


def tokenizer_inputs(recipe: Recipe, corpus_key: str) -> dict[str, Any]:
    """Everything the tokenizer depends on, JSON-serialisable: the corpus when it is trained, its files when loaded."""
    section: Section = recipe.section("tokenizer")
    if section.train is not None:
        mixture = {"mixture": mixture_weights(recipe)} if section.train.draw == "mixture" else {}
        return {"format": FORMAT, "tokenizer": section.model_dump(), "corpus": corpus_key, **mixture}
    assert section.load is not None
    files = local_files(Path(section.load).expanduser())
    return {"format": FORMAT, "load": section.load, "files": {name: sha256(file) for name, file in files.items()}}


def build_tokenizer(recipe: Recipe, corpus: Path | None, out: Path) -> Tokenizer:
    """Train the recipe's tokenizer on the built corpus, or load it, and save it as the folder `out`."""
    section: Section = recipe.section("tokenizer")
    if section.load is not None:
        tokenizer = load_tokenizer(section.load)
    elif corpus is None:
        raise InputError("tokenizer.train: needs a corpus to learn from; add a section 'corpus', or use 'load'")
    else:
        assert section.train is not None
        train = section.train
        weights = mixture_weights(recipe) if train.draw == "mixture" else None
        texts = sample(corpus, train.sample_bytes, weights)
        tokenizer = train_tokenizer(train.vocab, texts, train.kind, train.digits)
    with whole_directory(out, {"kind": "tokenizer", "hash": tokenizer.hash, "length": len(tokenizer)}) as folder:
        tokenizer.save(folder)
    return tokenizer
