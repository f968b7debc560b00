"""The release of a package since which a cell fails: a binary search over what pip's index has.

Each release gets a virtual environment of its own, kept in the cache: it holds that one package,
and has everything else from the environment under test. The cell is judged in it by the process
that the gate's pinned reference uses.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import InvalidVersion, Version

from onnx_harness import providers
from onnx_harness.cell.state import Judged, Task
from onnx_harness.diagnose import sentences
from onnx_harness.errors import GateError, UsageError
from onnx_harness.gate.process import EnvironmentProcess, python_of
from onnx_harness.results.cache_root import cache_root
from onnx_harness.results.cells import Status
from onnx_harness.results.diagnosis import Cause, Diagnosis, Spent

_LISTED = re.compile(r"^Available versions:\s*(.+)$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MINUTES = 20
_READY = "ready"


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search over releases.

    Attributes:
        good: the last release that passes; None where all that were tried fail.
        bad: the first one that fails; None where the last one passes.
        tried: what came of each that was tried, in that order.
        untestable: releases that can't be installed here.
    """

    good: str | None
    bad: str | None
    tried: tuple[str, ...]
    untestable: tuple[str, ...] = ()


def first_bad(releases: Sequence[str], fails: Callable[[str], bool | None]) -> Found:
    """Find the first release that fails, where the last one does.

    It goes back in steps that double until one passes, and halves what lies between.

    Args:
        releases: oldest first.
        fails: whether one does; None where that can't be said, and its neighbour is asked.
    """
    state = _State(list(releases), fails)
    last = len(state.releases) - 1
    if last < 0 or not state.fails(last):
        return state.found(last if last >= 0 else None, None)
    bad, step = last, 1
    good: int | None = None
    while good is None and bad > 0:
        place = max(last - step, 0)
        answer = state.near(place, 0, bad)
        if answer is None:
            break
        place, failing = answer
        if failing:
            bad = place
        else:
            good = place
        step *= 2
        if place == 0:
            break
    while good is not None and bad - good > 1:
        answer = state.near((good + bad) // 2, good + 1, bad)
        if answer is None:
            break
        place, failing = answer
        good, bad = (good, place) if failing else (place, bad)
    return state.found(good, bad)


class _State:
    """The knowledge about each release."""

    def __init__(self, releases: list[str], fails: Callable[[str], bool | None]) -> None:
        self.releases = releases
        self._fails = fails
        self._answers: dict[int, bool | None] = {}

    def fails(self, place: int) -> bool | None:
        if place not in self._answers:
            self._answers[place] = self._fails(self.releases[place])
        return self._answers[place]

    def near(self, place: int, low: int, high: int) -> tuple[int, bool] | None:
        """Return the nearest place in [low, high) of which something can be said.

        The second item is whether it fails.
        """
        for candidate in sorted(range(low, high), key=lambda neighbour: abs(neighbour - place)):
            answer = self.fails(candidate)
            if answer is not None:
                return candidate, answer
        return None

    def found(self, good: int | None, bad: int | None) -> Found:
        words = {True: "fails", False: "passes", None: "can't be installed here"}
        return Found(
            None if good is None else self.releases[good],
            None if bad is None else self.releases[bad],
            tuple(
                f"{self.releases[place]}: {words[answer]}"
                for place, answer in self._answers.items()
            ),
            tuple(
                self.releases[place] for place, answer in self._answers.items() if answer is None
            ),
        )


def releases_of(package: str) -> list[str]:
    """Return the releases of a package in pip's index up to the installed one, oldest first.

    Raises:
        UsageError: it isn't installed, or pip knows no release of it.
    """
    if not _NAME.fullmatch(package):
        raise UsageError(f"'{package}' is no name of a package")
    try:
        installed = Version(version(package))
    except PackageNotFoundError:
        raise UsageError(
            f"{package} isn't installed here: there is no release of it that fails"
        ) from None
    ended = _pip(["index", "versions", package])
    match = _LISTED.search(ended.stdout)
    if ended.returncode != 0 or match is None:
        said = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UsageError(f"pip lists no releases of {package}: {said}")
    versions = {installed, *_versions(match[1])}
    return [str(release) for release in sorted(versions) if release <= installed]


def environment_of(package: str, release: str) -> Path:
    """Make the environment that has a release of a package, and return its folder.

    It may be in the cache already.

    Raises:
        GateError: the release can't be installed here.
    """
    folder = cache_root() / "releases" / f"{package}-{release}-{sysconfig.get_python_version()}"
    if (folder / _READY).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    finished = subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--clear", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise GateError(f"no environment can be made in {folder}: {finished.stderr.strip()}")
    python = python_of(folder)
    ended = _pip(
        [
            "--python",
            str(python),
            "install",
            "--no-deps",
            "--only-binary=:all:",
            f"{package}=={release}",
        ]
    )
    if ended.returncode != 0:
        said = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise GateError(f"pip can't install {package} {release}: {said}")
    # After its own packages come those of the environment under test.
    inside = next((folder / "lib").glob("python*")) / "site-packages"
    releases_chosen = []
    for path in sys.path:
        if path.endswith(("site-packages", "dist-packages")):
            releases_chosen.append(path)
    paths = dict.fromkeys(releases_chosen)
    (inside / "environment_under_test.pth").write_text(
        "".join(f"{path}\n" for path in paths), encoding="utf-8"
    )
    (folder / _READY).write_text("", encoding="utf-8")
    return folder


def bisect(task: Task, package: str, releases: Sequence[str] | None = None) -> Diagnosis:
    """Find the release of a package since which a cell fails.

    Args:
        task: the cell.
        package: the distribution's name.
        releases: to search, oldest first; None asks pip.

    Raises:
        UsageError: there are no releases to search.
    """
    chosen = releases_of(package) if releases is None else list(releases)
    reasons: dict[str, str] = {}

    def fails(release: str) -> bool | None:
        try:
            judged = judged_with(task, environment_of(package, release))
        except GateError as error:
            reasons[release] = str(error)
            return None
        reasons[release] = judged.result.reason or "it passes"
        return judged.result.status is Status.FAIL

    bounds = first_bad(chosen, fails)
    lines = []
    for line in bounds.tried:
        lines.append(f"{package} {line} ({reasons[line.partition(':')[0]]})")
    evidence = tuple(lines)
    cause = Cause(release=f"{package} {bounds.bad}" if bounds.bad and bounds.good else None)
    reason = reasons.get(bounds.bad or "", "")
    words = sentences.of_release(task.cell.id, package, bounds.good, bounds.bad, reason)
    return Diagnosis(
        words,
        cause,
        spent=Spent(sessions=len(bounds.tried)),
        evidence=evidence,
        found=cause.release is not None,
    )


def judged_with(task: Task, environment: Path) -> Judged:
    """Return what the packages of an environment make of a cell.

    Raises:
        GateError: the process died, or can't be asked.
    """
    variables = providers.get(task.cell.provider).environment
    with EnvironmentProcess(
        python_of(environment), task.settings.limits, variables, apart=True
    ) as side:
        judged: Judged = side.ask("judge", task, "", environment / "models")
    return judged


def _pip(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60 * _MINUTES,
        check=False,
        env={**os.environ, "PIP_NO_INPUT": "1"},
    )


def _versions(listed: str) -> list[Version]:
    versions = []
    for word in listed.split(","):
        try:
            versions.append(Version(word.strip()))
        except InvalidVersion:
            continue
    return versions
