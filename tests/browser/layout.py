"""Where the main parts of the report are, and in which colours; `python -m tests.browser.layout` writes it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.browser import runs

if TYPE_CHECKING:
    from tests.browser.conftest import Opened

FILE = Path(__file__).with_name("layout.json")
SCREENS = (1280, 390)
VIEWS = {"page": "", "cell": "#cell=failing_0-optimize-cuda"}
PARTS = {
    "page": (
        *("body", "h1", "#since", "#ship", "#failures", "#matrix", "#plots", "#nights"),
        *("#filters", ".heat td.fail"),
    ),
    "cell": ("dialog", "#cell-title", "dialog .close", "dialog .body"),
}

_LOOK = """parts => {
    const found = parts.map(name => [name, document.querySelector(name)])
        .filter(([, part]) => part && part.checkVisibility())
        .map(([name, part]) => [name, part.getBoundingClientRect(), getComputedStyle(part)]);
    found.sort(([, a], [, b]) => a.top - b.top || b.height - a.height);
    return Object.fromEntries(found.map(([name, box, style]) => [name, {
        left: Math.round(box.left), width: Math.round(box.width), height: Math.round(box.height),
        ink: style.color, ground: style.backgroundColor,
    }]));
}"""


def layout(
    opened: Opened, view: str, width: int, scheme: str, style: str = ""
) -> dict[str, Any]:
    """Return the visible parts of a view from top to bottom, sizes in pixels of the page."""
    screen = {"width": width, "height": 900}
    page = opened(runs.failing(), VIEWS[view], viewport=screen, color_scheme=scheme)
    if style:
        page.add_style_tag(content=style)
    found: dict[str, Any] = page.evaluate(_LOOK, list(PARTS[view]))
    return found


def write() -> None:
    """Write the layouts of all views."""
    from playwright.sync_api import sync_playwright

    from tests.browser.conftest import Opened, executable

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        chromium = playwright.chromium.launch(executable_path=executable())
        opened = Opened(chromium, Path(folder))
        layouts = {}
        for view in VIEWS:
            for width in SCREENS:
                for scheme in ("light", "dark"):
                    layouts[f"{view} {width} {scheme}"] = layout(opened, view, width, scheme)
        opened.close()
        chromium.close()
    FILE.write_text(json.dumps(layouts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
