"""The tokenizer: exact round trips, special tokens that text cannot produce, and what other tools read of it."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smelt.corpus.readers import read
from smelt.errors import InputError
from smelt.recipe.sections.readers import Arithmetic, PythonDocs
from smelt.tokenizer.tokenizer import SPECIAL, Tokenizer, load_tokenizer
from smelt.tokenizer.train import train_tokenizer

KEPT = "137af3147fb02f3b9c25ebcaad216b8a5e478a4f713f50f6f483c5ac12aac575"
VARIED = [
    "Hello, world! It's 2026: we'll go.",
    "def f(x):\n\treturn  x ** 2  # square\r\n\r\n\n    pass   ",
    "emoji 👩‍👩‍👧‍👦 🇫🇷 ☕️ and \u200b zero width",
    "control \x00\x01\x1b[0m\x7f\x85 bytes",
    "中文 العربية हिन्दी e\u0301 é ﬁ Å",
    " leading and trailing ",
    "\n\n\n",
    "12345.678e-9",
    "",
]


def texts() -> list[str]:
    docs = itertools.islice(read(PythonDocs(kind="python-docs"), "docs", 0), 30)
    sums = read(Arithmetic(kind="arithmetic", documents=50), "sums", 0)
    return [each.text for each in itertools.chain(docs, sums)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(1000, texts())


@pytest.fixture(scope="module")
def grouped() -> Tokenizer:
    return train_tokenizer(700, texts(), digits="groups-of-3")


@pytest.fixture(scope="module")
def unigram() -> Tokenizer:
    return train_tokenizer(700, texts(), kind="unigram")


@given(text=st.text())
@settings(max_examples=500)
def test_any_text_comes_back_exactly(tokenizer: Tokenizer, text: str) -> None:
    """TOK-01: byte-level BPE round-trips any UTF-8 text."""
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode(text), skip_special=False) == text


def test_training_is_deterministic() -> None:
    """TOK-01: the same texts give the same tokenizer."""
    one, two = train_tokenizer(600, texts()), train_tokenizer(600, iter(texts()))
    assert one.hash == two.hash
    assert one.hash != train_tokenizer(601, texts()).hash


def test_training_unigram_is_deterministic(unigram: Tokenizer) -> None:
    """TOK-01: though its trainer adds up in any order."""
    assert train_tokenizer(700, iter(texts()), "unigram").hash == unigram.hash
    assert len(unigram) == 700


def test_a_demo_tokenizer_keeps_its_ids_for_ever() -> None:
    """What was trained before stays bit for bit the same."""
    words = [f"{word} {number}\n" for number, word in enumerate(["melt", "metal", "ore", "smelter", "smelts"] * 40)]
    assert train_tokenizer(420, words).hash == KEPT


@given(text=st.text() | st.lists(st.sampled_from([*SPECIAL, "<|", "think", " ", "1", "\n"])).map("".join))
@settings(max_examples=200)
def test_unigram_gives_any_text_back_and_forges_no_marker(unigram: Tokenizer, text: str) -> None:
    """TOK-01, TOK-02."""
    ids = unigram.encode(text)
    assert unigram.decode(ids, skip_special=False) == text
    assert not set(ids) & set(range(len(SPECIAL)))
    assert all(unigram.encode_chat(token) == [index] for index, token in enumerate(SPECIAL))


def test_the_vocabulary_is_padded_for_the_model(tokenizer: Tokenizer) -> None:
    """TOK-02: the model's vocabulary is a multiple of 128."""
    assert len(tokenizer) == 1000 and tokenizer.padded == 1024
    assert train_tokenizer(640, texts()).padded == 640


def test_markers_are_single_ids_that_plain_text_cannot_produce(tokenizer: Tokenizer) -> None:
    """TOK-02: chat and reasoning markers."""
    assert (tokenizer.eos, tokenizer.pad, tokenizer.eot) == (0, 1, 3)
    for index, token in enumerate(SPECIAL):
        assert tokenizer.encode_chat(token) == [index]
        plain = tokenizer.encode(f"a{token}b")
        assert min(plain) >= len(SPECIAL)
        assert tokenizer.encode_batch([f"a{token}b"]) == [plain]
        assert tokenizer.decode(plain) == f"a{token}b"


@given(text=st.lists(st.sampled_from([*SPECIAL, "<|", "|>", "im_start", " ", "a", "\n"])).map("".join))
def test_no_text_encodes_to_a_special_id(tokenizer: Tokenizer, text: str) -> None:
    """TOK-02: however markers are pieced together."""
    assert not set(tokenizer.encode(text)) & set(range(len(SPECIAL)))


def test_chat_markers_are_kept_or_left_out_when_decoding(tokenizer: Tokenizer) -> None:
    rendered = "<|im_start|>user\nHi 1<|im_end|>\n"
    ids = tokenizer.encode_chat(rendered)
    assert tokenizer.decode(ids, skip_special=False) == rendered
    assert tokenizer.decode(ids) == "user\nHi 1\n"


@given(st.integers(0, 10**30))
def test_every_digit_is_a_token(tokenizer: Tokenizer, number: int) -> None:
    """TOK-06: single digits."""
    assert [tokenizer.decode([each]) for each in tokenizer.encode(str(number))] == list(str(number))


def test_no_token_spans_two_digits(tokenizer: Tokenizer) -> None:
    """TOK-06: not even with signs or spaces around them."""
    for each in range(len(SPECIAL), len(tokenizer)):
        token = tokenizer.decode([each])
        assert not any(sign.isdigit() for sign in token) or len(token) == 1


@given(st.integers(0, 10**30))
def test_digits_can_stand_in_groups_of_up_to_three(grouped: Tokenizer, number: int) -> None:
    """TOK-06: no token holds more than three, nor digits of two groups as counted from the left."""
    digits = str(number)
    pieces = [grouped.decode([each]) for each in grouped.encode(digits)]
    assert "".join(pieces) == digits
    ends = set(itertools.accumulate(map(len, pieces)))
    assert set(range(3, len(digits) + 1, 3)) <= ends


def test_a_common_group_of_digits_is_one_token() -> None:
    """TOK-06: where the texts have it often; the default keeps its three digits apart."""
    numbers = ["123 of 123, 1234567"] * 50
    assert len(train_tokenizer(384, numbers, digits="groups-of-3").encode("123")) == 1
    assert len(train_tokenizer(384, numbers).encode("123")) == 3


def test_a_batch_encodes_as_its_texts_do(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_batch(VARIED) == [tokenizer.encode(text) for text in VARIED]
    assert tokenizer.encode_batch([]) == []


def test_a_saved_tokenizer_loads_as_it_was(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = load_tokenizer(place)
        assert loaded.hash == tokenizer.hash
        assert (loaded.eos, loaded.pad, loaded.eot, len(loaded)) == (0, 1, 3, 1000)
        assert loaded.encode_batch(VARIED) == tokenizer.encode_batch(VARIED)


def test_transformers_reads_the_same_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra 'post'")
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.eos_token_id, theirs.pad_token_id, len(theirs)) == (0, 1, 1000)
    assert theirs.clean_up_tokenization_spaces is False and theirs.model_max_length > 10**9
    for text in VARIED:
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text
    chat = "<|im_start|>user\n2 + 2 ?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert theirs(chat)["input_ids"] == tokenizer.encode_chat(chat)
    assert theirs.tokenize(chat, split_special_tokens=True)
    theirs.save_pretrained(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    assert (again.eos, again.pad, again.eot) == (0, 1, 3)
    assert again.encode_batch(VARIED) == tokenizer.encode_batch(VARIED)


def foreign(folder: Path, tokens: list[str], config: dict | None = None, generation: dict | None = None) -> Path:
    from tokenizers import AddedToken, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    backend = Backend(models.WordLevel({"hello": 0, "<unk>": 1}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    backend.enable_truncation(1)
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    for name, content in (("tokenizer_config.json", config), ("generation_config.json", generation)):
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("tokens", "config", "generation", "roles"),
    [
        (["<bos>", "<stop>"], {"eos_token": "<stop>"}, None, ("<stop>", "<stop>", "<stop>")),
        (["<bos>", "<stop>"], {"eos_token": {"content": "<stop>"}}, None, ("<stop>", "<stop>", "<stop>")),
        (["<|endoftext|>", "<|im_end|>"], {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, None,
         ("<|endoftext|>", "<|im_end|>", "<|endoftext|>")),
        (["<|end_of_text|>", "<|eot_id|>", "<|finetune_right_pad_id|>"], {"eos_token": "<|end_of_text|>"}, None,
         ("<|end_of_text|>", "<|eot_id|>", "<|finetune_right_pad_id|>")),
        (["</s>", "<pad>"], None, None, ("</s>", "</s>", "<pad>")),
        (["<a>", "<b>"], {}, {"eos_token_id": [3]}, ("<b>", "<b>", "<b>")),
        (["<a>", "<|im_end|>"], {"eos_token": "<|im_end|>"}, {"eos_token_id": 2}, ("<a>", "<|im_end|>", "<a>")),
    ],
)  # fmt: skip
def test_a_foreign_tokenizers_ends_are_found_and_survive_saving(tmp_path, tokens, config, generation, roles) -> None:
    loaded = load_tokenizer(foreign(tmp_path / "theirs", tokens, config, generation))
    loaded.save(tmp_path / "ours")
    for each in (loaded, load_tokenizer(tmp_path / "ours")):
        assert tuple(each.decode([token], skip_special=False) for token in (each.eos, each.eot, each.pad)) == roles
        assert each.encode("hello hello hello") == [0, 0, 0]
        assert len(each) == 2 + len(tokens)


def test_a_foreign_chat_template_is_kept(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "theirs", ["</s>"])
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    load_tokenizer(folder).save(tmp_path / "ours")
    assert load_tokenizer(tmp_path / "ours").config["chat_template"] == "{{ messages }}"


def test_what_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no token ends a text; set eos_token"):
        load_tokenizer(foreign(tmp_path / "endless", ["<a>"]))
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        load_tokenizer(tmp_path)
    with pytest.raises(InputError, match="no such folder or file"):
        load_tokenizer(tmp_path / "absent")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json: not a tokenizer"):
        load_tokenizer(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="absent/name: no such folder, and the hub cannot be reached"):
        load_tokenizer("absent/name")
