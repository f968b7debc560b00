"""A page that is broken on purpose doesn't look as it did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.browser import pictures

if TYPE_CHECKING:
    from tests.browser.conftest import Opened

BROKEN = {
    "a column is hidden": (
        "page",
        "#ship td:nth-child(4), #ship th:nth-child(4) { display: none }",
    ),
    "text in the colour of the paper": ("page", ".quiet { color: var(--paper) !important }"),
    "the matrix without its heat": ("matrix", ".heat td { background: none !important }"),
    "the plots of a cell gone": ("figures", "dialog svg { display: none }"),
}


@pytest.mark.skipif(
    not pictures.FONT.is_file(),
    reason="the pictures are in DejaVu: `make browser` fetches it",
)
@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_of_the_page_is_seen(opened: Opened, fault: str) -> None:
    view, style = BROKEN[fault]
    broken = pictures.take(opened, view, 1280, "light", style)
    kept = pictures.kept(opened, view, 1280, "light")
    assert pictures.departing(kept.pixels, broken.pixels) > pictures.MOST_BLOCKS


def test_noise_is_no_fault_and_a_lost_line_is() -> None:
    draw = np.random.default_rng(0)
    page = np.full((320, 320, 3), 255, np.uint8)
    page[8:300:12, 20:300] = 90
    noisy = np.clip(page + draw.integers(-12, 13, page.shape), 0, 255).astype(np.uint8)
    assert pictures.departing(page, noisy) == 0
    lost = page.copy()
    lost[8:60] = 255
    assert pictures.departing(page, lost) > pictures.MOST_BLOCKS
    assert pictures.departing(page, page[:-4]) == 1
