"""The tables of a benchmark: means, deviations, the perfect sampler, the published rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.benchmark import tables
from pipeline.benchmark.published import PROTOCOLS

VALUES = {"seed": 0, "train": {"steps": 100}}


def results(*figures: dict[str, float]) -> list[dict]:
    return [
        {"seed": seed, "seconds": 2.0, "picture": f"{seed}.png", "metrics": {"n_fake": 2500, **own}}
        for seed, own in enumerate(figures)
    ]


def told(name: str, *figures: dict[str, float]) -> dict:
    return tables.summary(name, f"preset {name}", PROTOCOLS[name], VALUES, results(*figures))


RING = (
    {"modes": 8, "hq": 0.96, "reverse_kl": 0.002},
    {"modes": 7, "hq": 0.98, "reverse_kl": 0.004},
)


@pytest.mark.parametrize(
    ("name", "hq", "floor"),
    [("ring", 0.989, 0.0014), ("grid", 0.989, 0.0049), ("stacked_mnist", None, 0.0192)],
)
def test_the_perfect_sampler_is_the_closed_form(name: str, hq: float, floor: float) -> None:
    ideal = PROTOCOLS[name].ideal
    assert ideal.hq == (None if hq is None else pytest.approx(hq, abs=1e-3))
    assert ideal.reverse_kl == pytest.approx(floor, abs=5e-5)


def test_ours_are_means_and_deviations_over_seeds() -> None:
    head, ours, ideal, *published = tables.rows(told("ring", *RING))
    assert head == ("", "modes of 8", "high quality", "reverse KL")
    assert ours == ("this pipeline, 2 seeds", "7.5 ± 0.7", "97.0 ± 1.4 %", "0.0030 ± 0.0014")
    assert ideal == ("perfect sampler", "8", "98.9 %", "0.0014")
    assert published[-1] == ("PacGAN4", "7.8", "95.9 %", "0.07")
    assert len(published) == len(PROTOCOLS["ring"].rows)


def test_one_seed_has_no_deviation_and_stacks_no_quality() -> None:
    head, ours, *_ = tables.rows(told("stacked_mnist", {"modes": 950, "reverse_kl": 0.5}))
    assert head == ("", "modes of 1000", "reverse KL")
    assert ours == ("this pipeline, 1 seed", "950.0", "0.5000")


def test_everything_is_json_and_markdown() -> None:
    all_of_it = told("ring", *RING)
    assert json.loads(json.dumps(all_of_it, allow_nan=False)) == all_of_it
    text = tables.markdown(all_of_it)
    assert text.startswith("# ring: preset ring\n")
    assert "| 1 | 7 | 98.0 % | 0.0040 | 2 s |" in text
    all_of_it["seeds"][1]["cpu_seconds"] = 3.0
    assert "| 1 | 7 | 98.0 % | 0.0040 | 2 s (3 CPU-s) |" in tables.markdown(all_of_it)
    widths = {line.count("|") for line in text.split("\n\n")[1].splitlines()}
    assert widths == {5}


def test_the_picture_holds_the_first_seeds_side_by_side(tmp_path: Path) -> None:
    for seed in range(2):
        Image.fromarray(np.full((4, 4, 3), 100 * seed, np.uint8)).save(tmp_path / f"{seed}.png")
    tables.picture(results(*RING), tmp_path, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape == (4, 4 + tables.GAP + 4, 3)
    assert (pixels[0, 0, 0], pixels[0, 4, 0], pixels[0, -1, 0]) == (0, 255, 100)
