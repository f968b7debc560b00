"""The documentation: fresh generated blocks, links that lead somewhere, explained keys."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from onnx_harness import transforms
from onnx_harness.cards import card
from onnx_harness.cards.keys import TABLES, TOP_KEYS
from onnx_harness.report.terms import TERMS
from tests.docs import docstrings, links
from tests.docs.blocks import BLOCKS, option_words
from tests.docs.pages import DOCS, ROOT, pages, stale

MOST_README_LINES, MOST_AGENTS_LINES = 200, 60


def test_generated_blocks_are_what_the_code_gives() -> None:
    assert [page.name for page in stale()] == [], "make them anew: python -m tests.docs"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert links.problems(page, DOCS) == []


def test_every_page_of_docs_is_in_the_site_and_in_the_readme() -> None:
    names = {page.name for page in DOCS.glob("*.md")}
    site = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert [name for name in sorted(names) if name not in site] == []
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [
        name for name in sorted(names - {"index.md"}) if f"docs/{name}" not in readme
    ] == []


def test_the_readme_is_short_and_holds_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.splitlines()) <= MOST_README_LINES
    assert "$ make validate " in readme
    assert "$ make test " in readme


def test_the_page_for_agents_is_short() -> None:
    assert len((ROOT / "AGENTS.md").read_text("utf-8").splitlines()) <= MOST_AGENTS_LINES


def test_every_key_of_a_card_is_explained() -> None:
    page = BLOCKS["card keys"]()
    for table in TABLES.values():
        assert table.heading in page
        for key in (*table.keys, *TOP_KEYS):
            assert f"| `{key.name}` |" in page
    assert "{stages}" not in page


def test_the_example_card_is_a_card(tmp_path: Path) -> None:
    text = (DOCS / "cards.md").read_text("utf-8")
    example = text.partition("```toml\n")[2].partition("```")[0]
    file = tmp_path / "silero.model.toml"
    file.write_text(example, "utf-8")
    assert card.read(file).summary == "Voice activity detector"
    assert set(tomllib.loads(example)) <= set(TABLES)


def test_every_option_of_a_transform_has_a_meaning() -> None:
    for name, transform in transforms.registry().items():
        for option in transform.options:
            meaning, _ = option_words(transform, option)
            assert meaning, f"{name}({option}) isn't explained"


def test_the_terms_of_the_report_lead_to_pages() -> None:
    assert [term.name for term in TERMS.values() if not (ROOT / term.page).is_file()] == []


def test_a_docstring_is_read_into_its_sections() -> None:
    def documented(first: int, second: int) -> int:
        """Return ``something``, as :func:`other.function` does.

        Args:
            first: one meaning
                that goes on.
            second: another.

        Raises:
            as it likes.
        """
        return first + second

    doc = docstrings.read(documented)
    assert doc.prose == "Return `something`, as `other.function` does."
    assert doc.entries["Args"] == {
        "first": "one meaning that goes on.",
        "second": "another.",
    }
    assert doc.entries["Raises"] == {"": "as it likes."}
