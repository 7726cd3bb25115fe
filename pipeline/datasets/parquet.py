"""Parquet files with one image a row, Hugging Face's layout included."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.datasets.records import Payload, Record, split_of
from pipeline.errors import UserError

_BATCH_BYTES = 8 * 2**20  # of encoded images in memory at a time


class _File(NamedTuple):
    path: Path
    name: str  # relative to the folder that was opened
    split: str | None  # by its name


class Parquet:
    """The rows of one file, or of every `*.parquet` below a folder, in order of file names.

    Columns: `image` (bytes, or a struct of bytes and path), and optionally `label` (integer or
    string; -1, "" and null are none), `label_name`, `split`, and `path` (only a name for people).
    Where there is no `split` column, the files of a folder may say it by their names
    (`train-00000-of-00002.parquet`, `test/0000.parquet`).
    """

    def __init__(self, files: list[_File], image: str, label: str) -> None:
        self.files, self.image, self.label = files, image, label
        self._rows = 0
        names: dict[Any, str] = {}
        for file in (part.path for part in files):
            with _opened(file) as table:
                self._check_columns(file, table.schema_arrow)
                self._rows += table.metadata.num_rows
                self._collect_labels(file, table, names)
        values = sorted(names)
        self._index = {value: i for i, value in enumerate(values)}
        self.class_names: list[str] | None = [names[value] for value in values] or None

    def __len__(self) -> int:
        return self._rows

    def records(self) -> Iterator[Record]:
        for file in self.files:
            with _opened(file.path) as table:
                wanted = [self.image, self.label, "split", "path"]
                columns = [c for c in wanted if c in table.schema_arrow.names]
                for index, row in enumerate(_rows(table, columns)):
                    payload, path = _image(row[self.image], file.path.parent)
                    split = row.get("split")
                    yield Record(
                        name=row.get("path") or path or f"{file.name}:{index}",
                        label=self._index.get(row.get(self.label)),
                        split=_known_split(split, file.path) if split else file.split,
                        payload=payload,
                    )

    def _check_columns(self, file: Path, schema: Any) -> None:
        import pyarrow.types as types

        if self.image not in schema.names:
            raise UserError(
                f"{file} has no column {self.image!r}; it has {', '.join(schema.names)}. "
                f"Rename the one with the images to {self.image!r}."
            )
        kind = schema.field(self.image).type
        inner = [field.name for field in kind] if types.is_struct(kind) else None
        if not (_is_binary(kind) or (inner and "bytes" in inner)):
            raise UserError(
                f"{file}: column {self.image!r} is {kind}; it must hold the bytes of image files, "
                "or a struct with a field 'bytes'."
            )
        if self.label in schema.names:
            kind = schema.field(self.label).type
            kind = kind.value_type if types.is_dictionary(kind) else kind
            plain = types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)
            if not (plain or types.is_null(kind)):
                raise UserError(
                    f"{file}: column {self.label!r} is {kind}; it must be integers or strings."
                )

    def _collect_labels(self, file: Path, table: Any, names: dict[Any, str]) -> None:
        """Add each label of the file, and what it is called, to `names`."""
        schema = table.schema_arrow
        if self.label not in schema.names:
            return
        columns = [self.label] + (["label_name"] if "label_name" in schema.names else [])
        written = _hugging_face_names(schema, self.label)
        seen = {(row[self.label], row.get("label_name")) for row in _rows(table, columns)}
        for label, name in seen:
            if label in (None, "", -1):
                continue
            if not name:
                named = isinstance(label, int) and 0 <= label < len(written)
                name = written[label] if named else str(label)
            if names.setdefault(label, name) != name:
                raise UserError(
                    f"{file}: label {label!r} is called {name!r} in one row and {names[label]!r} "
                    "in another. Give each label one label_name."
                )
        if len({type(label) for label in names}) > 1:
            raise UserError(
                f"{file}: column {self.label!r} has integers here and strings in another file."
            )


def open_parquet(
    path: Path, cache: Path, *, image_column: str = "image", label_column: str = "label"
) -> Parquet:
    """Open a file or a folder; `cache` is not used. Only the labels are read here.

    Raises UserError where there is no parquet file, or a column is missing or of another type.
    """
    if path.is_file():
        return Parquet([_File(path, path.name, None)], image_column, label_column)
    paths = sorted(file for file in path.rglob("*.parquet") if not file.name.startswith("."))
    if not paths:
        raise UserError(
            f"{path} has no parquet file. Put them there, or set data.path to a file or folder."
        )
    names = [file.relative_to(path) for file in paths]
    files = [
        _File(file, name.as_posix(), _split_by_name(name))
        for file, name in zip(paths, names, strict=True)
    ]
    return Parquet(files, image_column, label_column)


def _split_by_name(name: Path) -> str | None:
    words = [re.split(r"[-_.]", name.stem)[0], *reversed(name.parts[:-1])]
    return next((split for word in words if (split := split_of(word))), None)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file, pre_buffer=False) as table:
            yield table
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read as parquet ({error}). Get it again.") from error


def _rows(table: Any, columns: list[str]) -> Iterator[dict[str, Any]]:
    """One dictionary a row, from a few megabytes at a time."""
    for group in range(table.num_row_groups):
        data = table.metadata.row_group(group)
        chunks = [data.column(i) for i in range(data.num_columns)]
        size = sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if chunk.path_in_schema.split(".")[0] in columns
        )
        rows = max(1, min(4096, _BATCH_BYTES * data.num_rows // max(size, 1)))
        for batch in table.iter_batches(
            rows, row_groups=[group], columns=columns, use_threads=False
        ):
            yield from batch.to_pylist()


def _image(cell: Any, folder: Path) -> tuple[Payload, str | None]:
    """The encoded image, or the file that the struct points to, and its path if it has one."""
    if not isinstance(cell, dict):
        return cell or b"", None
    path = cell.get("path")
    if cell["bytes"] is None and path:
        return folder / path, path
    return cell["bytes"] or b"", path


def _is_binary(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _hugging_face_names(schema: Any, label: str) -> list[str]:
    """The names that the `datasets` library writes beside a ClassLabel column."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return []
    feature = json.loads(text).get("info", {}).get("features", {}).get(label, {})
    return list(feature.get("names") or [])


def _known_split(word: Any, file: Path) -> str:
    split = split_of(str(word))
    if split is None:
        raise UserError(
            f"{file}: split {word!r} is unknown; choose from ['train', 'val', 'test'], or leave "
            "the cell empty."
        )
    return split
