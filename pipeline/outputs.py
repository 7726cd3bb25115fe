"""Where --out leads: looked at before anything is made for it, and made with a message."""

from __future__ import annotations

from pathlib import Path

from pipeline import errors
from pipeline.errors import UserError


def check_folder(path: Path) -> None:
    """Raises UserError where `path` is no folder and, for a file in its way, cannot become one."""
    nearest = next(x for x in (path, *path.parents) if x.exists())
    if not nearest.is_dir():
        raise UserError(f"--out {path}: {nearest} is a file; name a folder, there or to be made")


def check_file(path: Path) -> None:
    """Raises UserError where `path` is a folder, or its own folder cannot be made."""
    if path.is_dir():
        raise UserError(f"--out {path} is a folder; name a file")
    check_folder(path.parent)


def make_folder(path: Path) -> None:
    """Raises UserError where the system makes none, for reasons of its own."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if errors.explain(error):
            raise
        raise UserError(f"--out {path}: {error.strerror}; name another folder") from None
