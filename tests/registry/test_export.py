"""Exported files give what torch gives, at any batch size."""

from pathlib import Path

import pytest

from pipeline import files
from pipeline.errors import UserError
from pipeline.registry import export
from tests.registry.conftest import write_generator


@pytest.mark.slow
@pytest.mark.parametrize("format", export.FORMATS)
@pytest.mark.parametrize("n_classes", [0, 10])
def test_every_format_gives_what_torch_gives(tmp_path: Path, format: str, n_classes: int) -> None:
    write_generator(tmp_path / "generator", n_classes=n_classes)
    path = tmp_path / f"g{export.SUFFIXES[format]}"
    result = export.export(tmp_path / "generator", path, format)
    assert path.is_file()
    assert result.difference <= export.TOLERANCE
    facts = files.read_json(path.with_name(f"{path.name}.json"))
    assert facts["inputs"] == (["latents", "labels"] if n_classes else ["latents"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r3gan", "stylegan2"])
def test_networks_whose_last_layer_trains_by_other_slopes_are_exported(
    tmp_path: Path, name: str
) -> None:
    write_generator(tmp_path / "generator", name=name)
    for format, suffix in export.SUFFIXES.items():
        result = export.export(tmp_path / "generator", tmp_path / f"g{suffix}", format)
        assert result.difference <= export.TOLERANCE


def test_a_file_that_gives_something_else_is_removed(tmp_path: Path, monkeypatch) -> None:
    write_generator(tmp_path / "generator")
    write, run = export.FORMATS["torchscript"]
    monkeypatch.setitem(
        export.FORMATS, "torchscript", (write, lambda path, inputs: run(path, inputs) + 0.01)
    )
    with pytest.raises(UserError, match=r"differs from torch's by up to 0\.01"):
        export.export(tmp_path / "generator", tmp_path / "g.ts", "torchscript")
    assert not (tmp_path / "g.ts").exists()


def test_a_package_is_exported_only_with_the_network_it_was_made_with(
    kept_packages, monkeypatch
) -> None:
    folder = kept_packages(n_classes=10, n=700)
    assert export.load(folder)[1]["n_classes"] == 10
    as_it_was = export.generate
    monkeypatch.setattr(export, "generate", lambda *given: as_it_was(*given) // 2)
    with pytest.raises(UserError, match="no longer those"):
        export.load(folder)
