"""A folder of image files: class folders or flat, with or without train/ val/ test/ above."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.datasets.images import readable_suffixes
from pipeline.datasets.records import Record, split_of
from pipeline.errors import UserError

_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}  # left by file managers and zip tools


class _File(NamedTuple):
    name: str  # relative to the root, with forward slashes
    label: int | None
    split: str | None


class Folder:
    """The files below `root`, sorted by name.

    Hidden files, `*.dvc` and file managers' litter are passed over. Every other file is a record,
    so that one which is no image gets refused with a reason instead of vanishing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.class_names: list[str] | None = None
        self._files: list[_File] = []
        folders = _class_folders(root)
        splits = {folder: split_of(folder) for folder in folders}
        if folders and all(splits.values()):
            self._read_splits(splits)
        else:
            _refuse_mixed_splits(root, [folder for folder, split in splits.items() if split])
            self._read({None: root})
        if not self._files:
            raise UserError(_empty(root))

    def __len__(self) -> int:
        return len(self._files)

    def records(self) -> Iterator[Record]:
        for file in self._files:
            yield Record(file.name, file.label, file.split, self.root / file.name)

    def _read_splits(self, splits: dict[str, str | None]) -> None:
        parts: dict[str | None, Path] = {}
        for folder, split in splits.items():
            if split in parts:
                raise UserError(
                    f"{self.root} has two folders for the split {split}: {parts[split].name}/ and "
                    f"{folder}/. Put their images into one."
                )
            parts[split] = self.root / folder
        self._read(parts)

    def _read(self, parts: dict[str | None, Path]) -> None:
        """`parts`: the folder of each split, or {None: root} where there are no splits."""
        names = sorted({name for part in parts.values() for name in _class_folders(part)})
        self.class_names = names or None
        index = {name: i for i, name in enumerate(names)}
        for split, part in parts.items():
            classes = _class_folders(part)
            for name in classes:
                self._add(part / name, index[name], split)
            if not classes:
                self._add(part, None, split)
        self._files.sort()

    def _add(self, folder: Path, label: int | None, split: str | None) -> None:
        paths = list(_walk(folder))
        if not any(path.suffix.lower() in readable_suffixes() for path in paths):
            raise UserError(_empty(folder))
        self._files += [_File(p.relative_to(self.root).as_posix(), label, split) for p in paths]


def open_folder(path: Path, cache: Path) -> Folder:
    """Open `path`; `cache` is not used.

    A folder that holds nothing but one folder of folders (as unpacked archives and `dvc add`
    leave it) stands for the inner one. Raises UserError where `path` is missing, holds no image,
    has a class folder without one, or mixes layouts.
    """
    if not path.is_dir():
        raise UserError(
            f"{path} is not a folder. Put your images there, or set data.path to where they are."
        )
    folders, files = _visible(path)
    while len(folders) == 1 and not files and split_of(folders[0]) is None:
        path = path / folders[0]
        folders, files = _visible(path)
    return Folder(path)


def _visible(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files directly in `folder`, sorted."""
    entries = sorted(entry for entry in folder.iterdir() if _counts(entry.name))
    folders = [entry.name for entry in entries if entry.is_dir()]
    return folders, [entry.name for entry in entries if not entry.is_dir()]


def _counts(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(".dvc") and name.lower() not in _LITTER


def _class_folders(folder: Path) -> list[str]:
    folders, files = _visible(folder)
    if folders and any(Path(file).suffix.lower() in readable_suffixes() for file in files):
        raise UserError(
            f"{folder} holds both images ({files[0]}, ...) and folders ({folders[0]}/, ...). "
            "Put every image into a class folder, or all of them flat into one folder."
        )
    return folders


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if _counts(name)]
        yield from (Path(parent, name) for name in files if _counts(name))


def _raise(error: OSError) -> None:
    raise error  # os.walk would pass over a folder that it may not read


def _refuse_mixed_splits(root: Path, splits: list[str]) -> None:
    if len(splits) > 1:  # one alone may be a class: there are data sets with trains
        raise UserError(
            f"{root} has split folders ({', '.join(splits)}) beside other folders. "
            "Keep only the split folders there, or only class folders."
        )


def _empty(folder: Path) -> str:
    return (
        f"{folder} has no image in it. Put images there (any format that Pillow reads), "
        "remove the folder if it is not meant to be a class, or set data.path to another."
    )
