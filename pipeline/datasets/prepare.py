"""From a source to the prepared arrays: decoded, checked, split, written in one atomic step.

Memory holds a few images at a time, whatever the size of the set: decoded images go to a file on
disk first, because only when all are read is it known which of them are good, and which split
each one belongs to.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files, progress
from pipeline.datasets import duplicates, images, splits
from pipeline.datasets.decoding import Rows, decode_all
from pipeline.datasets.records import SPLITS, Source
from pipeline.errors import UserError

log = logging.getLogger(__name__)

_SHOWN = 10  # refused files in the message; all of them are in the file
WRITTEN_AT_ONCE = 1000  # images between two moves of the progress bar


def prepare(
    source: Source,
    *,
    out: Path,
    name: str,
    source_name: str,
    image_size: int,
    channels: int,
    fit: str,
    resize_filter: str,
    background: int,
    max_refused: float,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
) -> dict[str, Any]:
    """Write the folder `out` (see `pipeline.datasets.prepared`) and return its manifest.

    Labels are all or nothing: a source with labels for some of its images is refused. With fewer
    than two classes there is nothing to tell apart, and the set counts as unlabelled.

    Raises UserError, and leaves `out` as it was, where more than the share `max_refused` of the
    images cannot be read (the list goes to refused.csv beside `out`), a class has no image in
    train, or there are too few images for three splits. Needs twice the set's size on disk.
    """
    form: dict[str, Any] = {
        "image_size": image_size,
        "channels": channels,
        "fit": fit,
        "resize_filter": resize_filter,
        "background": background,
    }
    shape = (image_size, image_size, channels)
    with files.atomic_folder(out) as folder:
        raw = folder / "rows.raw"
        rows = decode_all(source, raw, functools.partial(images.decode, **form), shape)
        _check_refused(rows, max_refused, out)
        labels, class_names = _labels(rows, source)
        parts = splits.assign(
            np.array(rows.published, np.int8),
            labels,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=split_seed,
        )
        _check_splits(parts, labels, class_names)
        repeats = duplicates.find(rows.digests, parts)
        with progress.bar("write splits, images", len(rows.names)) as advance:
            written = {
                split: _write_split(folder, split, part, raw, shape, labels, class_names, advance)
                for split, part in parts.items()
            }
        raw.unlink()
        _write_csv(folder / "refused.csv", ("file", "reason"), rows.refused)
        _write_csv(
            folder / "duplicates.csv",
            ("digest", "split", "index", "name"),
            (
                (digest, split, index, rows.names[parts[split][index]])
                for digest, members in repeats.groups.items()
                for split, index in members
            ),
        )
        manifest = {
            "name": name,
            "source": source_name,
            "kind": "image",
            **form,
            "class_names": class_names,
            "split_seed": split_seed,
            "splits": written,
            "refused": len(rows.refused),
            "duplicates": {"within": repeats.within, "across": repeats.across},
            "digest": files.json_hash(
                [[written[split]["sha256"], written[split]["labels_sha256"]] for split in SPLITS]
            ),
        }
        files.write_json(folder / "manifest.json", manifest)
    _refused_file(out).unlink(missing_ok=True)  # of an earlier attempt
    _log_summary(manifest, out)
    return manifest


def _refused_file(out: Path) -> Path:
    return out.parent / "refused.csv"


def _check_refused(rows: Rows, max_refused: float, out: Path) -> None:
    count = len(rows.refused)
    total = count + len(rows.names)
    if total == 0:
        raise UserError("the source has no image at all: check data.source and data.path")
    if count <= max_refused * total:
        return
    report = _refused_file(out)
    with files.atomic_file(report) as fresh:
        _write_csv(fresh, ("file", "reason"), rows.refused)
    shown = [f"  {name}: {reason}" for name, reason in rows.refused[:_SHOWN]]
    if count > _SHOWN:
        shown.append(f"  ... and {count - _SHOWN} more")
    raise UserError(
        f"{count} of {total} files were refused ({count / total:.2%}; data.max_refused allows "
        f"{max_refused:.2%}):\n" + "\n".join(shown) + f"\nAll of them are listed in {report}. "
        "Mend or remove these files, or raise data.max_refused to go on without them. "
        f"Nothing was written to {out}; where DVC has cleared the set that was there, "
        f"`dvc checkout {out}` brings it back."
    )


def _labels(rows: Rows, source: Source) -> tuple[np.ndarray | None, list[str] | None]:
    """(N,) int64 class indices and the names of the classes, or None and None."""
    labels = np.array(rows.labels, np.int64)
    unlabelled = int((labels == -1).sum())
    if source.class_names is None or unlabelled == len(labels):
        return None, None
    if unlabelled:
        example = rows.names[int(np.argmax(labels == -1))]
        raise UserError(
            f"{unlabelled} of {len(labels)} images have no label (such as {example}), the others "
            "have one. Label all of them, leave those without a label out, or take the labels away."
        )
    if len(source.class_names) < 2:
        log.info("only one class (%s): taken as unlabelled", source.class_names[0])
        return None, None
    return labels, source.class_names


def _check_splits(
    parts: dict[str, np.ndarray], labels: np.ndarray | None, class_names: list[str] | None
) -> None:
    total = sum(len(part) for part in parts.values())
    if not len(parts["train"]):
        raise UserError(
            f"no image is left for train: all {total} are in published val or test splits. "
            "Give the source a train split, or remove its splits."
        )
    if labels is not None and class_names is not None:
        counts = np.bincount(labels[parts["train"]], minlength=len(class_names))
        missing = [name for name, count in zip(class_names, counts, strict=True) if count == 0]
        if missing:
            raise UserError(
                f"no readable image in train for the class {', '.join(map(repr, missing))}: add "
                "some, or remove the class."
            )
    for split in ("val", "test"):
        if not len(parts[split]):
            raise UserError(
                f"too few images to split: of {total}, none is left for {split}. Add images, or "
                f"raise data.{split}_fraction."
            )


def _write_split(
    folder: Path,
    split: str,
    rows: np.ndarray,
    raw: Path,
    shape: tuple[int, ...],
    labels: np.ndarray | None,
    class_names: list[str] | None,
    advance: Callable[..., None],
) -> dict[str, Any]:
    """Copy `rows` of `raw` to {split}.npy, write the labels, and return the manifest's entry."""
    image_bytes = int(np.prod(shape))
    digest = hashlib.sha256()
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(rows), *shape)}
    with raw.open("rb") as pixels, (folder / f"{split}.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for i in range(0, len(rows), WRITTEN_AT_ONCE):
            some = rows[i : i + WRITTEN_AT_ONCE].tolist()
            for row in some:
                pixels.seek(row * image_bytes)
                image = pixels.read(image_bytes)
                digest.update(image)
                file.write(image)
            advance(len(some), note=split)
    entry: dict[str, Any] = {
        "n": len(rows),
        "sha256": digest.hexdigest(),
        "labels_sha256": None,
        "class_counts": None,
    }
    if labels is not None and class_names is not None:
        own = labels[rows].astype("<i8")
        np.save(folder / f"{split}_labels.npy", own)
        entry["labels_sha256"] = hashlib.sha256(own.tobytes()).hexdigest()
        entry["class_counts"] = np.bincount(own, minlength=len(class_names)).tolist()
    return entry


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _log_summary(manifest: dict[str, Any], out: Path) -> None:
    sizes = ", ".join(f"{split} {entry['n']}" for split, entry in manifest["splits"].items())
    log.info("%s: %s", manifest["name"], sizes)
    if manifest["refused"]:
        log.warning("%d files refused, listed in %s", manifest["refused"], out / "refused.csv")
    within = Counter(manifest["duplicates"]["within"])
    across = {pair: count for pair, count in manifest["duplicates"]["across"].items() if count}
    if within.total() or across:
        pairs = "".join(f", {count} in both of {pair}" for pair, count in across.items())
        log.log(
            logging.WARNING if across else logging.INFO,
            "exact duplicates: %d repeat an image of their own split%s; listed in %s",
            within.total(),
            pairs,
            out / "duplicates.csv",
        )
