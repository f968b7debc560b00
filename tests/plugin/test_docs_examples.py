"""The documentation's runnable examples run, and print what the pages say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.examples import Example, examples, run
from tests.docs.pages import pages
from tests.models import linear, save

RUNNABLE = [example for page in pages() for example in examples(page)]


@pytest.mark.parametrize(
    "example", RUNNABLE, ids=lambda example: f"{example.page}-{example.language}"
)
def test_the_example_runs_as_the_page_says(example: Example, tmp_path: Path) -> None:
    save(linear(), tmp_path / "model.onnx")
    (tmp_path / "pyproject.toml").touch()
    assert run(example, tmp_path) == []


def test_there_are_examples_of_both_languages() -> None:
    assert {example.language for example in RUNNABLE} == {"console", "python"}
