"""Atomic writing and hashing."""

from pathlib import Path

import pytest

from pipeline import files


def test_a_folder_takes_its_place_only_when_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with files.atomic_folder(out) as folder:
        (folder / "a").write_text("old")
        assert not out.exists()
    with pytest.raises(OSError, match="full"), files.atomic_folder(out) as folder:
        (folder / "a").write_text("half")
        raise OSError("full")
    assert (out / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("a", "b"):
        with files.atomic_folder(out) as folder:
            (folder / name).touch()
    assert [path.name for path in out.iterdir()] == ["b"]


def test_a_file_takes_its_place_only_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ValueError, match="stop"), files.atomic_file(path) as fresh:
        fresh.write_text("half")
        raise ValueError("stop")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_hash_ignores_the_order_of_keys() -> None:
    assert files.json_hash({"a": 1, "b": [2]}) == files.json_hash({"b": [2], "a": 1})
    assert files.json_hash({"a": 1}) != files.json_hash({"a": 2})


def test_json_cannot_hold_what_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", float("nan"))
    assert list(tmp_path.iterdir()) == []
