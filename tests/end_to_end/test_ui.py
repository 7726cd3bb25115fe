"""MLflow's own pages, in a browser, over the store that the pipeline's commands filled."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests import browser
from tests.services import free_port, wait_for

from .conftest import Workspace

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.slow
NAME = "gan-mnist5k"


@dataclass(frozen=True)
class Pages:
    driver: Chrome
    server: str
    addresses: dict[str, str]
    trainings: list[dict]


@pytest.fixture(scope="module")
def pages(registered: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """`gan ui` in the workspace, and a browser."""
    folder, port = tmp_path_factory.mktemp("ui"), free_port()
    log = folder / "log"
    with log.open("w") as said, browser.chromium(folder) as driver:
        process = subprocess.Popen(
            ["python", "-m", "pipeline.cli", "ui", "--port", str(port)],
            cwd=registered.root,
            env=registered.environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            wait_for(port)
            yield Pages(
                driver,
                f"http://127.0.0.1:{port}",
                browser.addresses(log.read_text()),
                [run for run in registered.runs() if run["stage"] == "train"],
            )
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def test_the_table_shows_each_training_and_its_figures(pages: Pages) -> None:
    browser.open_page(pages.driver, pages.addresses["figures"])
    for run in pages.trainings:
        browser.find(pages.driver, browser.ROW, run["name"])
    text = "\n".join(row.text for row in browser.elements(pages.driver, browser.ROW))
    for run in pages.trainings:
        assert f"{run['metrics']['fd']:.6g}"[:6] in text
    headers = browser.elements(pages.driver, "[data-testid^='sort-header-']")
    assert {"fd", "fd_floor", "label_kl"} <= {header.text for header in headers}


def test_runs_are_compared(pages: Pages) -> None:
    names = [run["name"] for run in pages.trainings]
    assert len(names) == 2
    browser.compare(pages.driver, pages.addresses["figures"], names)
    (steps,) = browser.until(
        lambda: [
            [cell.text for cell in row.find_elements("css selector", "td")]
            for row in browser.elements(pages.driver, "tr", "train.steps")
        ],
        "the parameters",
    )
    assert sorted(steps) == ["40", "60"]
    figures = browser.compared_metrics(pages.driver)
    for key in ("fd", "label_kl", "precision"):
        wanted = sorted(run["metrics"][key] for run in pages.trainings)
        assert sorted(map(float, figures[key])) == pytest.approx(wanted, rel=1e-3, abs=1e-3)


def test_samples_lie_under_the_step_slider(pages: Pages) -> None:
    from selenium.webdriver.common.keys import Keys

    slider = browser.open_samples(pages.driver, pages.addresses["curves, samples"])
    dialog = browser.find(pages.driver, "[role='dialog']")
    for run in pages.trainings:
        assert run["name"] in dialog.text
    assert slider.get_attribute("aria-valuemax") == "60"
    seen: dict[int, list[str]] = {}
    for step in (0, 20, 40):  # both trainings have a picture of each
        assert slider.get_attribute("aria-valuenow") == str(step)
        seen[step] = browser.until(lambda step=step: of_step(pages.driver, step), f"step {step}")
        slider.send_keys(Keys.ARROW_RIGHT)
    early, late = (picture(seen[step][0]) for step in (0, 40))
    assert early.size == late.size
    assert early.tobytes() != late.tobytes()


def of_step(driver: Chrome, step: int) -> list[str]:
    """The pictures that are shown, once there is one of this step of each training."""
    shown = browser.pictures(driver)
    return shown if len(shown) == 2 and all(f"step%2B{step}%2B" in x for x in shown) else []


def picture(address: str) -> Image.Image:
    with urllib.request.urlopen(address) as answer:
        return Image.open(io.BytesIO(answer.read())).convert("RGB")


def test_versions_show_their_aliases_and_tags(pages: Pages) -> None:
    driver = pages.driver
    browser.open_page(driver, browser.registered_model(pages.server, NAME))
    champion = browser.find(driver, "tr, [role='row']", "champion").text
    previous = browser.find(driver, "tr, [role='row']", "previous").text
    assert "Version 2" in champion
    assert "Version 1" in previous
    assert "train_key" in champion


def test_a_version_shows_the_decision_and_leads_to_its_run(pages: Pages) -> None:
    driver = pages.driver
    browser.open_page(driver, browser.registered_model(pages.server, NAME, "2"))
    browser.find(driver, "span", "champion")
    source = pages.trainings[-1]
    link = browser.find(driver, "a", source["name"])
    assert source["id"] in link.get_attribute("href")
    table = browser.find(driver, "[data-testid='tags-section'], [data-testid='editable-table']")
    text = browser.until(lambda: "forced" in driver.page_source and table.text, "the tags")
    for tag in ("data_digest", "eval_key", "gate.better", "gate.why"):
        assert tag in text
    assert source["tags"]["train_key"] in text
