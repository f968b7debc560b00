"""A model above what protobuf holds in a message, through the commands: within its own memory."""

from __future__ import annotations

import re

import pytest

from tests.performance.big_models import rows


@pytest.mark.nightly
@pytest.mark.parametrize("what", ["hash", "inspect", "transform", "compare"])
def test_what_is_done_with_a_large_model_holds_it_once(what: str) -> None:
    measured = [row for row in rows(2.5, what) if row[2]]
    assert measured
    for name, figure, limit in measured:
        ratio = re.match(r"[0-9.]+", figure)
        assert ratio is not None
        assert float(ratio[0]) <= float(limit), name


@pytest.mark.nightly
def test_beyond_2_gb_optimize_says_why_not_and_what_does_the_same() -> None:
    *_, said = rows(2.5, "transform optimize")
    assert "takes models up to 2 GB and this one has 2.5 GB" in said[0]
    assert "`simplify`" in said[0]
