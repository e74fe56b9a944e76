"""Shards: what is written is read back, any window of it, and what is damaged is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smelt.dataset.shards import Shards, open_sources
from smelt.dataset.writer import write_shards
from smelt.errors import InputError
from smelt.tokenizer.tokenizer import Tokenizer

EOS = 0
documents = st.lists(st.lists(st.integers(1, 59_999), max_size=12), min_size=1, max_size=25)


@given(documents, st.integers(1, 60), st.data())
def test_any_window_reads_as_the_joined_documents(
    tmp_path_factory: Any, written: list[list[int]], shard_tokens: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    counts = write_shards(folder, written, eos=EOS, length=60_000, tokenizer="t", shard_tokens=shard_tokens)
    shards = Shards(folder)
    stream = [token for document in written for token in (*document, EOS)]
    assert counts == {"documents": len(written), "tokens": len(stream)} and len(stream) == shards.tokens
    assert np.concatenate(list(shards.lengths())).tolist() == [len(document) + 1 for document in written]
    start = data.draw(st.integers(0, len(stream) - 1))
    count = data.draw(st.integers(1, len(stream) - start))
    assert shards.read(start, count).tolist() == stream[start : start + count]
    assert shards.token(start) == stream[start]
    window, columns = shards.window(start, count)
    assert window.tolist() == [*stream[start : start + count], stream[(start + count) % len(stream)]]
    ends = np.cumsum([len(document) + 1 for document in written]) - start
    assert columns.tolist() == [end for end in ends.tolist() if 0 < end <= count]
    document, shard = shards.document_at(start)
    first, last = shards.document_bounds(document)
    assert first <= start < last and stream[first:last] == [*written[document], EOS]
    assert shard in shards.files and shard.start <= start < shard.start + shard.tokens


@pytest.mark.parametrize(("length", "width"), [(65_536, 2), (65_537, 4), (128_256, 4)])
def test_tokens_take_two_bytes_up_to_65536_ids_and_four_above(make_shards: Any, length: int, width: int) -> None:
    """DATA-08: 4 bytes a token for vocabularies above 65k, and the largest id survives."""
    shards = make_shards("s", [[length - 1, 5]], length=length)
    assert shards.token_bytes == width and (shards.folder / "00000.ds").stat().st_size == 3 * width
    assert shards.read(0, 3).tolist() == [length - 1, 5, EOS]


def test_reading_maps_files_and_does_not_load_them(make_shards: Any) -> None:
    """DATA-08: shards are memory-mapped."""
    shards = make_shards("s", [[1, 2, 3]] * 10, shard_tokens=8)
    tokens, ends = shards._map(1)
    assert isinstance(tokens.base, np.memmap) and isinstance(ends.base, np.memmap)
    assert len(shards.files) == 5


def test_more_shards_than_may_be_open_at_once_are_read(make_shards: Any) -> None:
    shards = make_shards("s", [[number + 1] for number in range(300)], shard_tokens=1)
    assert len(shards.files) == 300
    assert shards.read(0, 600)[::2].tolist() == list(range(1, 301))


def test_reading_past_the_end_is_an_error(make_shards: Any) -> None:
    with pytest.raises(IndexError):
        make_shards("s", [[1, 2]]).read(1, 3)


def test_identity_follows_the_tokens_not_the_place(make_shards: Any) -> None:
    one, two = make_shards("one", [[1, 2], [3]]), make_shards("two", [[1, 2], [3]])
    other, split = make_shards("other", [[1, 2], [4]]), make_shards("split", [[1], [2, 3]])
    assert one.identity == two.identity
    assert len({one.identity, other.identity, split.identity}) == 3


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: cut(folder / "00000.ds", 1), r"00000\.ds: 7 bytes is no multiple of 2 bytes a token"),
        (lambda folder: cut(folder / "00000.ds", 2), r"00000\.ds: 3 tokens where its \.index ends at 4"),
        (lambda folder: cut(folder / "00000.ds.index", 8), r"00000\.ds: 4 tokens where its \.index ends at 3"),
        (lambda folder: cut(folder / "00000.ds.index", 3), r"00000\.ds\.index: 13 bytes"),
        (lambda folder: (folder / "00000.ds.index").unlink(), r"00000\.ds\.index: missing.*save_index=True"),
        (lambda folder: (folder / "00000.ds").write_bytes(b""), r"00000\.ds\.index: 16 bytes for a shard of 0"),
        (lambda folder: [file.unlink() for file in folder.iterdir()], "holds no .ds files"),
        (lambda folder: [file.write_bytes(b"") for file in folder.iterdir()], "token shards are empty"),
    ],
)
def test_a_damaged_shard_is_named(make_shards: Any, damage: Callable[[Path], Any], words: str) -> None:
    folder = make_shards("s", [[1, 2], []]).folder
    damage(folder)
    with pytest.raises(InputError, match=words) as caught:
        Shards(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder of token shards"):
        Shards(tmp_path / "nowhere")


def test_shards_of_two_widths_do_not_mix(make_shards: Any) -> None:
    folder = make_shards("s", [[1, 2]]).folder
    wide = make_shards("wide", [[1, 2]], length=100_000).folder
    for file in wide.iterdir():
        file.rename(folder / file.name.replace("00000", "00001"))
    with pytest.raises(InputError, match=r"00001\.ds: 4 bytes a token where 00000\.ds has 2"):
        Shards(folder)


def test_an_empty_shard_among_others_is_passed_over(make_shards: Any) -> None:
    folder = make_shards("s", [[1, 2]], length=100_000).folder
    for name in ("00001.ds", "00001.ds.index"):
        (folder / name).touch()
    assert [shard.path.name for shard in Shards(folder).files] == ["00000.ds"]


def test_shards_without_metadata_show_their_width(make_shards: Any) -> None:
    for name, length in (("narrow", 500), ("wide", 100_000)):
        folder = make_shards(name, [[1, 2, 3], [4]], length=length).folder
        (folder / "00000.ds.metadata").unlink()
        assert Shards(folder).read(0, 6).tolist() == [1, 2, 3, EOS, 4, EOS]


def opened(make_recipe: Any, folder: Path, tokenizer: Tokenizer) -> dict[str, Shards]:
    recipe = make_recipe([{"name": "s", "steps": 1, "mixture": {"a": 1}}], ["a"])
    dataset = recipe.dataset.model_copy(update={"shards": {"a": str(folder)}})
    return open_sources(recipe.model_copy(update={"dataset": dataset}), None, tokenizer)


def test_ready_made_shards_open_by_name(make_recipe: Any, make_shards: Any, tokenizer: Tokenizer) -> None:
    folder = make_shards("s", [[1, 2]], length=len(tokenizer), tokenizer=tokenizer.hash).folder
    assert opened(make_recipe, folder, tokenizer)["a"].read(0, 3).tolist() == [1, 2, EOS]


def test_shards_of_another_tokenizer_are_refused(make_recipe: Any, make_shards: Any, tokenizer: Tokenizer) -> None:
    folder = make_shards("s", [[1, 2]], tokenizer="0123456789abcdef" * 4).folder
    words = rf"dataset\.shards\.a: .* with the tokenizer 0123456789abcdef, not .* {tokenizer.hash[:16]}"
    with pytest.raises(InputError, match=words):
        opened(make_recipe, folder, tokenizer)


def test_ids_beyond_the_tokenizer_are_refused(make_recipe: Any, make_shards: Any, tokenizer: Tokenizer) -> None:
    folder = make_shards("s", [[1, len(tokenizer)]]).folder
    with pytest.raises(
        InputError, match=rf"token id {len(tokenizer)}, but the tokenizer has only {len(tokenizer)} ids"
    ):
        opened(make_recipe, folder, tokenizer)


def test_a_tokenizer_too_large_for_the_width_is_refused(make_recipe: Any, make_shards: Any) -> None:
    import tokenizers

    vocab = {"<|endoftext|>": 0, **{f"word{number}": number for number in range(1, 65_537)}}
    large = Tokenizer(
        tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="word1")), {"eos_token": "<|endoftext|>"}
    )
    folder = make_shards("s", [[1, 2]]).folder
    with pytest.raises(InputError, match="2 bytes a token, too few for the tokenizer's 65,537 ids"):
        opened(make_recipe, folder, large)
