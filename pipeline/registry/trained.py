"""What --model may name: a training's folder, or a package of one."""

from __future__ import annotations

from pathlib import Path

from pipeline import paths
from pipeline.errors import UserError


def check(folder: Path, *needed: tuple[str | Path, ...]) -> None:
    """Raises UserError where `folder` has all files of none of `needed`."""
    if any(all((folder / name).is_file() for name in files) for files in needed):
        return
    if folder != paths.GENERATOR:
        raise UserError(
            f"--model {folder} holds no trained generator: name a training's folder, as "
            f"{paths.GENERATOR}, or a registered model, models:/NAME@champion"
        )
    if not paths.PARAMS.is_file():
        raise UserError(f"{folder} is not here: run this in the project's folder")
    raise UserError(f"{folder} holds no trained generator: run `dvc repro train`")
