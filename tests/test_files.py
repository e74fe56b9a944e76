"""What is written is whole or absent, and damage is named."""

import errno
from pathlib import Path

import pytest

from smelt.errors import InputError
from smelt.files import check_directory, fingerprint, whole_directory, write_text


def made(path: Path) -> Path:
    with whole_directory(path, {"kind": "test"}) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a.txt").write_text("alpha")
        (folder / "b.txt").write_text("beta")
    return path


def test_a_directory_appears_whole_with_a_manifest_of_its_files(tmp_path: Path) -> None:
    manifest = check_directory(made(tmp_path / "out"))
    assert manifest["kind"] == "test"
    assert set(manifest["files"]) == {"inner/a.txt", "b.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_error_inside_leaves_what_was_there_before(tmp_path: Path) -> None:
    made(tmp_path / "out")
    with pytest.raises(RuntimeError), whole_directory(tmp_path / "out", {}) as folder:
        (folder / "half.txt").write_text("half")
        raise RuntimeError
    check_directory(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda path: (path / "b.txt").unlink(), "b.txt: missing"),
        (lambda path: (path / "b.txt").write_text("bet"), "b.txt: 3 bytes where manifest.json says 4"),
        (lambda path: (path / "b.txt").write_text("BETA"), "b.txt: its contents differ"),
        (lambda path: (path / "manifest.json").unlink(), "never finished"),
        (lambda path: (path / "manifest.json").write_text("{"), "not valid JSON"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage, named: str) -> None:
    path = made(tmp_path / "out")
    damage(path)
    with pytest.raises(InputError, match=named):
        check_directory(path)


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "one")
    write_text(tmp_path / "a.txt", "two")
    assert (tmp_path / "a.txt").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_disk_where_not_even_a_folder_can_be_made_is_one_line(tmp_path: Path, monkeypatch) -> None:
    def mkdir(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(InputError, match="choose a writable folder"):
        write_text(tmp_path / "new" / "a.txt", "one")


def test_a_fingerprint_depends_on_values_and_not_on_their_order() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
