"""Examples in the documentation that are marked as runnable, and running them.

A page marks one with ``<!-- runnable -->`` above its fence. In a ``console`` block each line that
begins with ``$`` is a command; the lines under it are what it prints, where ``...`` stands for any
text, as in a doctest. A ``python`` block is run as a script. Both run in a folder that holds
``model.onnx``.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_MARKED = re.compile(
    r"<!-- runnable -->\n```(?P<language>\w+)\n(?P<body>.*?)^```", re.DOTALL | re.MULTILINE
)
_TOOLS = {
    "pytest": ["-m", "pytest", "-p", "no:cacheprovider", "--no-header"],
    "onnx-harness": ["-m", "onnx_harness"],
}
SECONDS = 300


@dataclass(frozen=True, slots=True)
class Example:
    """A runnable example: its page, its language, and its text."""

    page: str
    language: str
    body: str


def examples(page: Path) -> list[Example]:
    """Return the runnable examples of a page, in order."""
    matches = _MARKED.finditer(page.read_text("utf-8"))
    return [Example(page.name, match["language"], match["body"]) for match in matches]


def run(example: Example, folder: Path) -> list[str]:
    """Run an example in a folder, and return a sentence for each thing that isn't as the page says."""
    if example.language == "python":
        ended = _run(["-c", example.body], folder)
        return (
            []
            if ended.returncode == 0
            else [f"the script ends with {ended.returncode}:\n{ended.stderr}"]
        )
    return [
        problem
        for command, expected in _commands(example.body)
        for problem in _try(command, expected, folder)
    ]


def _try(command: str, expected: str, folder: Path) -> list[str]:
    tool, *words = shlex.split(command)
    if tool not in _TOOLS:
        return [f"{command}: only {' and '.join(_TOOLS)} can be run here"]
    ended = _run([*_TOOLS[tool], *words], folder)
    if ended.returncode != 0:
        return [f"{command}: exit code {ended.returncode}\n{ended.stdout}{ended.stderr}"]
    if not agrees(ended.stdout, expected):
        return [f"{command}: the page says\n{expected}\nand it printed\n{ended.stdout}"]
    return []


def _commands(body: str) -> list[tuple[str, str]]:
    """Return the commands of a console block, each with what it prints."""
    parts = re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]
    split = [part.partition("\n") for part in parts]
    return [(command, expected) for command, _, expected in split]


def agrees(printed: str, expected: str) -> bool:
    """Return whether a text is the expected one.

    ``...`` stands for any text, and blanks don't count.
    """
    words = [re.escape(" ".join(part.split())) for part in expected.split("...")]
    pattern = ".*".join(words)
    return (
        re.fullmatch(pattern, " ".join(printed.split())) is not None or not expected.strip()
    )


def _run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "COLUMNS": "100",
        "ONNX_HARNESS_CACHE": str(folder / ".cache"),
        "PYTEST_ADDOPTS": "",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
