"""What the stage refuses before it trains, as a recipe or an evaluation would later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline import compatibility, config, files, paths
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.stages import features

ROOT = Path(__file__).parents[2]


def data_of(train: int = 500, val: int = 100, *, test: int = 100, **changes: Any) -> Prepared:
    """Prepared data of which only the manifest is there."""
    splits = {name: {"n": n} for name, n in (("train", train), ("val", val), ("test", test))}
    manifest = {"name": "mine", "source": "folder", "kind": "image", "digest": "d" * 64}
    return Prepared({**manifest, "class_names": ["a", "b"], "splits": splits, **changes}, Path())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (data_of(val=12), ["12 real images", "data.val_fraction"]),
        (data_of(test=19), ["19 real images", "data.test_fraction"]),
        (data_of(class_names=None), ["model.conditional is true", "mine has no labels"]),
    ],
)
def test_data_that_train_or_evaluate_would_refuse_are_refused_before_an_extractor_is_trained(
    data: Prepared, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    YAML().dump(config.read_yaml(ROOT / "params.yaml"), tmp_path / "params.yaml")
    (tmp_path / paths.PREPARED).mkdir(parents=True)
    files.write_json(tmp_path / paths.PREPARED / "manifest.json", data.manifest)
    with pytest.raises(UserError) as caught:  # no image was read: there is none
        features.main()
    for word in words:
        assert word in str(caught.value)


def test_data_that_go_with_the_recipe_pass() -> None:
    params = config.load_params(ROOT / "params.yaml")
    compatibility.check_prepared(params, data_of(val=20, test=20))
    compatibility.check_prepared(params, data_of(train=40))  # a batch may span epochs
