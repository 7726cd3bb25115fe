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

    def __init__(self, root: Path, tree: _Tree) -> None:
        self.root = root
        self.class_names: list[str] | None = None
        self._files: list[_File] = []
        folders = _class_folders(root, tree)
        splits = {folder: split_of(folder) for folder in folders}
        if folders and all(splits.values()):
            self._read_splits(splits, tree)
        else:
            _refuse_mixed_splits(root, [folder for folder, split in splits.items() if split])
            self._read({None: root}, tree)
        if not self._files:
            raise UserError(_empty(root))

    def __len__(self) -> int:
        return len(self._files)

    def records(self) -> Iterator[Record]:
        for file in self._files:
            yield Record(file.name, file.label, file.split, self.root / file.name)

    def _read_splits(self, splits: dict[str, str | None], tree: _Tree) -> None:
        parts: dict[str | None, Path] = {}
        for folder, split in splits.items():
            if split in parts:
                raise UserError(
                    f"{self.root} has two folders for the split {split}: {parts[split].name}/ and "
                    f"{folder}/. Put their images into one."
                )
            parts[split] = self.root / folder
        self._read(parts, tree)

    def _read(self, parts: dict[str | None, Path], tree: _Tree) -> None:
        """`parts`: the folder of each split, or {None: root} where there are no splits."""
        names = sorted({name for part in parts.values() for name in _class_folders(part, tree)})
        self.class_names = names or None
        index = {name: i for i, name in enumerate(names)}
        for split, part in parts.items():
            classes = _class_folders(part, tree)
            for name in classes:
                self._add(part / name, index[name], split, tree)
            if not classes:
                self._add(part, None, split, tree)
        self._files.sort()

    def _add(self, folder: Path, label: int | None, split: str | None, tree: _Tree) -> None:
        prefix = folder.relative_to(self.root).as_posix() + "/" if folder != self.root else ""
        names = list(tree.below(folder, prefix))
        if not _any_image(names):
            raise UserError(_empty(folder))
        self._files += [_File(name, label, split) for name in names]


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
    tree = _Tree()
    entries = tree.entries(path)
    while len(entries.folders) == 1 and not entries.files and split_of(entries.folders[0]) is None:
        path = path / entries.folders[0]
        entries = tree.entries(path)
    return Folder(path, tree)


class _Entries(NamedTuple):
    """What counts in one folder: names of its folders, sorted, and of its files in no order.

    `links` are those of the folders that are symbolic links.
    """

    folders: list[str]
    files: list[str]
    links: set[str]


class _Tree:
    """Folders, each read once: the kind of an entry comes with its name, without a look at it."""

    def __init__(self) -> None:
        self._read: dict[Path, _Entries] = {}

    def entries(self, folder: Path) -> _Entries:
        if folder not in self._read:
            found = _Entries([], [], set())
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not _counts(entry.name):
                        continue
                    if entry.is_dir():
                        found.folders.append(entry.name)
                        if entry.is_symlink():
                            found.links.add(entry.name)
                    else:
                        found.files.append(entry.name)
            found.folders.sort()
            self._read[folder] = found
        return self._read[folder]

    def below(self, folder: Path, prefix: str) -> Iterator[str]:
        """Files in and below `folder`, each behind `prefix`.

        Links to folders are not followed, as they may lead round in a circle.
        """
        entries = self.entries(folder)
        for name in entries.files:
            yield prefix + name
        for name in entries.folders:
            if name not in entries.links:
                yield from self.below(folder / name, f"{prefix}{name}/")


def _counts(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(".dvc") and name.lower() not in _LITTER


def _any_image(names: list[str]) -> bool:
    suffixes = readable_suffixes()
    return any(Path(name).suffix.lower() in suffixes for name in names)


def _class_folders(folder: Path, tree: _Tree) -> list[str]:
    folders, files, _ = tree.entries(folder)
    if folders and _any_image(files):
        raise UserError(
            f"{folder} holds both images ({min(files)}, ...) and folders ({folders[0]}/, ...). "
            "Put every image into a class folder, or all of them flat into one folder."
        )
    return folders


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
