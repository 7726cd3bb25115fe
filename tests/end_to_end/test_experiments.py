"""DVC experiments: each that trains is a run of its own in the one store."""

from __future__ import annotations

import json

import pytest

from .conftest import Workspace

pytestmark = pytest.mark.slow


def trainings(workspace: Workspace) -> dict[str, dict[str, str]]:
    """Tags of the training runs by experiment name."""
    return {
        run["tags"].get("dvc_exp_name", ""): run
        for run in workspace.runs()
        if run["stage"] == "train"
    }


def test_experiments_in_the_workspace_in_a_copy_and_queued(workspace: Workspace) -> None:
    workspace.run("dvc", "exp", "run", "--name", "here", "-S", "train.lr_g=1e-4")
    workspace.run("git", "checkout", "--", ".")
    workspace.run("dvc", "exp", "run", "--temp", "--name", "apart", "-S", "train.lr_g=5e-3")
    for name, rate in (("first", "3e-3"), ("second", "4e-3")):
        workspace.run("dvc", "exp", "run", "--queue", "--name", name, "-S", f"train.lr_g={rate}")
    workspace.run("dvc", "queue", "start")
    workspace.run("dvc", "queue", "logs", "second", "--follow")

    runs = trainings(workspace)
    assert set(runs) == {"", "here", "apart", "first", "second"}
    assert runs["apart"]["params"]["train.lr_g"] == "0.005"
    assert "apart" in runs["apart"]["name"]
    evaluations = [run for run in workspace.runs() if run["stage"] == "evaluate"]
    assert {run["parent"] for run in evaluations} == {run["id"] for run in runs.values()}
    assert len({run["tags"]["train_key"] for run in runs.values()}) == 5

    table = workspace.run("dvc", "exp", "show", "--json")
    assert {"here", "apart", "first", "second"} <= set(_names(json.loads(table)))
    assert "train.lr_g" in workspace.run("dvc", "params", "diff", "HEAD", "apart")
    assert "fd" in workspace.run("dvc", "metrics", "diff", "HEAD", "apart")


def test_plots_need_no_network(workspace: Workspace) -> None:
    workspace.run("python", "-m", "pipeline.report.vega_page", ".dvc/tmp/plots.html")
    workspace.run("dvc", "plots", "show")
    page = (workspace.root / "dvc_plots/index.html").read_text()
    assert "vegaEmbed" in page
    assert 'src="http' not in page
    assert len(page) > 500_000  # the scripts are inside


def _names(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["name"]] if isinstance(value.get("name"), str) else []
        return own + [name for child in value.values() for name in _names(child)]
    if isinstance(value, list):
        return [name for child in value for name in _names(child)]
    return []
