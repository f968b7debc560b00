"""Pictures of the report, and how far two of them differ; `python -m tests.browser.pictures` takes them.

Chromium scales, encodes and decodes them, so that no library for pictures is needed. All text is in
DejaVu, which `make browser` installs: another font moves every line.
"""

from __future__ import annotations

import base64
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.browser import runs

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.browser.conftest import Opened

Pixels = NDArray[np.uint8]

FOLDER = Path(__file__).with_name("pictures")
FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
SCREENS = (1280, 390)
SCHEMES = ("light", "dark")
HEIGHT = 1280
SCALE = 4
"""Pixels of the screen, across and down, to one of a picture."""

BLOCK = 4
"""Pixels of a picture, across and down, whose mean is compared: 16 of the screen, a line of text."""

MOST_APART = 20
"""Levels of 255 by which the mean of a block may differ. Letters on whole pixels, as a Chromium
without subpixel positioning puts them, move 0 to 1% of the blocks by more; a column that is hidden 4
to 21%, and grey text in the colour of the paper 1.6 to 5%."""

MOST_BLOCKS = 0.012
"""The share of blocks that may differ by more."""

_FONTS = """
    * { font-family: "DejaVu Sans", sans-serif !important; caret-color: transparent !important }
    code, pre, code * { font-family: "DejaVu Sans Mono", monospace !important }
    *, *::before { transition: none !important; animation: none !important }
"""
_SHRINK = """async ([data, scale]) => {
    const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes]));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(bitmap.width / scale);
    canvas.height = Math.round(bitmap.height / scale);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    let text = "";
    for (const value of pixels) text += String.fromCharCode(value);
    return [canvas.width, canvas.height, btoa(text), canvas.toDataURL("image/png").split(",")[1]];
}"""


@dataclass(frozen=True, slots=True)
class Picture:
    """A small picture of a screen.

    Attributes:
        pixels: uint8 of shape (height, width, 3).
        png: the same as a file.
    """

    pixels: Pixels
    png: bytes


class View(NamedTuple):
    """A part of a report that a picture is taken of.

    Attributes:
        cells: of the run.
        fragment: the part of the address that opens it.
        at: CSS selector of what is scrolled to the upper edge.
    """

    cells: list[Any]
    fragment: str = ""
    at: str = "body"


def views() -> dict[str, View]:
    """Return the views by name."""
    full, failing = runs.evidence(), runs.failing()
    return {
        "page": View(failing),
        "matrix": View(failing, at="#matrix"),
        "cell": View([full], f"#cell={full.id}"),
        "figures": View([full], f"#cell={full.id}", at="dialog section:has(.floor-mark)"),
    }


def take(opened: Opened, view: str, width: int, scheme: str, style: str = "") -> Picture:
    """Take a picture of a view.

    Args:
        opened: opens reports.
        view: a key of `views`.
        width: of the screen.
        scheme: ``light`` or ``dark``.
        style: CSS that is added to the page.
    """
    cells, fragment, at = views()[view]
    screen = {"width": width, "height": HEIGHT}
    page = opened(cells, fragment, viewport=screen, color_scheme=scheme)
    page.add_style_tag(content=_FONTS + style)
    # A font that comes later moves what was scrolled to.
    page.evaluate(
        "Promise.all([...document.fonts].map(font => font.load())).then(() => null)"
    )
    page.locator(at).evaluate("part => part.scrollIntoView()")
    return shrunk(opened.browser, page.screenshot(), SCALE)


def kept(opened: Opened, view: str, width: int, scheme: str) -> Picture:
    """Return the picture of a view that somebody has looked at."""
    return shrunk(opened.browser, file_of(view, width, scheme).read_bytes())


def shrunk(browser: Browser, png: bytes, scale: int = 1) -> Picture:
    """Decode a PNG, smaller by a factor."""
    blank = browser.new_page()  # the report's own policy allows no such script
    width, height, pixels, small = blank.evaluate(
        _SHRINK, [base64.b64encode(png).decode("ascii"), scale]
    )
    blank.close()
    raw = np.frombuffer(base64.b64decode(pixels), np.uint8)
    return Picture(raw.reshape(height, width, 4)[..., :3], base64.b64decode(small))


def file_of(view: str, width: int, scheme: str) -> Path:
    """Return where the picture of a view is kept."""
    return FOLDER / f"{view}_{width}_{scheme}.png"


def departing(first: Pixels, second: Pixels) -> float:
    """Return the share of blocks whose means differ by more than `MOST_APART` in some colour.

    Pictures of other sizes differ everywhere.
    """
    if first.shape != second.shape:
        return 1.0
    gaps = np.abs(_blocks(first) - _blocks(second)).max(axis=-1)
    return float(np.mean(gaps > MOST_APART))


def _blocks(pixels: Pixels) -> NDArray[np.float64]:
    """Return the mean colours of the whole blocks, of shape (rows, columns, 3)."""
    rows, columns = pixels.shape[0] // BLOCK, pixels.shape[1] // BLOCK
    whole = pixels[: rows * BLOCK, : columns * BLOCK].astype(np.float64)
    means: NDArray[np.float64] = whole.reshape(rows, BLOCK, columns, BLOCK, 3).mean(
        axis=(1, 3)
    )
    return means


def write() -> None:
    """Take the pictures of all views and keep them."""
    from playwright.sync_api import sync_playwright

    from tests.browser.conftest import Opened, executable

    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        chromium = playwright.chromium.launch(executable_path=executable())
        opened = Opened(chromium, Path(folder))
        for view in views():
            for width in SCREENS:
                for scheme in SCHEMES:
                    picture = take(opened, view, width, scheme)
                    file_of(view, width, scheme).write_bytes(picture.png)
        opened.close()
        chromium.close()


if __name__ == "__main__":
    write()
