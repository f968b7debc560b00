"""The first bad releases that earlier searches found: a diagnosis names them again.

A search over releases takes minutes and is asked for by itself. Its answer holds for the failure
that it was of, as long as the package is installed in the version that it started from.
"""

from __future__ import annotations

import json
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from onnx_harness.cell.state import Task
from onnx_harness.diagnose.trials import Outcome
from onnx_harness.errors import ResultsError
from onnx_harness.model.file import Model
from onnx_harness.results.cache import Cache
from onnx_harness.results.workbench import workbench

_KIND, _FILE = "first_bad_release", "releases.json"

Answers = dict[str, dict[str, str]]
"""By package: its installed version, its first bad release, and marks of the failure."""


def remember(
    task: Task,
    package: str,
    release: str,
    failure: Outcome,
) -> None:
    """Keep the answer of a search; a cache that can't be written keeps none.

    Args:
        task: the cell.
        package: the distribution's name.
        release: its first version that fails.
        failure: of the installed version.
    """
    installed = _installed(package)
    if installed is None:
        return
    answers = _answers(task)
    answers[package] = {"installed": installed, "release": release, **_marks(failure)}
    cache, key = workbench().cache, _key(task)
    cache.drop(_KIND, key)

    def write(folder: Path) -> None:
        (folder / _FILE).write_text(json.dumps(answers), encoding="utf-8")

    with suppress(ResultsError):
        cache.put(_KIND, key, write)


def found_release(task: Task, failure: Outcome) -> str | None:
    """Return the first bad release that a search found for this failure of a cell.

    Args:
        task: the cell.
        failure: as it fails now.

    Returns:
        As ``onnxoptimizer 0.3.13``; None where nobody has searched, where the cell fails otherwise
        now, or where another version is installed.
    """
    for package, answer in _answers(task).items():
        same = all(answer.get(mark) == value for mark, value in _marks(failure).items())
        if same and answer.get("installed") == _installed(package):
            return f"{package} {answer['release']}"
    return None


def _marks(failure: Outcome) -> dict[str, str]:
    """Return what two failures have in common that are the same."""
    return {
        "stage": failure.stage.value,
        "symptom": "" if failure.symptom is None else failure.symptom.value,
        "manner": failure.manner,
    }


def _answers(task: Task) -> Answers:
    entry = workbench().cache.get(_KIND, _key(task))
    if entry is None:
        return {}
    answers: Answers = json.loads((entry / _FILE).read_text(encoding="utf-8"))
    return answers


def _key(task: Task) -> str:
    cell = task.cell
    return Cache.key(Model(task.model).sha256, cell.variant.spelling, cell.provider)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
