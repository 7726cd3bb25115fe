from __future__ import annotations

import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline import files, paths
from pipeline.networks.build import load_generator
from pipeline.report import outs, page
from pipeline.report.samples import Sampler
from pipeline.tracking.deliver import report_key

from . import small_outs

VOID = {"meta", "link", "img", "br", "input"}
CASES = {
    "conditional": {"class_names": ["cat", "dog", "<emu>"]},
    "labels, but not conditional": {"class_names": ["cat", "dog"], "conditional": False},
    "no labels, colour": {"channels": 3},
    "more classes than rows": {"class_names": [f"c{k}" for k in range(25)]},
    "large colour images": {"image_size": 140, "channels": 3, "evaluations": 1},
    "never evaluated in training": {"class_names": ["cat", "dog"], "evaluations": 0},
    "one evaluation": {"evaluations": 1},
    "judged by Inception": {"inception": "inception"},
}


class Balance(HTMLParser):
    """Collects what is not closed in order, and every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.addresses: list[str] = []
        self.without_alt = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        values = dict(attrs)
        self.addresses += [values[name] or "" for name in ("src", "href") if name in values]
        self.without_alt += tag == "img" and not values.get("alt")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def build(root: Path, neighbours: int = 4, interpolations: int = 2) -> str:
    found = outs.load(root)
    generator, _ = load_generator(root / paths.GENERATOR, which=found.checkpoint)
    sampler = Sampler(generator, n=len(found.features), seed=found.seed, labels=found.labels)
    return page.build(
        found, sampler, samples_per_class=5, neighbours=neighbours, interpolations=interpolations
    )


@pytest.mark.parametrize("case", CASES)
def test_the_page_is_whole_html_that_needs_no_other_file(tmp_path: Path, case):
    small_outs.write(tmp_path, **CASES[case])
    html = build(tmp_path)
    parser = Balance()
    parser.feed(html)
    assert parser.wrong == []
    assert parser.open == []
    assert parser.addresses
    assert all(address.startswith("data:") for address in parser.addresses)
    assert parser.without_alt == 0
    assert "<script" not in html
    assert "@import" not in html
    assert not re.search(r"url\(", html)
    assert "No alarm" in html


def test_the_first_sentence_says_what_came_out(tmp_path: Path):
    small_outs.write(tmp_path, class_names=["cat", "dog", "emu"])
    told = (
        "fd 3.12 on 1,000 test images, 2.4 times the floor of 1.3 that real images reach; "
        "all 3 classes are present."
    )
    body = build(tmp_path).partition("</h1>")[2]
    assert body.strip().startswith(f'<p class="lead">{told}</p>')


def test_a_fid_by_other_weights_is_not_passed_off_as_the_standard_one(tmp_path: Path):
    for extractor in ("inception", "inception (custom weights)"):
        small_outs.write(tmp_path / extractor, inception=extractor)
        html = build(tmp_path / extractor)
        assert "fid 3.12 on 1,000 test images" in html
        assert ("not the standard ones" in html) == ("custom" in extractor)
        assert "floor on test" not in html


def test_the_page_of_points_is_whole_and_has_scatter_plots(tmp_path: Path):
    small_outs.write(tmp_path, class_names=list("01234567"), conditional=False)
    small_outs.turn_to_points(tmp_path)
    html = build(tmp_path)
    parser = Balance()
    parser.feed(html)
    assert (parser.wrong, parser.open, parser.without_alt) == ([], [], 0)
    assert all(address.startswith("data:") for address in parser.addresses)
    told = (
        "8 of 8 modes among 40 samples, 97.5% of high quality, reverse KL 0.0021 (a perfect "
        "sampler: 0.0014)."
    )
    assert told in html
    assert "All modes laid upon each other" in html
    assert html.count("Scatter plot: ") == 4  # three moments of the training, and the reals
    assert "ring, points in the plane" in html
    assert "Nearest training images" not in html
    assert "In between" not in html


def test_planted_alarms_show(tmp_path: Path):
    small_outs.write(
        tmp_path,
        class_names=["cat", "dog", "emu"],
        missing_class=1,
        metrics={
            "label_kl": 0.4,
            "ndb_jsd": 0.2,
            "selfnn_ratio": 0.1,
            "control_dropped_class": 0.0,
        },
    )
    html = build(tmp_path)
    assert "2 of 3 classes are present (missing: dog)" in html
    box = html.partition('role="alert"')[2].partition("</div>")[0]
    for name in ("label_kl", "ndb_jsd", "selfnn_ratio", "dropped_class failed"):
        assert name in box
    assert "No alarm" not in html


def test_an_extractor_near_chance_is_the_first_alarm_and_no_class_is_missing(tmp_path: Path):
    small_outs.write(tmp_path, class_names=["fresh", "rot"], missing_class=1, blind=True)
    html = build(tmp_path)
    lead = html.partition('<p class="lead">')[2].partition("</p>")[0]
    assert lead.startswith("The feature extractor cannot tell the classes: it names 50.0% ")
    assert "missing" not in lead
    assert "groups of similar images" in lead
    box = html.partition('role="alert"')[2].partition("</div>")[0]
    assert "raise features.epochs" in box
    assert "Classes as the extractor sees them" not in html


def test_names_from_the_data_are_escaped(tmp_path: Path):
    small_outs.write(tmp_path, class_names=["<b>", "dog"])
    html = build(tmp_path)
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert "<lines>" not in html


def test_the_page_names_its_evaluation_where_delivery_looks_for_it(tmp_path: Path):
    small_outs.write(tmp_path)
    file = tmp_path / "index.html"
    file.write_text(build(tmp_path), encoding="utf-8")
    assert report_key(file) == small_outs.EVAL_KEY


def test_the_same_outs_give_the_same_page(tmp_path: Path):
    small_outs.write(tmp_path, class_names=["cat", "dog"])
    assert build(tmp_path) == build(tmp_path)


def test_a_conditional_model_has_its_distance_per_class(tmp_path: Path):
    small_outs.write(tmp_path, class_names=["cat", "dog"])
    html = build(tmp_path)
    panel = html.partition("<h2>Distance per class</h2>")[2].partition("</section>")[0]
    assert "cat" in panel
    assert "90.0%" in panel


def test_distances_to_the_nearest_images_are_written_out(tmp_path: Path):
    small_outs.write(tmp_path, image_size=28)
    panel = build(tmp_path).partition("<h3>In pixels</h3>")[2].partition("</section>")[0]
    captions = re.findall(r"<figcaption>([\d.,e+]+)\n", panel)
    assert captions
    assert all("," in caption and "e" not in caption for caption in captions), captions


def test_neighbours_and_interpolations_can_be_left_out(tmp_path: Path):
    small_outs.write(tmp_path)
    html = build(tmp_path, neighbours=0, interpolations=0)
    assert "Nearest training images" not in html
    assert "In between" not in html


def test_leaks_and_refused_files_are_told(tmp_path: Path):
    small_outs.write(tmp_path)
    html = build(tmp_path)
    assert "2 files refused" in html
    assert "4 within train" in html
    assert "1 across train/test" in html


def test_an_alarm_of_the_training_is_the_first_sentence_and_a_mark_on_the_curves(tmp_path: Path):
    small_outs.write(tmp_path, class_names=["cat", "dog", "emu"])
    assert "collapse alarm" not in build(tmp_path)
    events = [
        {"step": 200, "kind": "alarm", "text": "collapse: label_kl 0.9 (at most 0.5)"},
        {"step": 200, "kind": "rollback", "text": "rollback 1 of at most 3"},
    ]
    files.write_table(tmp_path / paths.TRAIN_REPORT / "events.csv", events)
    html = build(tmp_path)
    told = (
        '<p class="lead">The collapse alarm sounded at step 200 (label_kl 0.9 (at most 0.5)); the '
        "training was taken back 1 time; it has been silent since. fd 3.12 on 1,000 test images"
    )
    assert html.partition("</h1>")[2].strip().startswith(told)
    assert "No alarm in the evaluation" in html
    charts = [b64decode(text).decode() for text in re.findall(r"svg\+xml;base64,([\w+/=]+)", html)]
    assert any("fd on val" in chart and "collapse alarm" in chart for chart in charts)
