"""Stage `prepare`: the source's images, checked and cut to size, as three splits on disk.

Or the points of a mixture, which need neither.
"""

from __future__ import annotations

from pathlib import Path

from pipeline import arguments, errors, logs, paths
from pipeline.config import load_params
from pipeline.datasets import open_source
from pipeline.datasets.points import MIXTURES, prepare_points
from pipeline.datasets.prepare import prepare
from pipeline.datasets.records import Source
from pipeline.datasets.stacked import Stacks
from pipeline.schema import STACKED, Data


def _images(data: Data) -> Source:
    stacked = data.source == STACKED
    source = open_source(
        data.digits if stacked else data.source,
        path=Path(data.path).expanduser(),
        cache=paths.downloads(),
    )
    if not stacked:
        return source
    return Stacks(
        source,
        draws=data.draws,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        seed=data.split_seed,
    )


def main() -> None:
    config = load_params()
    data = config.data
    if data.source in MIXTURES:
        prepare_points(
            MIXTURES[data.source],
            out=paths.PREPARED,
            name=config.data_name,
            source_name=data.source,
            draws=data.draws,
            val_fraction=data.val_fraction,
            test_fraction=data.test_fraction,
            split_seed=data.split_seed,
        )
        return
    prepare(
        _images(data),
        out=paths.PREPARED,
        name=config.data_name,
        source_name=data.source,
        image_size=data.image_size,
        channels=data.channels,
        fit=data.fit,
        resize_filter=data.resize_filter,
        background=data.background,
        max_refused=data.max_refused,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        split_seed=data.split_seed,
    )


if __name__ == "__main__":
    logs.setup()
    arguments.none("pipeline.stages.prepare", __doc__)
    errors.run(main)
