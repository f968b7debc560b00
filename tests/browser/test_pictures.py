"""Pictures of the report beside those that somebody has looked at.

`python -m tests.browser.pictures` takes them anew, after a change that somebody has looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser import pictures

if TYPE_CHECKING:
    from tests.browser.conftest import Opened

pytestmark = pytest.mark.skipif(
    not pictures.FONT.is_file(),
    reason="the pictures are in DejaVu: `make browser` fetches it",
)


@pytest.mark.parametrize("scheme", pictures.SCHEMES)
@pytest.mark.parametrize("width", pictures.SCREENS)
@pytest.mark.parametrize("view", pictures.views())
def test_the_report_looks_as_it_did(
    opened: Opened, view: str, width: int, scheme: str
) -> None:
    now = pictures.take(opened, view, width, scheme)
    then = pictures.kept(opened, view, width, scheme)
    share = pictures.departing(then.pixels, now.pixels)
    assert share <= pictures.MOST_BLOCKS
