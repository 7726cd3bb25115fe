"""Atomic writing and hashing."""

import errno
from pathlib import Path

import pytest

from pipeline import errors, files


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


def left(tmp_path: Path, suffix: str) -> Path:
    """A folder that a process left beside `out` when it was killed."""
    folder = tmp_path / f".out.123.{suffix}"
    folder.mkdir()
    (folder / "a").write_text("old")
    return folder


@pytest.mark.parametrize("suffix", ["new", "old"])
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "out").mkdir()
    left(tmp_path, suffix)
    with files.atomic_folder(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_was_there_before_a_kill_in_the_middle_of_the_exchange_is_kept(tmp_path: Path) -> None:
    left(tmp_path, "old")
    with pytest.raises(OSError, match="full"), files.atomic_folder(tmp_path / "out"):
        raise OSError("full")
    assert (tmp_path / "out/a").read_text() == "old"


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    """The system's own error of a write names none."""
    with (
        pytest.raises(OSError, match="No space left") as caught,
        files.atomic_file(tmp_path / "file"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "file")


def test_numpys_full_disk_is_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its error has no number, only words."""

    def main() -> None:
        with files.atomic_file(tmp_path / "file"):
            raise OSError("1000 requested and 10 written")

    with pytest.raises(SystemExit):
        errors.run(main)
    assert "no space is left on the disk" in capsys.readouterr().err


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
