"""The command line on the repository itself."""

import json

from click.testing import CliRunner

from pipeline import config
from pipeline.cli import gan


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
