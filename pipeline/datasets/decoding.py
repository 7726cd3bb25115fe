"""Every image of a source, decoded by several threads into one file on disk."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from warnings import catch_warnings, filterwarnings

import numpy as np

from pipeline import progress
from pipeline.datasets import duplicates, images
from pipeline.datasets.records import SPLITS, Record, Source

_BATCH_BYTES = 4 * 2**20  # of pixels, and of encoded images, that one task decodes
_BATCH_RECORDS = 64  # photos take 0.1 s each, and the bar moves a batch at a time

Decode = Callable[..., np.ndarray]
Decoded = list[tuple[bytes, bytes] | str]  # pixels and their digest, or why there are none


@dataclass
class Rows:
    """What is remembered of the images, about a hundred bytes for each."""

    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)  # -1: none
    published: list[int] = field(default_factory=list)  # index into SPLITS, -1: none
    digests: bytearray = field(default_factory=bytearray)
    refused: list[tuple[str, str]] = field(default_factory=list)  # name, reason


def decode_all(source: Source, raw: Path, decode: Decode, shape: tuple[int, ...]) -> Rows:
    """Append the pixels of every good image to `raw`, in the source's order."""
    images.readable_suffixes()  # loads Pillow's plugins, which threads must not do at once
    rows = Rows()
    workers = os.cpu_count() or 1
    with (
        catch_warnings(),
        raw.open("wb") as file,
        progress.bar("prepare", total=len(source)) as advance,
        ThreadPoolExecutor(workers) as pool,
    ):
        filterwarnings("ignore", module=r"PIL\.")  # what matters is refused, with a reason
        waiting: deque[tuple[list[Record], Future[Decoded]]] = deque()

        def finish_oldest() -> None:
            batch, future = waiting.popleft()
            for record, result in zip(batch, future.result(), strict=True):
                if isinstance(result, str):
                    rows.refused.append((record.name, result))
                    continue
                pixels, digest = result
                file.write(pixels)
                rows.digests += digest
                rows.names.append(record.name)
                rows.labels.append(-1 if record.label is None else record.label)
                rows.published.append(-1 if record.split is None else SPLITS.index(record.split))
            advance(len(batch))

        for batch in _batches(source.records(), int(np.prod(shape))):
            waiting.append((batch, pool.submit(_decode_batch, batch, decode)))
            if len(waiting) > workers:
                finish_oldest()
        while waiting:
            finish_oldest()
    return rows


def _batches(records: Iterable[Record], image_bytes: int) -> Iterator[list[Record]]:
    """Records in groups that are small in memory, decoded or not."""
    batch: list[Record] = []
    encoded = 0
    for record in records:
        batch.append(record)
        encoded += len(record.payload) if isinstance(record.payload, bytes) else 0
        full = len(batch) * image_bytes >= _BATCH_BYTES or encoded >= _BATCH_BYTES
        if full or len(batch) == _BATCH_RECORDS:
            yield batch
            batch, encoded = [], 0
    if batch:
        yield batch


def _decode_batch(batch: list[Record], decode: Decode) -> Decoded:
    results: Decoded = []
    for record in batch:
        try:
            pixels = decode(record.payload).tobytes()
            results.append((pixels, duplicates.digest(pixels)))
        except images.ImageError as error:
            results.append(str(error))
    return results
