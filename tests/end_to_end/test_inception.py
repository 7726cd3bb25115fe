"""`evaluate.extractor: inception` through the pipeline, with weights of the right shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.files import file_hash

from ..random_inception import write
from .conftest import Workspace


@pytest.mark.slow
def test_a_fid_goes_from_the_weights_to_report_and_store(
    workspace: Workspace, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(35):
            picture = Image.fromarray(rng.integers(0, 256, (7, 7), np.uint8))
            picture.resize((28, 28)).save(tmp_path / f"images/{name}/{i}.png")
    workspace.set(
        data__source="folder",
        data__name="mine",
        data__path=str(tmp_path / "images"),
        data__val_fraction=0.3,
        data__test_fraction=0.3,
        evaluate__extractor="inception",
        evaluate__inception_weights="mine.pth",
    )
    assert "mine.pth does not exist" in workspace.run("gan", "doctor", "--quick", code=1)
    workspace.run("dvc", "repro", "train")
    assert "mine.pth does not exist" in workspace.run("dvc", "repro", "evaluate", code=255)
    weights = write(workspace.root / "mine.pth")
    # git knows nothing of mine.pth, and the experiment's copy of the repository has none.
    output = workspace.run("dvc", "exp", "run", "--temp", "--name", "apart")
    assert "not the standard weights" in output
    assert len(list((workspace.root / ".cache/features").glob("*.npy"))) == 2
    workspace.run("dvc", "exp", "apply", "apart")

    metrics = json.loads((workspace.root / "reports/metrics.json").read_text())
    assert metrics["fid_ci_low"] < metrics["fid"] < metrics["fid_ci_high"]
    assert metrics["fid_floor"] > 0
    assert "fd" not in metrics
    protocol = json.loads((workspace.root / "reports/evaluation/protocol.json").read_text())
    assert protocol["extractor"] == "inception (custom weights)"
    assert protocol["extractor_digest"] == file_hash(weights) != protocol["domain_digest"]
    samples = np.load(workspace.root / "models/evaluation/space.npy")
    assert samples.shape == (metrics["n_fake"], 2048)
    assert "not the standard ones" in (workspace.root / "reports/index.html").read_text()
    newest = workspace.runs()[-1]
    assert (newest["stage"], newest["tags"]["dvc_exp_name"]) == ("evaluate", "apart")
    assert newest["metrics"]["fid"] == pytest.approx(metrics["fid"])
