"""The report's layout and colours, as they were when somebody looked at them.

Not pixels: fonts differ between machines. Measured here on averages of squares of 65 pixels, a font
that is 3% wider moves the picture of a narrow screen as far (9.5 of 255) as a missing part does
(10.3). So the main parts are compared: that they are there, in their order, where they begin, how
wide they are, and in which colours. Heights follow the font, and get a factor. A serif font, one of
fixed width and letters 0.4 pixels further apart or nearer move nothing beyond that.

`python -m tests.browser.layout` looks again, after a change that somebody has looked at.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.browser.conftest import Opened
from tests.browser.layout import FILE, SCREENS, VIEWS, layout

SIDES = 0.03
"""Of the screen's width, how far a part may begin or end elsewhere."""
HEIGHTS = 1.6
"""Text that wraps at other words gets so many times higher or lower."""
LINE = 40
"""A heading may take a line more."""


def departures(expected: dict[str, Any], found: dict[str, Any], width: int) -> list[str]:
    """What differs between two layouts of a view, a line each."""
    lines = []
    if list(expected) != list(found):
        return [f"parts in their order: {list(found)}, and not {list(expected)}"]
    for name, part in expected.items():
        now = found[name]
        for side in ("left", "width"):
            if abs(now[side] - part[side]) > SIDES * width:
                lines.append(f"{name}: {side} {now[side]}, and not {part[side]}")
        tall, low = max(now["height"], part["height"]), min(now["height"], part["height"])
        if tall > HEIGHTS * low + LINE:
            lines.append(f"{name}: height {now['height']}, and not {part['height']}")
        for colour in ("ink", "ground"):
            if now[colour] != part[colour]:
                lines.append(f"{name}: {colour} {now[colour]}, and not {part[colour]}")
    return lines


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", SCREENS)
@pytest.mark.parametrize("view", VIEWS)
def test_the_parts_are_where_they_were_and_in_their_colours(
    opened: Opened, view: str, width: int, scheme: str
) -> None:
    expected = json.loads(FILE.read_text("utf-8"))[f"{view} {width} {scheme}"]
    found = layout(opened, view, width, scheme)
    assert departures(expected, found, width) == []
    taller = {name: {**part, "height": part["height"] * 1.3} for name, part in found.items()}
    assert departures(expected, taller, width) == [], "as with another font"


@pytest.mark.parametrize(
    ("style", "said"),
    [
        ("#ship { display: none }", "parts in their order"),
        ("main { margin-left: 80px }", "#ship: left"),
        ("body { background: #ffd }", "body: ground"),
        (".heat td.fail { background: #eee }", ".heat td.fail: ground"),
        ("main { display: flex; flex-direction: column-reverse }", "parts in their order"),
    ],
)
def test_what_is_broken_on_purpose_shows(opened: Opened, style: str, said: str) -> None:
    expected = json.loads(FILE.read_text("utf-8"))["page 1280 light"]
    found = departures(expected, layout(opened, "page", 1280, "light", style), 1280)
    assert any(said in line for line in found), found
