"""The first files of a gate in somebody's repository: the lock file and a nightly workflow."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from onnx_harness.errors import UsageError
from onnx_harness.results.files import cannot_write, replace_text
from onnx_harness.results.levels import FOLDER, LOCK_NAME

REFERENCE = ".reference"
GITHUB_FILE = Path(".github/workflows/onnx-gate.yml")
GITLAB_FILE = Path(".gitlab-ci.yml")
MOST_LINES = 20
"""Of a workflow: what is longer isn't read by whoever has to answer for it."""

_INSTALLERS = {"pip", "setuptools", "wheel", "onnx-harness"}
"""Left out of the lock file.

`venv` brings the former, and the reference takes this package's source from the environment under
test.
"""
_PLAIN = re.compile(r"[\w.=\-][\w .=/\"\[\]$|\-]*")
"""The text that YAML takes without quotes, wherever it stands in a block."""

_GITHUB = """\
name: onnx-gate
on: {{schedule: [{{cron: "17 2 * * *"}}], workflow_dispatch: {{}}}}
permissions: {{contents: read}}
jobs:
  onnx-gate:
    runs-on: {runner}
    steps:
      - uses: actions/checkout@v4
      - {{uses: actions/setup-python@v5, with: {{python-version: "{python}"}}}}
      - uses: actions/cache/restore@v4
        with: {{path: {cached}, key: "{key}", restore-keys: onnx-gate-}}
      - run: {install}
      - run: {reference}
      - run: {matrix}
      - run: {gate}
      - uses: actions/cache/save@v4
        if: always()
        with: {{path: {cached}, key: "{key}"}}
      - {{uses: actions/upload-artifact@v4, if: always(), with: {{name: onnx, path: {reports}}}}}
"""
_GITLAB = """\
onnx-gate:
  image: python:{python}
  rules: [{{if: $CI_PIPELINE_SOURCE == "schedule"}}]
  cache: {{key: onnx-gate, when: always, paths: [{reports}/history.sqlite, {environment}]}}
  script:
    - {install}
    - {reference}
    - {matrix}
    - {gate}
  allow_failure: {{exit_codes: 3}}
  artifacts: {{when: always, paths: [{reports}/]}}
"""


@dataclass(frozen=True, slots=True)
class Commands:
    """The three commands of a night, and one of the first.

    Attributes:
        reference: makes the pinned reference environment, unless it's up to date.
        matrix: judges and times each cell, there too.
        gate: compares the run with the accepted levels.
        accept: of the first night, once somebody has looked at it.
    """

    reference: str
    matrix: str
    gate: str
    accept: str


@dataclass(frozen=True, slots=True)
class Scaffold:
    """The files of a gate.

    Attributes:
        files: path to text, in the order of their writing.
        commands: of a night.
        omitted: distributions that no lock file can name: they were installed from a folder or an
            address.
    """

    files: Mapping[Path, str]
    commands: Commands
    omitted: tuple[str, ...]


def plan(
    models: Iterable[str], provider: str, reports: Path, *, gitlab: bool, root: Path
) -> Scaffold:
    """Decide the files and commands of a gate; nothing is written.

    Args:
        models: what pytest is to judge: folders, files, cards.
        provider: name of the execution provider.
        reports: folder of the reports, below ``root``.
        gitlab: a pipeline for GitLab instead of a workflow for GitHub.
        root: of the repository.

    Raises:
        UsageError: a path can't stand in a workflow.
    """
    lock, omitted = lock_text(distributions())
    place = _relative(reports, root)
    named = " ".join(shlex.quote(model) for model in models)
    commands = Commands(
        reference=f"onnx-harness gate reference {REFERENCE} --report-dir {place}",
        matrix=f"pytest {named} --provider {provider} --report-dir {place} "
        f"--gate-reference {REFERENCE}",
        gate=f"onnx-harness gate --provider {provider} --report-dir {place}",
        accept=f"onnx-harness gate accept --all --provider {provider} --report-dir {place}",
    )
    workflow = _workflow(commands, provider, place, gitlab=gitlab, root=root)
    file = GITLAB_FILE if gitlab else GITHUB_FILE
    files = {reports / FOLDER / LOCK_NAME: lock, root / file: workflow}
    return Scaffold(files, commands, omitted)


def write(scaffold: Scaffold) -> None:
    """Write the files, all of them or none.

    Raises:
        UsageError: one exists.
        ResultsError: one can't be written.
    """
    for path in scaffold.files:
        if path.exists() or path.is_symlink():
            raise UsageError(
                f"{path} exists, and isn't overwritten; nothing was written. Remove it, or go on "
                "with what is there: a lock file is accepted by `onnx-harness gate accept --lock`, "
                "and another pipeline of GitLab can `include` this one"
            )
    written: list[Path] = []
    for path, text in scaffold.files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, text)
        except OSError as error:
            for earlier in written:
                earlier.unlink(missing_ok=True)
            raise cannot_write("a file of the gate", path, error, "--report-dir") from error
        written.append(path)


def lock_text(installed: Iterable[Distribution]) -> tuple[str, tuple[str, ...]]:
    """Return a lock file of what is installed, and the names that it has to leave out.

    Those have a record of a folder or an address that they were installed from (PEP 610), which
    another machine hasn't got.
    """
    pinned: dict[str, str] = {}
    omitted: set[str] = set()
    for distribution in installed:
        name = re.sub(r"[-_.]+", "-", distribution.name or "").lower()
        if not name or name in _INSTALLERS or name in pinned or name in omitted:
            continue
        if distribution.read_text("direct_url.json"):
            omitted.add(name)
        else:
            pinned[name] = f"{name}=={distribution.version}\n"
    head = (
        "# The versions that the gate's pinned reference is made of: "
        "onnx-harness gate reference.\n"
    )
    return head + "".join(pinned[name] for name in sorted(pinned)), tuple(sorted(omitted))


def _workflow(
    commands: Commands, provider: str, place: str, *, gitlab: bool, root: Path
) -> str:
    requirements = " -r requirements.txt" if (root / "requirements.txt").is_file() else ""
    summary = "" if gitlab else ' --summary "$GITHUB_STEP_SUMMARY"'
    # pytest ends with 1 where cells fail: whether that is news is the gate's matter. A single slow
    # night is the gate's 3: the next one decides.
    verdict = f"{commands.gate}{summary} --issue {place}/issue.md"
    words = {
        "install": f'pip install "onnx-harness[{provider}]"{requirements}',
        "reference": commands.reference,
        "matrix": f"{commands.matrix} || [ $? -eq 1 ]",
        "gate": verdict if gitlab else f"{verdict} || [ $? -eq 3 ]",
    }
    hosted = provider == "cpu"
    return (_GITLAB if gitlab else _GITHUB).format(
        **{name: _yaml(text) for name, text in words.items()},
        runner="ubuntu-24.04" if hosted else f"[self-hosted, linux, {provider}]",
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        reports=place,
        environment=REFERENCE,
        cached=json.dumps(f"{place}/history.sqlite\n{REFERENCE}"),
        key="onnx-gate-${{ github.run_id }}-${{ github.run_attempt }}",
    )


def _yaml(text: str) -> str:
    """Return a text as a YAML scalar; JSON's strings are YAML's.

    Raises:
        UsageError: GitHub would take an expression out of it.
    """
    if "${{" in text:
        raise UsageError(
            f"'{text}' can't stand in a workflow, which would take ${{{{ }}}} out of it"
        )
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _relative(reports: Path, root: Path) -> str:
    try:
        place = reports.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        raise UsageError(
            f"the reports {reports} lie outside {root}, and the accepted levels have to be "
            "committed: run this in the root of the repository"
        ) from None
    if not re.fullmatch(r"[\w./-]+", place):
        raise UsageError(f"the folder {place} can't stand in a workflow: name another")
    return place
