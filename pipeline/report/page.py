"""The whole page: its panels in their order."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template

from pipeline.report import panels
from pipeline.report.outs import Outs
from pipeline.report.samples import Sampler

TEMPLATE = Path(__file__).with_name("page.html")


def build(
    outs: Outs, sampler: Sampler, *, samples_per_class: int, neighbours: int, interpolations: int
) -> str:
    """The page as one HTML text that needs no other file."""
    body = [
        panels.lead(outs),
        panels.facts(outs),
        panels.scattered(outs) or panels.uncurated(outs, sampler, samples_per_class),
        panels.figures(outs),
        panels.plots_over_time(outs) or panels.over_time(outs),
        panels.curves(outs),
        panels.classes(outs),
        panels.per_class(outs),
        panels.neighbours(outs, sampler, neighbours),
        panels.interpolations(outs, sampler, interpolations),
        panels.data(outs),
        panels.params(outs),
    ]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        eval_key=outs.evaluation.key,
        title=escape(f"{outs.data.name}: {outs.training.name}"),
        description=escape(panels.sentence(outs)),
        body=panels.join(body),
    )
