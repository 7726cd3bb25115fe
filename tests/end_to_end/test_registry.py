"""From a trained run to a served model, by the commands that a user types."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from .conftest import Workspace

pytestmark = pytest.mark.slow
NAME = "gan-mnist5k"
CHAMPION = f"models:/{NAME}@champion"


@contextlib.contextmanager
def serving(workspace: Workspace, log: Path, **environment: str) -> Iterator[str]:
    """`gan serve` in the workspace; yields the address of its requests."""
    with log.open("w") as said:
        process = subprocess.Popen(
            ["python", "-m", "pipeline.cli", "serve", "--port", "0"],
            cwd=workspace.root,
            env=workspace.environment | environment,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
    assert process.stdout is not None
    try:
        told = re.search(r"http://\S+/invocations", process.stdout.readline())
        assert told, log.read_text()
        yield told[0]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        process.stdout.close()


def as_json(output: str) -> Any:
    """What a command prints at its end, after what it says while it works."""
    start = re.search(r"^[\[{]$", output, re.MULTILINE)
    assert start, output
    return json.loads(output[start.start() :])


def ask(address: str, **row: object) -> dict:
    request = urllib.request.Request(
        address,
        data=json.dumps({"inputs": [row]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        (prediction,) = json.load(answer)["predictions"]
    return prediction


@pytest.fixture
def copy(registered: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    yield registered.copy(tmp_path / "project")
    shutil.rmtree(tmp_path / "project")


def test_every_link_of_the_champion_holds(registered: Workspace) -> None:
    (found,) = as_json(registered.gan("verify", CHAMPION, "--json"))
    states = {link["name"]: link["state"] for link in found["links"]}
    assert set(states.values()) == {"ok"}, states
    training = [run for run in registered.runs() if run["stage"] == "train"]
    for name in (training[0]["name"], training[0]["tags"]["train_key"][:12]):
        assert f"models:/{NAME}/1" in registered.gan("verify", name)


def test_a_link_that_broke_is_named(copy: Workspace) -> None:
    array = copy.root / "data/prepared/train.npy"
    content = bytearray(array.read_bytes())
    content[-1] ^= 1
    array.unlink()  # DVC may have linked it to its cache
    array.write_bytes(content)
    output = copy.gan("verify", CHAMPION, code=1)
    (line,) = (line for line in output.splitlines() if "broken" in line)
    assert "train" in line
    assert "data" in line


def test_served_and_sampled_images_are_traced(copy: Workspace, tmp_path: Path) -> None:
    copy.gan("sample", "--model", CHAMPION, "-n", "2", "--seed", "5", "--out", "out")
    traced = as_json(copy.gan("trace", "out/seed5_00001.png", "--json"))
    assert (traced["proved"], traced["found_by"]) == (True, "metadata")
    assert traced["origin"]["model"] == f"{NAME}/2"
    with serving(copy, tmp_path / "serve.log") as address:
        answer = ask(address, n=2, seed=5)
    assert answer["model"] == f"{NAME}/2"
    served = copy.root / "served.png"
    served.write_bytes(base64.b64decode(answer["images"][1]))
    traced = as_json(copy.gan("trace", "served.png", "--json"))
    assert (traced["proved"], traced["origin"]["index"]) == (True, 1)
    # Without its metadata the sampled one is found by the manifest that its run has.
    with Image.open(copy.root / "out/seed5_00001.png") as image:
        Image.fromarray(np.asarray(image)).save(copy.root / "bare.png")
    traced = as_json(copy.gan("trace", "bare.png", "--json"))
    assert (traced["proved"], traced["found_by"]) == (True, "pixels")


def test_a_rollback_is_served_next_and_recorded(copy: Workspace) -> None:
    assert f"models:/{NAME}/1 is the champion again" in copy.gan("rollback")
    copy.gan("sample", "--model", CHAMPION, "-n", "1", "--out", "out")
    traced = as_json(copy.gan("trace", "out/seed0_00000.png", "--json"))
    assert traced["origin"]["model"] == f"{NAME}/1"
    assert "nothing to go back to" in copy.gan("rollback", code=1)


def version(workspace: Workspace, number: str) -> Any:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{workspace.root}/mlflow.db")
    return client.get_model_version(NAME, number)


def test_the_gate_lets_the_nearer_pass_and_refuses_the_other_with_its_reasons(
    copy: Workspace,
) -> None:
    # Of two trainings so short either may be the nearer one; by these margins nothing else counts.
    margins = {
        "better_sds": 0.0, "coverage": 0.99, "recall": 0.99, "label_kl": 99.0,
        "label_kl_margin": 0.0, "worst_class_sds": 99.0, "nearcopy": 0.099, "ct_z": -1e9,
        "mia_tpr1": 0.99,
    }  # fmt: skip
    copy.set(registry__gate=margins)
    told = as_json(copy.gan("promote", "--version", "1", "--json", code=None))
    nearer, other = ("1", "2") if told["verdict"] == "promoted" else ("2", "1")
    if nearer == "2":
        copy.gan("rollback")
        copy.gan("promote", "--version", "2")
    found = version(copy, nearer)
    assert found.tags["gate"] == "promoted"
    assert found.tags["gate.better"].startswith("passed: fd less the champion's")
    assert "champion" in found.aliases
    assert "previous" in version(copy, other).aliases

    output = copy.gan("promote", "--version", other, code=1)
    assert re.search(r"FAILED +better +fd less the champion's: .*must be below 0", output)
    assert version(copy, other).tags["gate"] == "refused"
    assert version(copy, other).tags["gate.better"].startswith("FAILED")
    assert "champion" in version(copy, nearer).aliases


def test_a_registered_model_is_trained_again_bit_for_bit(registered: Workspace) -> None:
    told = as_json(registered.gan("reproduce", CHAMPION, "--json"))
    assert told["verdict"] == "identical"


@pytest.mark.parametrize("elsewhere", [True, False])
def test_other_weights_are_held_to_the_intervals_only_if_they_are_of_another_machine(
    copy: Workspace, elsewhere: bool
) -> None:
    """The record, changed to that of a machine that rounds otherwise; the figures stay."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{copy.root}/mlflow.db")
    client.set_model_version_tag(NAME, "2", "weights_sha256", "0" * 64)
    if elsewhere:
        (run,) = [run for run in copy.runs() if run["params"].get("train.steps") == "60"
                  and run["stage"] == "train"]  # fmt: skip
        client.set_tag(run["id"], "processor", "another")
    told = as_json(copy.gan("reproduce", CHAMPION, "--json", code=0 if elsewhere else 1))
    assert told["verdict"] == ("within intervals" if elsewhere else "differs")
    assert ("processor was another" in told["text"]) == elsewhere
    assert told["outside"] == []


def test_what_was_trained_with_untracked_code_is_not_reproduced(copy: Workspace) -> None:
    (copy.root / "pipeline/losses_of_mine.py").write_text("WEIGHT = 2\n")
    copy.set(seed=1)
    copy.run("dvc", "repro", "evaluate")
    told = as_json(copy.gan("promote", "--challenger", "--json"))
    output = copy.gan("reproduce", told["uri"], code=1)
    assert "code that git did not track" in output
    assert "pipeline/losses_of_mine.py" in output
    assert "untracked" in copy.gan("verify", told["uri"], code=1)


def test_the_champion_is_fine_tuned_and_another_shape_is_refused(copy: Workspace) -> None:
    # Rates at which nothing moves: what comes out is what it started from.
    copy.set(model__init_from=CHAMPION, train__lr_g=1e-9, train__lr_d=1e-9, train__steps=10)
    output = copy.run("dvc", "repro", "train")
    assert f"starting from {CHAMPION}: the generator alone" in output
    trained = load_file(copy.root / "models/generator/last.safetensors")
    (package,) = copy.root.glob("models/package/**/generator.safetensors")
    for name, weights in load_file(package).items():
        np.testing.assert_allclose(trained[name], weights, atol=1e-5)
    copy.set(model__width=8)
    output = copy.run("dvc", "repro", "train", code=255)
    assert "model.init_from" in output
    assert " here" in output
