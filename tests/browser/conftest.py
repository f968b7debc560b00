"""A headless Chromium, where there is one: `make browser` fetches Debian's."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from onnx_harness.report.html import page as report_page
from onnx_harness.results.cells import CellResult
from tests.browser import runs
from tests.unit.results_examples import RUN

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def executable() -> str | None:
    named = os.environ.get("ONNX_HARNESS_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright isn't installed"
    )
    path = executable()
    if path is None:
        pytest.skip(
            f"there is no Chromium here ({', '.join(NAMES)}): `make browser` fetches one"
        )
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path)
        yield chromium
        chromium.close()


class Opened:
    """A report in the browser, and what it did that it shouldn't."""

    def __init__(self, browser: "Browser", folder: Path) -> None:
        self.browser = browser
        self._folder = folder
        self._pages: list[Page] = []
        self.complaints: list[str] = []

    def __call__(
        self, cells: list[CellResult], fragment: str = "", **options: Any
    ) -> "Page":
        file = self._folder / "report.html"
        file.write_text(report_page(RUN, cells, {}, runs.background(cells)), "utf-8")
        page = self.browser.new_page(
            **{"viewport": {"width": 1280, "height": 900}, **options}
        )
        self._pages.append(page)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self._see(request.url))
        page.goto(f"{file.as_uri()}{fragment}")
        if options.get("java_script_enabled", True):
            page.wait_for_selector("html[data-ready]", state="attached")
        return page

    def _see(self, url: str) -> None:
        if not url.startswith("file:"):
            self.complaints.append(f"request: {url}")

    def close(self) -> None:
        for page in self._pages:
            page.close()


@pytest.fixture
def opened(browser: "Browser", tmp_path: Path) -> Iterator[Opened]:
    """Open a report of cells; the test fails if the page logs anything or asks for anything."""
    opening = Opened(browser, tmp_path)
    yield opening
    opening.close()
    assert opening.complaints == []
