"""The release of a package since which a cell fails: a binary search over what pip's index has.

Each release gets an environment of its own. The cell is judged in it by the process that the gate's
pinned reference uses. A release where the cell fails in another way, or isn't judged at all, says
nothing about the failure that is searched for: the search passes it over, as ``git bisect skip``
does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnx_harness import providers
from onnx_harness.cell.state import Judged, Task
from onnx_harness.diagnose import apart, sentences
from onnx_harness.diagnose.found_releases import remember
from onnx_harness.diagnose.release_environments import environment_of, releases_of
from onnx_harness.diagnose.trials import Outcome, same_failure
from onnx_harness.errors import GateError, SideDied
from onnx_harness.gate.process import EnvironmentProcess, python_of
from onnx_harness.isolate import RISK
from onnx_harness.results.cells import Stage, Status
from onnx_harness.results.diagnosis import Cause, Diagnosis, Spent


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search over releases.

    Attributes:
        good: the last release that passes; None where none of those that can be judged does.
        bad: the oldest one after it that fails; None where the last release doesn't.
        tried: the releases that were tried, in that order, with whether each fails; None where that
            can't be said.
        between: releases between ``good`` and ``bad``, or before ``bad``, of which nothing can be
            said.
    """

    good: str | None
    bad: str | None
    tried: tuple[tuple[str, bool | None], ...]
    between: tuple[str, ...] = ()


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
        passes = last >= 0 and state.fails(last) is False
        return state.found(last if passes else None, None)
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
        for candidate in sorted(
            range(low, high), key=lambda neighbour: abs(neighbour - place)
        ):
            answer = self.fails(candidate)
            if answer is not None:
                return candidate, answer
        return None

    def found(self, good: int | None, bad: int | None) -> Found:
        between = []
        for place in range(-1 if good is None else good, 0 if bad is None else bad):
            if place >= 0 and self._answers.get(place, False) is None:
                between.append(self.releases[place])
        return Found(
            None if good is None else self.releases[good],
            None if bad is None else self.releases[bad],
            tuple((self.releases[place], answer) for place, answer in self._answers.items()),
            tuple(between),
        )


class _Judge:
    """Judges a cell with releases of a package, and compares its failures with the last one's.

    Attributes:
        failure: of the release that was judged first, which is the installed one.
        reasons: of what came of each release, by release.
        sessions: how many releases were judged.
    """

    def __init__(self, task: Task, package: str) -> None:
        self._task, self._package = task, package
        self.failure: Outcome | None = None
        self.reasons: dict[str, str] = {}
        self.sessions = 0

    def fails(self, release: str) -> bool | None:
        """Return whether the cell fails as with the first release that was asked for.

        None: the release says nothing about that failure.
        """
        outcome = self._outcome(release)
        if outcome is None:
            return None
        self.reasons[release] = outcome.reason or ""
        if outcome.status is Status.PASS:
            return False
        if not outcome.fails:
            return None
        if self.failure is None:
            self._look_for(outcome)
            return True
        if same_failure(self.failure, outcome):
            return True
        self.reasons[release] = f"it fails otherwise, at {outcome.stage}: {outcome.reason}"
        return None

    def _look_for(self, failure: Outcome) -> None:
        self.failure = failure
        # ONNX Runtime records placements since 1.24. Of a failure that is none of placement, older
        # releases can be judged without that proof.
        self._task = replace(
            self._task, unproven_placement=failure.stage is not Stage.PLACEMENT
        )

    def _outcome(self, release: str) -> Outcome | None:
        try:
            environment = environment_of(self._package, release)
            self.sessions += 1
            result = judged_with(self._task, environment).result
        except SideDied as death:
            return self._of_death(release, death)
        except GateError as error:
            self.reasons[release] = str(error)
            return None
        return Outcome(result.status, result.stage, result.reason, result.symptom)

    def _of_death(self, release: str, death: SideDied) -> Outcome | None:
        """Return the failure that a process died of; None where it hadn't begun with the cell."""
        if not death.stage or death.stage.startswith(RISK):
            self.reasons[release] = death.what
            return None
        seconds = self._task.settings.limits.seconds
        return apart.of_note(
            death.stage, apart.too_long(seconds) if death.late else death.what
        )


def bisect(task: Task, package: str, releases: Sequence[str] | None = None) -> Diagnosis:
    """Find the release of a package since which a cell fails.

    The failure is that of the newest release: with the same symptom, at the same stage and in the
    same manner.

    Args:
        task: the cell.
        package: the distribution's name.
        releases: to search, oldest first; None asks pip.

    Raises:
        UsageError: there are no releases to search.
    """
    started = time.monotonic()
    chosen = releases_of(package) if releases is None else list(releases)
    judge = _Judge(task, package)
    bounds = first_bad(chosen, judge.fails)
    evidence = []
    for release, answer in bounds.tried:
        evidence.append(f"{package} {release}: {_in_words(answer, judge.reasons[release])}")
    cause = Cause(release=f"{package} {bounds.bad}" if bounds.bad and bounds.good else None)
    shown = bounds.bad or (chosen[-1] if chosen else "")
    if bounds.bad and bounds.good and judge.failure is not None:
        remember(task, package, bounds.bad, judge.failure)
    words = sentences.of_release(task.cell.id, package, bounds, judge.reasons.get(shown, ""))
    return Diagnosis(
        words,
        cause,
        spent=Spent(sessions=judge.sessions, seconds=round(time.monotonic() - started, 3)),
        evidence=tuple(evidence),
        found=cause.release is not None,
    )


def _in_words(answer: bool | None, reason: str) -> str:
    """Return what came of a release."""
    if answer is None:
        return f"can't be judged ({reason})"
    return f"fails ({reason})" if answer else "passes"


def judged_with(task: Task, environment: Path) -> Judged:
    """Return what the packages of an environment make of a cell.

    Raises:
        SideDied: the process died of the cell, or takes too long.
        GateError: it can't be asked.
    """
    variables = providers.get(task.cell.provider).environment
    with EnvironmentProcess(
        python_of(environment), task.settings.limits, variables, apart=True
    ) as side:
        side.take_notes()
        judged: Judged = side.ask("judge", task, "", environment / "models")
    return judged
