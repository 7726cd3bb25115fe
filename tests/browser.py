"""A headless Chromium for tests of web pages: Debian's, with its own driver; and MLflow's pages.

`benchmarks/screenshots.py` takes the documentation's pictures by the same steps.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.services import not_installed

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

SECONDS = 60  # for a page to show something: a loaded machine takes ten
ROW = ".ag-row"
CHECKBOX = "input[aria-label^='Press Space to toggle row selection']"
CARD = "[data-testid='experiment-view-compare-runs-card']"
ROWS_IN_SIGHT = """
const at = (grid) => [...grid.querySelectorAll("[style*='top']")]
    .filter(x => x.parentElement.getAttribute('role') == 'rowgroup');
return at(arguments[0]).map(name => [name.innerText.trim(), at(arguments[1])
    .filter(x => x.style.top == name.style.top).map(x => x.innerText.trim())]);
"""
DISTRACTIONS = (  # the assistant's panel, and a hint that the view is a saved one
    "[data-component-id='mlflow.assistant.chat_panel.close']",
    "[data-component-id='mlflow.experiment_page.shared_view.dismiss']",
)


@contextlib.contextmanager
def chromium(folder: Path, *, width: int = 1500, height: int = 1000) -> Iterator[Chrome]:
    """A browser that reaches this machine alone; what it keeps is in `folder`.

    Skips the test where Debian's packages are not installed; CI installs them.
    """
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        not_installed("Chromium", "chromium chromium-driver")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = str(programs[0])
    arguments = [
        "--headless=new",
        "--disable-dev-shm-usage",  # it may be small in a container
        "--disable-gpu",
        "--force-color-profile=srgb",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={folder / 'chromium'}",
        f"--window-size={width},{height}",
    ]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # it refuses to run as root with one
    for argument in arguments:
        options.add_argument(argument)
    driver = Chrome(options=options, service=Service(str(programs[1])))
    try:
        driver.set_page_load_timeout(120)
        driver.set_script_timeout(60)
        yield driver
    finally:
        driver.quit()


def until(said: Callable[[], Any], what: str) -> Any:
    """What `said` returns once that is true. A page that is being redrawn counts as not yet."""
    from selenium.common.exceptions import (
        ElementNotInteractableException,
        StaleElementReferenceException,
    )

    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(StaleElementReferenceException, ElementNotInteractableException):
            found = said()
            if found:
                return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come")


def elements(driver: Chrome, css: str, text: str = "") -> list[WebElement]:
    """Those that are there now, with `text` in them."""
    return [x for x in driver.find_elements("css selector", css) if text in x.text]


def find(driver: Chrome, css: str, text: str = "") -> WebElement:
    """The first one, once it is there."""
    return until(lambda: elements(driver, css, text), f"{css} {text}")[0]


def click(driver: Chrome, css: str, text: str = "") -> None:
    until(lambda: [find(driver, css, text).click()], f"a click on {css} {text}")


def open_page(driver: Chrome, address: str) -> None:
    """A page as it opens for who comes for the first time, without what lies over it."""
    driver.get("about:blank")  # another # alone would not load it anew
    driver.get(address)
    find(driver, "h1, h2, h3")
    calm(driver)


def calm(driver: Chrome) -> None:
    for css in DISTRACTIONS:
        for element in elements(driver, css):
            driver.execute_script("arguments[0].click()", element)


def addresses(told: str) -> dict[str, str]:
    """The addresses that `gan ui` prints, by what they show."""
    return dict(re.findall(r"^(\w.*?) {2,}(http\S+)$", told, re.MULTILINE))


def compare(driver: Chrome, figures: str, names: list[str]) -> None:
    """Choose runs in the table, and hold them against each other."""
    open_page(driver, figures)
    for name in names:
        find(driver, ROW, name)
    calm(driver)
    for row in elements(driver, ROW):
        if any(name in row.text for name in names):
            identity = row.get_attribute("row-id")
            click(driver, f"{ROW}[row-id='{identity}'] {CHECKBOX}")
    click(driver, "[data-testid='runs-compare-button']")
    find(driver, "h1, h2, h3", f"Comparing {len(names)} Runs")


def compared_metrics(driver: Chrome) -> dict[str, list[str]]:
    """The figures on the page that `compare` opens, by name, one a run.

    It draws only those rows that are in sight, so they are scrolled through.
    """
    grids = ".ReactVirtualized__Grid"
    until(lambda: len(elements(driver, grids)) == 2, "the table of figures")
    names, values = elements(driver, grids)
    driver.execute_script("arguments[0].scrollIntoView()", values)
    found: dict[str, list[str]] = {}
    for top in range(0, int(values.get_attribute("scrollHeight") or 0), 200):
        driver.execute_script("arguments[0].scrollTop = arguments[1]", values, top)
        time.sleep(0.2)
        for name, row in driver.execute_script(ROWS_IN_SIGHT, names, values):
            if row:  # else names and figures are not scrolled alike yet
                found[name] = row
    return found


def open_samples(driver: Chrome, charts: str) -> WebElement:
    """The pictures of all runs, as large as they get; the slider of their steps."""
    open_page(driver, charts)
    find(driver, CARD)
    calm(driver)
    find(driver, "input[placeholder='Search metric charts']").send_keys("samples")
    find(driver, CARD, "samples")
    click(driver, "[data-component-id='fullscreen_button_chartcard']")
    return find(driver, "[role='dialog'] [role='slider']")


def pictures(driver: Chrome) -> list[str]:
    """Addresses of the pictures that are drawn in the open dialog, and not empty."""
    drawn = driver.execute_script(
        "return [...document.querySelectorAll(\"[role='dialog'] img\")]"
        ".filter(x => x.complete && x.naturalWidth).map(x => x.src)"
    )
    return list(drawn)


def registered_model(server: str, name: str, version: str = "") -> str:
    """The address of a registered model's page, or of one version's."""
    return f"{server}/#/models/{name}" + (f"/versions/{version}" if version else "")
