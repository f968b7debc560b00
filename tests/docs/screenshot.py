"""Take docs/report.png, the upper part of a real run's report: ``python -m tests.docs.screenshot``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from models.half_limits import pcm_power, unscaled_attention
from models.varied import noise_vocoder
from tests.browser.conftest import executable
from tests.docs.pages import DOCS

FILE = DOCS / "report.png"
_BUILDERS = {"attention": unscaled_attention, "vocoder": noise_vocoder, "power": pcm_power}
_VARIANTS = ("original", "simplify", "fp16.io32", "fp16.mixed")


def report(folder: Path) -> Path:
    """Run pytest on three models and return the report of it."""
    names = []
    for name, build in _BUILDERS.items():
        build(folder / f"{name}.onnx")
        names.append(f"{name}.onnx")
    (folder / "pyproject.toml").touch()  # so that it's a repository of its own
    (folder / "vocoder.model.toml").write_text("[random]\nseed = 0\n", "utf-8")
    words = [
        *names,
        *(f"--variant={variant}" for variant in _VARIANTS),
        "--report-dir=reports",
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    subprocess.run(command, cwd=folder, capture_output=True, check=False)
    return folder / "reports" / "report.html"


def take(page: Path, picture: Path) -> None:
    """Write a picture of a report, down to its plots."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable())
        screen: Any = {"width": 1100, "height": 1515}
        tab = chromium.new_page(viewport=screen, color_scheme="light")
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-ready]", state="attached")
        tab.screenshot(path=picture)
        chromium.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        take(report(Path(name)), FILE)
