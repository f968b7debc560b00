"""Text that came out of a model, made harmless where it is shown.

Names of models, outputs and nodes, and messages of libraries that quote them, may hold anything.
"""

from __future__ import annotations

import html
import re

_MARKDOWN = re.compile(r"[\\`*_\[\]~$|]")


def printable(text: str) -> str:
    r"""Escape what a terminal acts upon: ``\n``, other controls, ANSI and direction overrides."""
    if text.isprintable():  # nearly always, and forty times as fast
        return text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def markdown(text: str) -> str:
    """As running text or in a table's cell of Markdown: no markup, no HTML, no link, no mention."""
    return _MARKDOWN.sub(r"\\\g<0>", markdown_html(text))


def markdown_html(text: str) -> str:
    """Within HTML in Markdown, where a backslash is a backslash."""
    text = (
        html.escape(printable(text), quote=False)
        .replace("@", "&#64;")
        .replace("://", "&#58;//")
    )
    return text.replace("www.", "www&#46;")


def markdown_block(lines: tuple[str, ...]) -> str:
    """As a fenced block of Markdown, whose fence is longer than any that the text brings."""
    block = "\n".join(printable(line) for line in "\n".join(lines).split("\n"))
    backticks = re.findall("`+", block)
    longest = max(map(len, backticks), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{block}\n{fence}"


def web(text: str) -> str:
    """As text or an attribute's value of HTML."""
    return html.escape(printable(text), quote=True)
