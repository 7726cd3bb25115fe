"""The command line on the repository itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline import cli, config
from pipeline.cli import gan
from pipeline.errors import ConfigError

ROOT = Path(__file__).parents[1]


def ends(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of the command as the shell sees it."""
    monkeypatch.setattr(cli.logs, "setup", lambda: None)
    monkeypatch.setattr(sys, "argv", ["gan", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0


def test_every_verb_has_help() -> None:
    for name, command in gan.commands.items():
        result = CliRunner().invoke(gan, [name, "--help"])
        assert result.exit_code == 0
        assert command.help


def test_wrong_usage_is_exit_code_two() -> None:
    assert CliRunner().invoke(gan, ["no-such-verb"]).exit_code == 2
    assert CliRunner().invoke(gan, ["sample", "-n", "0"]).exit_code == 2


def test_what_is_signed_is_a_grid_or_an_archive() -> None:
    key = ["--c2pa", __file__, __file__]
    result = CliRunner().invoke(gan, ["sample", *key])
    assert result.exit_code == 2
    assert "--out NAME.zip" in result.output
    both = CliRunner().invoke(gan, ["sample", "--grid", "--out", "x.zip"])
    assert (both.exit_code, "not both" in both.output) == (2, True)


def test_schema_prints_json_that_names_every_section() -> None:
    schema = json.loads(CliRunner().invoke(gan, ["schema"]).output)
    assert schema["required"] == list(config.Params.model_fields)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["no-such-verb"], 2, "Error: No such command 'no-such-verb'"),
        (["preset", "use", "hinge", "--all"], 2, "Error: --all goes with default"),
        (["preset", "show", "hing"], 2, "error: unknown preset 'hing'; did you mean hinge"),
        (["--help"], 0, "dvc repro"),
        (["--version"], 0, "version"),
    ],
)
def test_the_shell_sees_the_code_and_one_message(
    arguments: list[str], code: int, told: str, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(ROOT)
    assert ends(monkeypatch, *arguments) == code
    captured = capsys.readouterr()
    assert told in captured.out + captured.err
    assert "Traceback" not in captured.err


def test_ctrl_c_is_a_message_and_130(monkeypatch, capsys) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gan.commands["schema"], "callback", interrupted)
    assert ends(monkeypatch, "schema") == 130
    captured = capsys.readouterr()
    assert "error: interrupted" in captured.err
    assert "Aborted" not in captured.err


def test_a_file_that_ends_too_soon_is_no_ctrl_c(monkeypatch) -> None:
    def ended() -> None:
        raise EOFError("No data left in file")

    monkeypatch.setattr(gan.commands["schema"], "callback", ended)
    with pytest.raises(EOFError, match="No data left"):
        ends(monkeypatch, "schema")


def test_compare_needs_no_valid_recipe(tmp_path, monkeypatch, capsys) -> None:
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("name: dcgan ", "name: odd "))
    (tmp_path / "metrics.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert ends(monkeypatch, "compare", "metrics.json", "metrics.json") == 1
    assert "metrics.json has no protocol.json beside it" in capsys.readouterr().err


def test_the_section_tracking_is_checked_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("tracking: {experiment: mine, upload_every: 20}\n")
    assert config.load_tracking(path).experiment == "mine"
    path.write_text("tracking: {experiment: '', upload_every: 20}\n")
    with pytest.raises(ConfigError, match=r"tracking\.experiment is ''"):
        config.load_tracking(path)
    path.write_text("seed: 0\n")
    with pytest.raises(ConfigError, match=r"tracking\.experiment is missing"):
        config.load_tracking(path)


@pytest.mark.parametrize("arguments", [["sync"], ["preset", "list"]])
def test_outside_the_project_one_is_sent_there(
    arguments: list[str], tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ends(monkeypatch, *arguments) == 2
    assert "run this in the project's folder" in capsys.readouterr().err


def test_make_alone_says_what_there_is_and_installs_nothing() -> None:
    dry = ["make", "--dry-run", "--no-print-directory"]
    told = [
        subprocess.run([*dry, *goal], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for goal in ([], ["help"])
    ]
    assert told[0] == told[1]
    assert "pip" not in told[0]
