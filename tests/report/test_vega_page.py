from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.report import vega_page


def test_dvc_fills_the_page_and_nothing_is_loaded_from_the_network(tmp_path: Path, monkeypatch):
    from dvc_render.html import HTML

    out = tmp_path / "plots.html"
    monkeypatch.setattr("sys.argv", ["vega_page", str(out)])
    vega_page.main()
    template = out.read_text(encoding="utf-8")
    html = (
        HTML(template)
        .with_scripts('<script src="https://x"></script>')
        .with_element("<p>here")
        .embed()
    )
    assert "<p>here" in html
    assert "src=" not in html.partition("<script>")[0] + html.rpartition("</script>")[2]
    assert html.count("</script>") == 1
    assert "window.vegaEmbed" in html


def test_the_place_must_be_named(monkeypatch):
    monkeypatch.setattr("sys.argv", ["vega_page"])
    with pytest.raises(ConfigError, match="OUT"):
        vega_page.main()
