"""The page into which `dvc plots show` puts its plots, with the scripts that draw them inlined.

DVC's own page loads them from the network, and stays blank without one. `.dvc/config` names this
one as `plots.html_template`; `python -m pipeline.report.vega_page .dvc/tmp/plots.html` makes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline import errors, files
from pipeline.errors import ConfigError

# DVC replaces {plot_divs} and {refresh_tag}; it has {scripts} too, which would name the network.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>DVC plots</title>
<script>%s</script>
<style>
body { margin: 2rem auto; max-width: 1200px; padding: 0 1rem; font-family: system-ui, sans-serif; }
img { max-width: 100%%; }
table { border-spacing: 15px; }
</style>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def page() -> str:
    """The template: a page that draws Vega-Lite 5 specifications by a global `vegaEmbed`."""
    from vl_convert import get_vegalite_versions, javascript_bundle

    # DVC writes specifications of Vega-Lite 5.
    fives = [version for version in get_vegalite_versions() if version.startswith("5.")]
    newest = max(fives, key=lambda version: int(version.split(".")[1]))
    script = javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=newest)
    return PAGE % script.replace("</script", r"<\/script")


def main() -> None:
    if len(sys.argv) != 2:
        raise ConfigError("usage: python -m pipeline.report.vega_page OUT")
    with files.atomic_file(Path(sys.argv[1])) as fresh:
        fresh.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    errors.run(main)
