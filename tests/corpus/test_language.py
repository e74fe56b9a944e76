"""Language identification: the bundled model, its compiled walk, and files in fastText's format."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from smelt.corpus.document import Document
from smelt.corpus.filters import language
from smelt.corpus.filters.table import FILTERS, reasons
from smelt.errors import InputError
from smelt.recipe.sections.judges import Language

TEXTS = {
    "en": "It was a bright cold day in April, and the clocks were striking thirteen, as they often did.",
    "fr": "Longtemps, je me suis couché de bonne heure, sans savoir pourquoi le sommeil venait si vite.",
    "de": "Als Gregor eines Morgens aus unruhigen Träumen erwachte, fand er sich in seinem Bett.",
    "es": "En un lugar de la Mancha, de cuyo nombre no quiero acordarme, vivía un hidalgo hace tiempo.",
    "zh": "我们今天在北京大学学习中文。老师说这本书非常有意思。学生们都很喜欢。",
    "ar": "كان يا ما كان في قديم الزمان، ملك يحب الحكايات ولا ينام حتى يسمع واحدة منها.",
}


def documents(*texts: str) -> list[Document]:
    return [Document(text, str(number), "web") for number, text in enumerate(texts)]


@pytest.fixture(scope="module")
def scorer() -> language.LanguageScorer:
    return FILTERS["language"](Language(kind="language", keep=("en",)))


def test_languages_are_told_apart(scorer: language.LanguageScorer) -> None:
    scores = scorer.score(documents(*TEXTS.values()))
    assert scores["language"].tolist() == list(TEXTS)
    assert (scores["score"] > 0.65).all()


def test_a_text_without_words_has_no_language(scorer: language.LanguageScorer) -> None:
    scores = scorer.score(documents("", " \n "))
    assert scores["language"].tolist() == ["", ""] and scores["score"].tolist() == [0, 0]


def test_what_is_kept_is_a_threshold_that_needs_no_new_scores(scorer: language.LanguageScorer) -> None:
    scores = scorer.score(documents(TEXTS["en"], TEXTS["fr"], "ok"))
    one, other = (Language(kind="language", keep=keep, min_score=0.9) for keep in (("en",), ("en", "fr")))
    assert one.scoring() == other.scoring()
    assert reasons(one, scores)["not in en"].tolist()[:2] == [False, True]
    dropped = {reason: mask.tolist() for reason, mask in reasons(other, scores).items()}
    assert dropped["not in en or fr"][:2] == [False, False]
    assert not any(dropped["of no clear language"][:2])
    unsure = {"language": np.array(["en"], dtype=object), "score": np.array([0.5])}
    assert reasons(one, unsure)["of no clear language"].tolist() == [True]


def test_the_compiled_walk_gives_the_same_bits(shared_data: Path) -> None:
    plain, fast = language._naive_bayes()
    assert fast is not None
    texts = [text[:3000] for name in ("zh", "ar", "pt", "code_python_stdlib") for text in _first(shared_data, name, 5)]
    texts += ["", "A", "ABC DEF", "\x00", "\U0001f600" * 10]
    assert fast(texts) == plain(texts)


def test_documents_of_the_shared_data_are_recognised(shared_data: Path, scorer: language.LanguageScorer) -> None:
    for code in ("ar", "de", "es", "fr", "it", "pt", "zh"):
        scores = scorer.score(documents(*_first(shared_data, code, 20)))
        assert np.mean(scores["language"] == code) >= 0.95, code


def test_a_fasttext_file_judges_instead(tmp_path: Path) -> None:
    """The words of a two-word model decide; its labels lose their prefix and script."""
    path = tmp_path / "lid.bin"
    write_fasttext(path, {"hello": (1.0, 0.0), "bonjour": (0.0, 1.0)}, ("eng_Latn", "fra_Latn"))
    section = Language(kind="language", keep=("eng",), model=str(path))
    scores = FILTERS["language"](section).score(documents("hello hello\nhello", "bonjour", "", "hello"))
    assert scores["language"].tolist() == ["eng", "fra", "", "eng"]
    assert (scores["score"][[0, 1, 3]] > 0.9).all()
    assert section.scoring() != Language(kind="language", keep=("eng",)).scoring()


@pytest.mark.parametrize("content", [None, b"not a model"])
def test_a_missing_or_foreign_model_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "lid.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"lid\.bin: (no such model|not a fastText model)"):
        FILTERS["language"](Language(kind="language", keep=("en",), model=str(path)))


def write_fasttext(path: Path, words: dict[str, tuple[float, float]], labels: tuple[str, str]) -> None:
    """A supervised fastText model of two dimensions and two labels, in version 12 of its binary format."""
    dim, bucket = 2, 0
    head = struct.pack("<2i", 793712314, 12)
    arguments = struct.pack("<12id", dim, 5, 5, 1, 5, 1, 3, 3, bucket, 0, 0, 100, 1e-4)
    entries = [(word, 0) for word in words] + [(f"__label__{label}", 1) for label in labels]
    dictionary = struct.pack("<3i2q", len(entries), len(words), len(labels), 100, -1)
    for name, kind in entries:
        dictionary += name.encode() + b"\0" + struct.pack("<qb", 10, kind)
    vectors = np.array([*words.values()], dtype="<f4")
    out = 10 * np.eye(2, dtype="<f4")
    matrices = b"".join(struct.pack("<?2q", False, *each.shape)[0:17] + each.tobytes() for each in (vectors, out))
    path.write_bytes(head + arguments + dictionary + matrices)


def _first(data: Path, name: str, count: int) -> list[str]:
    with gzip.open(data / "pretrain" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line, _ in zip(file, range(count), strict=False)]
