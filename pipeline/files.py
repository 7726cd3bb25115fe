"""Writing files so that no reader ever sees half of one, and naming content by its hash."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` that takes its place when the block ends well.

    On any error what was at `path` stays as it was and the new folder is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.new"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    for left in path.parent.glob(f".{path.name}.*.old"):  # likewise, in the middle of the exchange
        if path.exists():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.rename(path)
    fresh = path.parent / f".{path.name}.{os.getpid()}.new"
    old = path.parent / f".{path.name}.{os.getpid()}.old"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        yield fresh
        if path.exists():
            path.rename(old)
        try:
            fresh.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        if old.exists():
            old.rename(fresh)  # to be removed: half of it must not be taken for what to put back
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` that takes its place, synced to disk, when the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.parent / f".{path.name}.{os.getpid()}.new"
    try:
        yield fresh
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        if error.errno and error.filename is None:  # as where a write finds the disk full
            error.filename = str(path)
        raise
    finally:
        fresh.unlink(missing_ok=True)


def remove_half_written(folder: Path) -> None:
    """Remove what `atomic_file` left anywhere in a folder when its process was killed.

    Only where no other process writes there.
    """
    for left in folder.rglob(".*.new"):
        if left.is_file():
            left.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically. Libraries that write files themselves hide why it failed."""
    with atomic_file(path) as fresh:
        fresh.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline, atomically."""
    with atomic_file(path) as fresh:
        fresh.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_hash(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """One line of CSV a row; a cell is empty where a row has no such column."""
    columns = dict.fromkeys(name for row in rows for name in row)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)
