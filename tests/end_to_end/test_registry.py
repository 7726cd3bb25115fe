"""From a trained run to a champion and back, as a user would: promote, verify, trace, reproduce."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from pipeline.registry import package
from tests.end_to_end.conftest import Workspace

pytestmark = pytest.mark.slow
MODEL = "gan-mnist5k"


def gan(workspace: Workspace, *arguments: str, code: int = 0):
    """What a command prints as JSON."""
    text = workspace.run("gan", *arguments, "--json", code=code)
    return json.loads(text[text.index("\n{") if "\n{" in text else text.index("{") :])


def client(workspace: Workspace):
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{workspace.root}/mlflow.db"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_promotion_rollback_and_what_a_version_came_from(workspace: Workspace) -> None:
    # Forty steps of an MLP are no generator: the gate says so, and why.
    refused = gan(workspace, "promote", code=1)
    assert refused["verdict"] == "refused"
    failed = {c["name"]: c for c in refused["decision"]["conditions"] if not c["passed"]}
    assert "label_kl" in failed
    assert failed["label_kl"]["figure"] > failed["label_kl"]["threshold"]
    store = client(workspace)
    tags = store.get_model_version(MODEL, "1").tags
    assert tags["gate"] == "refused"
    assert tags["gate.label_kl"].startswith("FAILED: label_kl")
    assert "to" in tags["gate.figure.fd"]
    assert tags["dvc_lock_sha256"]
    assert "champion" not in store.get_registered_model(MODEL).aliases

    forced = gan(workspace, "promote", "--force", "--why", "there is no other")
    assert (forced["verdict"], forced["version"]) == ("forced", "1")
    assert store.get_model_version(MODEL, "1").tags["gate.why"] == "there is no other"
    assert gan(workspace, "promote")["verdict"] == "already"
    workspace.run("gan", "promote", "--force", code=2)

    workspace.set(seed=1)
    workspace.run("dvc", "repro")
    marked = gan(workspace, "promote", "--challenger")
    assert (marked["verdict"], marked["version"], marked["against"]) == ("challenger", "2", "1")
    gan(workspace, "promote", "--version", "2", "--force", "--why", "another seed")
    aliases = store.get_registered_model(MODEL).aliases
    assert {key: str(x) for key, x in aliases.items()} == {"champion": "2", "previous": "1"}
    compared = json.loads(store.get_model_version(MODEL, "2").tags["gate.report"])
    assert "better" in {condition["name"] for condition in compared["conditions"]}

    back = gan(workspace, "rollback")
    assert (back["version"], back["against"]) == ("1", "2")
    workspace.run("gan", "rollback", code=1)

    # From the version to all that it came from, and back.
    verified = workspace.run("gan", "verify", f"models:/{MODEL}@champion")
    assert "broken" not in verified
    commit = store.get_model_version(MODEL, "1").tags["git_commit"]
    assert f"models:/{MODEL}/2" in workspace.run("gan", "verify", commit[:10])
    run_id = store.get_model_version(MODEL, "1").run_id
    assert store.get_run(run_id).data.tags["model_version"] == f"{MODEL}/1"

    # Images that say where they came from, also when their metadata were stripped.
    workspace.run("gan", "sample", "-n", "5", "--seed", "3", "--model", f"models:/{MODEL}/1")
    picture = workspace.root / "samples" / "seed3_00002.png"
    traced = gan(workspace, "trace", str(picture))
    assert (traced["proved"], traced["found_by"]) == (True, "metadata")
    assert (traced["origin"]["seed"], traced["origin"]["index"]) == (3, 2)
    assert traced["model"] == f"models:/{MODEL}/1"
    stripped = workspace.root / "stripped.png"
    pixels = np.array(Image.open(picture))
    Image.fromarray(pixels).save(stripped)
    traced = gan(workspace, "trace", str(stripped))
    assert (traced["proved"], traced["found_by"]) == (True, "pixels")
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(stripped)
    assert "was made elsewhere, or changed" in workspace.run("gan", "trace", str(stripped), code=1)

    # A byte of the weights: verify names what no longer holds.
    model = store.get_logged_model(store.get_model_version(MODEL, "1").model_id)
    weights = Path(urlsplit(model.artifact_location).path) / package.WEIGHTS
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        verified = workspace.run("gan", "verify", f"models:/{MODEL}/1", code=1)
    finally:
        weights.write_bytes(content)  # other tests' store has it too
    broken = [line.split()[1] for line in verified.splitlines() if line.startswith("broken")]
    assert broken == ["package", "weights", "sample"]


def test_a_version_is_trained_again_bit_for_bit(workspace: Workspace) -> None:
    code = workspace.root / "pipeline" / "losses.py"
    code.write_text(code.read_text() + "\n# a change that is not committed\n")
    workspace.set(train__lr_g=1.0e-3)
    workspace.run("dvc", "repro")
    gan(workspace, "promote", "--challenger")
    code.write_text(code.read_text() + "\n# a later one\n")
    again = gan(workspace, "reproduce", f"models:/{MODEL}/1")
    assert again["verdict"] == "identical"
    assert len(workspace.run("git", "worktree", "list").splitlines()) == 1


def test_untracked_code_cannot_be_reproduced(workspace: Workspace) -> None:
    (workspace.root / "pipeline" / "mine.py").write_text("# not in git\n")
    shutil.rmtree(workspace.root / "reports" / "train")
    workspace.run("dvc", "repro", "--force", "train", "evaluate")
    gan(workspace, "promote", "--challenger")
    text = workspace.run("gan", "reproduce", f"models:/{MODEL}/1", code=1)
    assert "pipeline/mine.py" in text
    assert "commit code before training" in text.lower()
