"""Links between the pages of the documentation: each has to lead to a file and a heading that exist."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

_FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (?P<text>.+)$", re.MULTILINE)
_ELSEWHERE = ("http://", "https://", "mailto:")


def problems(page: Path, docs: Path) -> list[str]:
    """Return a sentence for each internal link of a page that leads nowhere.

    Args:
        page: a Markdown file.
        docs: the folder that is also built as a site: its pages can't link to files outside.
    """
    return [
        f"{page.name}: {target}: {why}"
        for target in links(page.read_text("utf-8"))
        if (why := _wrong(page, target, docs))
    ]


def links(text: str) -> Iterator[str]:
    """Give the targets of a page's links to files and headings; those in code aren't links."""
    for match in _LINK.finditer(_CODE.sub(_blank_outside_links, _FENCE.sub("", text))):
        if not match["target"].startswith(_ELSEWHERE):
            yield match["target"]


def _blank_outside_links(match: re.Match[str]) -> str:
    return "" if "](" in match[0] else match[0]


def _wrong(page: Path, target: str, docs: Path) -> str:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.is_file():
        return "there is no such file"
    if page.parent == docs and file.parent != docs:
        return "it lies outside docs/, where the site can't link to"
    if anchor and anchor not in anchors(file.read_text("utf-8")):
        return "there is no such heading"
    return ""


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub and the site agree on, of a page's headings."""
    headings = [match["text"] for match in _HEADING.finditer(_FENCE.sub("", text))]
    return {_github(heading) for heading in headings if _github(heading) == _site(heading)}


def _github(heading: str) -> str:
    """Return the anchor as GitHub makes it: lower case, punctuation dropped, a hyphen for each blank."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def _site(heading: str) -> str:
    """Return the anchor as Python-Markdown's `toc` makes it."""
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
