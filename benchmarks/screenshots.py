"""The documentation's pictures of MLflow's pages, by the steps that the tests take.

    python benchmarks/screenshots.py [--out docs]

In a repository with trainings and two registered versions. It needs Debian's chromium and
chromium-driver.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from selenium.webdriver.common.keys import Keys

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.config import load_params  # noqa: E402
from pipeline.tracking import store  # noqa: E402
from tests import browser, services  # noqa: E402

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

WIDTH, TALL = 1200, 1000  # a table shows no row where there is little room
COLOURS = 128  # a page has few, and so the files are small


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    given = parser.parse_args()
    params, port = load_params(), services.free_port()
    with tempfile.TemporaryDirectory() as scratch, browser.chromium(Path(scratch)) as driver:
        log = Path(scratch) / "log"
        with log.open("w") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", "ui", "--port", str(port)],
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        try:
            services.wait_for(port)
            addresses = browser.addresses(log.read_text())
            server = f"http://127.0.0.1:{port}"
            client, experiment = store.ready(params.tracking.experiment)
            runs = client.search_runs([experiment], "tags.dvc_stage = 'train'")
            names = [run.info.run_name for run in runs[:2]]
            take(driver, given.out, addresses, server, params.model_name, names)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def take(
    driver: Chrome,
    out: Path,
    addresses: dict[str, str],
    server: str,
    model: str,
    names: list[str],
) -> None:
    size(driver, TALL)
    browser.open_page(driver, addresses["figures"])
    browser.find(driver, browser.ROW, "train")
    browser.calm(driver)
    browser.click(driver, "[data-component-id='mlflow_header.toggle_sidebar_button']")
    for row in browser.elements(driver, browser.ROW, "train")[::-1]:
        for button in row.find_elements("css selector", "[class*='expander'], button")[:1]:
            button.click()
    save(driver, out / "mlflow-runs.png", height=570)

    browser.compare(driver, addresses["figures"], names)
    toggle = browser.find(driver, "[aria-label='Parameters - Show diff only']")
    driver.execute_script("arguments[0].click()", toggle)
    grids = browser.elements(driver, ".ReactVirtualized__Grid")
    size(driver, 560)
    driver.execute_script("arguments[0].scrollIntoView({block: 'end'})", grids[1])
    for grid in reversed(grids):  # figures and then their names, which MLflow leaves behind
        driver.execute_script("arguments[0].scrollTop = 1305", grid)
        time.sleep(2)
    save(driver, out / "mlflow-compare.png", height=560)

    size(driver, TALL)
    slider = browser.open_samples(driver, addresses["curves, samples"])
    for _ in range(int(slider.get_attribute("aria-valuemax") or 0)):
        if slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax"):
            break
        slider.send_keys(Keys.ARROW_RIGHT)
    save(driver, out / "mlflow-samples.png", height=520)

    size(driver, TALL)
    browser.open_page(driver, browser.registered_model(server, model, "2"))
    table = browser.find(driver, "[data-testid='editable-table']")
    size(driver, 740)
    for cell in table.find_elements("xpath", ".//*[text()='gate.better']")[:1]:
        driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", cell)
    driver.execute_script("arguments[0].scrollIntoView({block: 'end'})", table)
    save(driver, out / "mlflow-version.png", height=740)


def size(driver: Chrome, height: int) -> None:
    """What the page has to itself, in pixels."""
    metrics = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def save(driver: Chrome, path: Path, *, height: int) -> None:
    size(driver, height)
    time.sleep(2)  # what moves has come to rest
    browser.calm(driver)
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
