"""`gan sample` and `gan export`: where files go, and what is refused before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline import files, outputs, ports
from pipeline.cli import gan
from pipeline.errors import UserError
from pipeline.registry import samples
from tests.registry.conftest import write_generator

ROOT = Path(__file__).parents[2]


@pytest.fixture
def trained(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with a generator; nothing is logged."""
    write_generator(workspace / "models/generator")
    (workspace / "params.yaml").symlink_to(ROOT / "params.yaml")
    (workspace / "file").write_text("text")
    monkeypatch.setattr(samples, "_log", lambda told, manifest, batch: None)
    return workspace


def run(*arguments: str) -> Result:
    return CliRunner().invoke(gan, list(arguments))


def refused(*arguments: str) -> str:
    """The message that a refused command ends with; nothing but messages is an error here."""
    result = run(*arguments)
    assert result.exit_code
    if isinstance(result.exception, SystemExit):
        return result.output
    assert isinstance(result.exception, UserError), result.exception
    return str(result.exception)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "file"], "file is a file"),
        (["--out", "file/x"], "file is a file"),
        (["--out", "file/x.zip"], "file is a file"),
        (["--grid", "--out", "file/x.png"], "file is a file"),
        (["--out", "/proc/nope"], "--out /proc/nope"),
        (["--out", "s.png"], "--grid"),
        (["--grid", "--out", "s.jpg"], "a grid is a PNG"),
        (["--out", "s.csv"], "images are no table"),
        (["--grid", "--out", "models.png"], "is a folder"),
    ],
)
def test_a_place_that_cannot_be_is_refused(trained: Path, options: list[str], words: str) -> None:
    (trained / "models.png").mkdir()
    before = sorted(trained.rglob("*"))
    assert words in refused("sample", "-n", "3", *options)
    assert sorted(trained.rglob("*")) == before


@pytest.mark.parametrize("out", ["file", "file/x"])
def test_an_export_is_refused_the_same_places(trained: Path, out: str) -> None:
    assert "file is a file" in refused("export", "--torchscript", "--out", out)


def test_a_file_in_the_way_of_a_folder_is_not_a_bug(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as caught:
        outputs.make_folder(tmp_path / "file/x")
    assert "a file is where a folder should be" in str(outputs.errors.explain(caught.value))


@pytest.mark.parametrize("command", [["sample"], ["export", "--onnx"]])
def test_what_is_not_trained_is_told_with_the_way_out(workspace: Path, command: list[str]) -> None:
    assert "in the project's folder" in refused(*command)
    (workspace / "params.yaml").symlink_to(ROOT / "params.yaml")
    assert "run `dvc repro train`" in refused(*command)
    assert "--model nowhere holds no trained generator" in refused(*command, "--model", "nowhere")
    assert not (workspace / "samples").exists()
    assert not (workspace / "exported").exists()


@pytest.mark.parametrize("command", [["sample"], ["export", "--onnx"]])
def test_a_model_that_is_not_registered_is_told_with_the_way_out(
    trained: Path, command: list[str]
) -> None:
    told = refused(*command, "--model", "models:/nothing@champion")
    assert told == "nothing is not registered yet: gan promote registers a model"


def test_the_manifest_lists_every_image_of_its_folder(trained: Path) -> None:
    for options in (["-n", "5"], ["-n", "2"], ["-n", "3", "--seed", "1"]):
        assert run("sample", *options, "--out", "out").exit_code == 0
    manifest = files.read_json(trained / "out/manifest.json")
    batches = [manifest, *manifest["earlier"]]
    assert [(x["seed"], x["n"], len(x["files"])) for x in batches] == [
        (1, 3, 3),
        (0, 2, 2),
        (0, 5, 3),
    ]
    listed = {entry["name"]: entry["sha256"] for x in batches for entry in x["files"]}
    there = {path.name: files.file_hash(path) for path in (trained / "out").glob("*.png")}
    assert listed == there
    assert run("sample", "-n", "5", "--out", "new").exit_code == 0
    assert "earlier" not in files.read_json(trained / "new/manifest.json")


@pytest.mark.parametrize("text", ["{}", "[1]", "text"])
def test_another_manifest_is_not_written_over(trained: Path, text: str) -> None:
    (trained / "out").mkdir()
    (trained / "out/manifest.json").write_text(text)
    assert "no manifest of samples" in refused("sample", "-n", "2", "--out", "out")
    assert [path.name for path in (trained / "out").iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    ("options", "path"),
    [
        (["--out", "p"], "p/seed0.csv"),
        (["--out", "p.csv"], "p.csv"),
        (["--grid", "--out", "p"], "p/seed0.png"),
        (["--grid", "--out", "p.png"], "p.png"),
    ],
)
def test_points_go_where_one_says(trained: Path, options: list[str], path: str) -> None:
    write_generator(trained / "models/generator", shape=(2,))
    result = run("sample", "-n", "3", *options)
    assert result.output == f"3 points in {path}\n"
    assert (trained / path).is_file()


def test_the_ui_says_that_its_port_is_taken_and_no_address(trained: Path) -> None:
    with ports.listen("127.0.0.1", 0) as door:
        told = refused("ui", "--port", str(door.getsockname()[1]))
    assert "Address already in use; --port gives another" in told
    assert "figures" not in told
    with pytest.raises(UserError, match="--port gives another"):
        ports.listen("192.0.2.1", 0)
