from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from pipeline.report import plots


def history(rows: int, **columns: float) -> dict[str, np.ndarray]:
    return {"kimg": np.arange(1.0, rows + 1), **{k: np.full(rows, v) for k, v in columns.items()}}


@pytest.mark.parametrize("name", plots.CHARTS)
@pytest.mark.parametrize("rows", [1, 3, 5000])
@pytest.mark.parametrize("value", [0.0, -2.0, 0.3])
def test_every_chart_is_valid_svg_whatever_the_history(name, rows, value):
    chart = plots.CHARTS[name]
    svg = plots.draw(chart, history(rows, **dict.fromkeys(chart.columns, value)))
    assert ET.fromstring(svg).tag.endswith("svg")
    assert chart.title.replace("'", "&#x27;") in svg or chart.title in svg
    assert len(svg) < 100_000


@pytest.mark.parametrize("columns", [{}, {"loss_g": np.nan, "loss_d": np.nan}])
def test_a_chart_without_data_is_left_out(columns):
    assert plots.draw(plots.CHARTS["losses"], history(3, **columns)) is None


def test_a_chart_is_the_same_every_time():
    chart, data = plots.CHARTS["losses"], history(9, loss_g=1.0, loss_d=2.0)
    assert plots.draw(chart, data) == plots.draw(chart, data)


def test_long_curves_are_averaged_and_gaps_left_out():
    x = np.arange(4000.0)
    kept, means = plots.thinned(x, x)
    assert len(kept) == plots.POINTS
    assert kept[0] == means[0] == 4.5
    kept, _ = plots.thinned(x[:3], np.array([1, np.nan, 2]))
    assert kept.tolist() == [0, 2]


@pytest.mark.parametrize("n", [2, 10, 200])
def test_class_bars_for_few_and_many_classes(n):
    shares = np.full(n, 1 / n)
    names = [f"a long class name {k}" for k in range(n)]
    svg = plots.class_bars(names, shares, shares, label="%", of_reals="training images")
    assert ET.fromstring(svg).tag.endswith("svg")
