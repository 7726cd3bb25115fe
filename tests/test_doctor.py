"""`gan doctor`: what it finds, and how it exits."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import gan

ROOT = Path(__file__).parents[1]


def findings(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    result = CliRunner().invoke(gan, ["doctor", "--json", *arguments])
    return result.exit_code, {row["check"]: row for row in json.loads(result.output)}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the shipped params.yaml and nothing else."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_missing_data_and_git_are_named_with_the_way_out(elsewhere: Path) -> None:
    code, found = findings("--quick")
    assert code == 1
    assert found["params"]["state"] == "ok"
    assert "data/raw" in found["data"]["text"]
    assert "git init" in found["git"]["text"]


def test_wrong_params_are_exit_code_two_and_said_once(elsewhere: Path) -> None:
    path = elsewhere / "params.yaml"
    path.write_text(path.read_text().replace("source: mnist5k", "source: mnist5"))
    code, found = findings("--quick")
    assert code == 2
    assert "data.source is 'mnist5'" in found["params"]["text"]
    assert "data" not in found


def test_an_empty_folder_of_ones_own_images_is_named(elsewhere: Path) -> None:
    (elsewhere / "data/raw").mkdir(parents=True)
    (elsewhere / "data/raw/.gitkeep").touch()
    path = elsewhere / "params.yaml"
    text = path.read_text().replace("source: mnist5k", "source: folder")
    path.write_text(text.replace("name: null                # what", "name: mine # what"))
    code, found = findings("--quick")
    assert code == 1
    assert "is empty" in found["data"]["text"]


def test_prepared_data_that_are_too_few_are_a_warning(elsewhere: Path) -> None:
    assert findings("--quick")[1]["prepared"]["text"] == "nothing yet"
    splits = {name: {"n": 12} for name in ("train", "val", "test")}
    manifest = {"name": "mnist5k", "source": "mnist5k", "class_names": ["0"], "splits": splits}
    (elsewhere / "data/prepared").mkdir(parents=True)
    (elsewhere / "data/prepared/manifest.json").write_text(json.dumps(manifest))
    found = findings("--quick")[1]["prepared"]
    assert found["state"] == "warning"
    assert "12 real images" in found["text"]


def judged_by_inception(folder: Path, weights: str) -> None:
    path = folder / "params.yaml"
    text = path.read_text().replace("extractor: domain ", "extractor: inception ")
    path.write_text(text.replace("inception_weights: null ", f"inception_weights: {weights} "))


def test_missing_weights_are_named_before_a_training_is_spent(elsewhere: Path) -> None:
    assert findings("--quick")[1]["extractor"]["state"] == "ok"
    judged_by_inception(elsewhere, "none.pth")
    code, found = findings("--quick")
    assert code == 1
    assert found["extractor"]["state"] == "failed"
    assert "evaluate.inception_weights" in found["extractor"]["text"]


def test_weights_that_are_still_to_be_downloaded_are_a_warning(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(elsewhere / "torch"))
    judged_by_inception(elsewhere, "null")
    found = findings("--quick")[1]["extractor"]
    assert found["state"] == "warning"
    assert "will download" in found["text"]
    assert str(elsewhere / "torch") in found["text"]
