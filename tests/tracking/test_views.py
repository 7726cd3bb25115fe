from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import pytest

from pipeline.tracking import deliver, runs, store, views

from . import outs

pytestmark = pytest.mark.usefixtures("quick_store")

KEY = "a" * 64


def experiment_tags() -> dict[str, str]:
    client, experiment_id = store.ready("gan")
    return client.get_experiment(experiment_id).tags


def test_a_new_experiment_has_a_note_that_leads_to_its_view() -> None:
    client, experiment_id = store.ready("gan")
    tags = client.get_experiment(experiment_id).tags

    for charts in (False, True):
        assert f"({views.address(experiment_id, charts=charts)})" in tags[views.NOTE]
    assert views.VIEW.endswith("." + views.VIEW_ID)
    assert f"viewStateShareKey={views.VIEW_ID}" in views.address(experiment_id)


def test_the_view_names_only_curves_and_figures_that_runs_have(workspace: Path) -> None:
    """Unpacked as MLflow's UI does it: an envelope, in it a deflated state."""
    view = json.loads(experiment_tags()[views.VIEW])
    packed = view["state"].removeprefix("deflate;")
    state = json.loads(zlib.decompress(base64.b64decode(packed)))

    curves = {
        key
        for card in state["compareRunCharts"]
        if card["type"] == "LINE"
        for key in card["selectedMetricKeys"]
    }
    assert curves <= {*outs.COLUMNS, "eval_fd", "eval_label_kl"}
    assert {"loss_g", "d_acc_fake", "grad_norm_d", "images_per_second", "memory_mb"} <= curves
    pictures = [card for card in state["compareRunCharts"] if card["type"] == "IMAGE"]
    assert [card["imageKeys"] for card in pictures] == [[deliver.SAMPLES], [deliver.REALS]]
    assert not any(card["showRunParams"] for card in pictures)
    assert {"metrics.`fd`", "metrics.`fid`"} <= set(state["selectedColumns"])


def test_an_experiment_that_was_there_gets_the_view_and_keeps_its_note() -> None:
    client, _ = store.ready("other")
    experiment_id = client.create_experiment("gan")
    client.set_experiment_tag(experiment_id, views.NOTE, "mine")

    tags = experiment_tags()
    assert tags[views.NOTE] == "mine"
    assert views.VIEW in tags


def test_a_runs_note_says_how_to_repeat_it_and_stays_as_a_user_edits_it(workspace: Path) -> None:
    client, experiment_id = store.ready("gan")
    outs.write_training(workspace, outs.train_record(KEY))
    run_id = deliver.deliver_training(client, experiment_id, workspace).run_id
    note = client.get_run(run_id).data.tags[views.NOTE]

    assert note.startswith("Training on mnist5k: ")
    assert "git checkout c0ffee\ngit apply changes.diff.txt" in note
    assert "dvc repro train" in note

    client.set_tag(run_id, views.NOTE, "mine")
    client.set_tag(run_id, runs.DELIVERED, "something older")
    assert deliver.deliver_training(client, experiment_id, workspace).changed
    assert client.get_run(run_id).data.tags[views.NOTE] == "mine"


def test_a_clean_runs_note_applies_no_diff() -> None:
    record = outs.train_record(KEY, diff="", params={"model.name": "mlp", "train.steps": 10})
    note = views.run_note(record)

    assert note.startswith("Training on mnist5k: model.name mlp, train.steps 10.")
    assert "git apply" not in note
