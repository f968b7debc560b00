"""Documentation that is wrong on purpose: each check of it has to notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import examples, links
from tests.docs.examples import Example
from tests.docs.pages import rendered, stale

PAGE = "# A page\n\n## Known heading\n\n{}\n"


def docs_page(folder: Path, text: str) -> Path:
    page = folder / "docs" / "page.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text(PAGE.format(text), "utf-8")
    return page


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("[a](missing.md)", "there is no such file"),
        ("[a](#no-heading)", "there is no such heading"),
        ("[a](page.md#no-heading)", "there is no such heading"),
        ("[`code`](missing.md)", "there is no such file"),
        ("![a](missing.svg)", "there is no such file"),
        ("[a](../README.md)", "outside docs/"),
    ],
)
def test_a_link_that_leads_nowhere(link: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    page = docs_page(tmp_path, link)
    assert [why in problem for problem in links.problems(page, page.parent)] == [True]


def test_links_that_lead_somewhere_and_links_in_code(tmp_path: Path) -> None:
    text = "[a](#known-heading) [b](page.md) [c](https://x.org/y) `[d](no.md)`\n\n```\n[e](no.md)\n```"
    page = docs_page(tmp_path, text)
    assert links.problems(page, page.parent) == []


def test_a_heading_whose_anchors_differ_is_no_target(tmp_path: Path) -> None:
    page = docs_page(tmp_path, "## A & B\n\n[a](#a--b)")
    assert len(links.problems(page, page.parent)) == 1


def test_a_stale_block(tmp_path: Path) -> None:
    page = docs_page(
        tmp_path, "<!-- generated: generators -->\nold words\n<!-- end of generated -->"
    )
    assert stale(tmp_path) == [page]
    page.write_text(rendered(page.read_text("utf-8")), "utf-8")
    assert stale(tmp_path) == []
    assert "old words" not in page.read_text("utf-8")


def test_an_empty_block_ends_where_it_ends() -> None:
    empty = "<!-- generated: {} -->\n<!-- end of generated -->\n"
    text = f"{empty.format('generators')}between\n{empty.format('groups')}"
    assert rendered(text).count("between") == 1
    assert rendered(rendered(text)) == rendered(text)


def test_a_block_that_does_not_exist() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        rendered("<!-- generated: nonsense -->\n<!-- end of generated -->")


@pytest.mark.parametrize(
    ("language", "body", "why"),
    [
        ("console", "$ onnx-harness --no-such-option\n", "exit code 2"),
        ("console", "$ onnx-harness --help\nusage: another\n...\n", "the page says"),
        ("console", "$ rm -rf x\n", "only pytest and onnx-harness"),
        ("python", "assert 1 == 2\n", "AssertionError"),
    ],
)
def test_an_example_that_does_not_run(
    language: str, body: str, why: str, tmp_path: Path
) -> None:
    problems = examples.run(Example("page.md", language, body), tmp_path)
    assert [why in problem for problem in problems] == [True]


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("a  b\nc", "a b\n c", True),
        ("a x y c", "a ... c", True),
        ("a c d", "a ... c", False),
        ("anything", "", True),
        ("a.c", "abc", False),
    ],
)
def test_what_is_printed_is_compared_as_in_a_doctest(
    printed: str, expected: str, same: bool
) -> None:
    assert examples.agrees(printed, expected) is same
