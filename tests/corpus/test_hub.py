"""The hub reader on local folders in the hub's layout."""

import json
from pathlib import Path

import pytest

from smelt.corpus.readers import Bad, parts, read
from smelt.errors import InputError
from smelt.recipe.sections.readers import Hub

datasets = pytest.importorskip("datasets", reason="needs the extra 'data'")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def parquet_folder(tmp_path: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path / "name" / "data"
    folder.mkdir(parents=True)
    for split, count in (("train", 5), ("test", 2)):
        table = pyarrow.table({"text": [f"{split} {row}" for row in range(count)]})
        pyarrow.parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder.parent


@pytest.fixture
def card_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "card"
    folder.mkdir()
    for subset in ("easy", "hard"):
        rows = [{"body": f"{subset} {row}", "id": f"{subset}-{row}"} for row in range(3)]
        (folder / f"{subset}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    configs = "".join(f"- config_name: {each}\n  data_files: {each}.jsonl\n" for each in ("easy", "hard"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    return folder


@pytest.mark.parametrize("streaming", [True, False])
def test_a_split_of_parquet_files_is_read(parquet_folder: Path, streaming: bool) -> None:
    reader = Hub(kind="hub", id=str(parquet_folder), streaming=streaming)
    found = list(read(reader, "web", 0))
    assert [each.text for each in found] == [f"train {row}" for row in range(5)]
    assert len({each.id for each in found}) == 5
    reader = reader.model_copy(update={"split": "test"})
    assert [each.text for each in read(reader, "web", 0)] == ["test 0", "test 1"]


@pytest.mark.parametrize("streaming", [True, False])
def test_a_subset_named_in_the_card_is_read(card_folder: Path, streaming: bool) -> None:
    reader = Hub(kind="hub", id=str(card_folder), subset="hard", field="body", streaming=streaming)
    assert [(each.text, each.id) for each in read(reader, "web", 0)] == [(f"hard {n}", f"hard-{n}") for n in range(3)]


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "absent"}, "absent"),
        ({"subset": "absent"}, "absent"),
        ({"subset": None}, "easy"),
        ({"field": "text"}, r"has no field 'text' \(fields there: body, id\)"),
    ],
)
def test_what_is_not_there_is_named(card_folder: Path, change: dict, message: str, streaming: bool) -> None:
    reader = Hub(kind="hub", id=str(card_folder), subset="hard", field="body", streaming=streaming)
    with pytest.raises(InputError, match=message) as caught:
        list(read(reader.model_copy(update=change), "web", 0))
    assert "\n" not in str(caught.value)


def test_a_format_that_only_datasets_reads_is_one_part(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "table.csv").write_text("text,n\nfirst,1\nsecond,2\n")
    reader = Hub(kind="hub", id=str(tmp_path / "name"))
    assert parts(reader) == [""]
    assert [each.text for each in read(reader, "web", 0)] == ["first", "second"]


def test_the_files_of_a_split_are_parts_and_a_bad_row_costs_itself_alone(card_folder: Path) -> None:
    path = card_folder / "hard.jsonl"
    path.write_text(path.read_text() + "not json\n" + '{"body": "last"}\n')
    reader = Hub(kind="hub", id=str(card_folder), subset="hard", field="body")
    bad: list[Bad] = []
    (part,) = parts(reader)
    assert [each.text for each in read(reader, "web", 0, part, bad.append)] == ["hard 0", "hard 1", "hard 2", "last"]
    assert [(each.place, each.reason, each.excerpt) for each in bad] == [(f"{path}:4", "not valid JSON", "not json")]


def test_rows_are_named_by_the_field_that_the_recipe_says(card_folder: Path) -> None:
    reader = Hub(kind="hub", id=str(card_folder), subset="easy", field="body", id_field=None)
    assert [each.id for each in read(reader, "web", 0)] == [f"{card_folder}/easy.jsonl:{line}" for line in (1, 2, 3)]


@pytest.mark.parametrize("streaming", [True, False])
def test_a_row_that_is_too_long_is_bad_though_datasets_reads_it(tmp_path: Path, streaming: bool) -> None:
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "table.csv").write_text(f"text,n\nfirst,1\n{'x' * 101},2\n{'y' * 100},3\n")
    reader = Hub(kind="hub", id=str(tmp_path / "name"), streaming=streaming, max_bytes=100)
    bad: list[Bad] = []
    assert [each.text for each in read(reader, "web", 0, bad=bad.append)] == ["first", "y" * 100]
    assert [(each.place.rpartition("/")[2], each.reason) for each in bad] == [
        ("name[train]:1", "longer than 100 bytes")
    ]
