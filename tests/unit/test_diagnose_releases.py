"""The first bad release, by a binary search over environments that hold a release each."""

from __future__ import annotations

import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.placement import prove_placement
from onnx_harness.cell.state import Task, Way
from onnx_harness.diagnose.releases import bisect, first_bad
from onnx_harness.errors import ProviderError
from onnx_harness.names import Step, Variant
from onnx_harness.results.diagnosis import Diagnosis
from onnx_harness.settings import Settings
from tests.models import linear, save

if TYPE_CHECKING:
    import onnxruntime as ort

RELEASES = [f"1.{number}" for number in range(40)]
MODULE = """
from onnx import numpy_helper
from onnx_harness.transforms import Transform

def planted(model):
    weight = model.graph.initializer[0]
    {effect}
    return model

TRANSFORM = Transform("planted", planted, {{"planted": {{}}}})
"""
SPOILS = "weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 2, weight.name))"
RIGHT, RAISES = "pass", "raise ValueError('planted')"
DIES = "import os; os.kill(os.getpid(), 11)"
HANGS = "import time; time.sleep(60)"
USES_HELPER = "import planted_helper"
NOT_IMPORTED = "import nowhere"


@pytest.mark.parametrize("first", range(1, 40))
def test_the_first_bad_release_takes_few_trials(first: int) -> None:
    found = first_bad(RELEASES, lambda release: RELEASES.index(release) >= first)

    assert (found.good, found.bad) == (RELEASES[first - 1], RELEASES[first])
    assert len(found.tried) <= 13


def test_releases_that_cannot_be_installed_are_passed_over() -> None:
    def fails(release: str) -> bool | None:
        number = RELEASES.index(release)
        return None if number % 3 else number >= 21

    found = first_bad(RELEASES[:40], fails)

    assert (found.good, found.bad) == ("1.18", "1.21")
    assert found.between == ("1.19", "1.20")


def test_where_every_release_fails_there_is_no_good_one() -> None:
    found = first_bad(RELEASES, lambda _: True)

    assert (found.good, found.bad) == (None, "1.0")


def test_where_the_last_release_passes_there_is_nothing_to_search() -> None:
    found = first_bad(RELEASES, lambda _: False)

    assert (found.good, found.bad) == (RELEASES[-1], None)


def test_where_nothing_can_be_said_of_the_last_release_it_does_not_pass() -> None:
    found = first_bad(RELEASES, lambda _: None)

    assert (found.good, found.bad) == (None, None)


def wheel(folder: Path, release: str, effect: str, *, requires: str = "") -> None:
    """A release of a package that brings a transform."""
    required = f"Requires-Dist: {requires}\n" if requires else ""
    info = f"planted_release-{release}.dist-info"
    module = effect if effect == NOT_IMPORTED else MODULE.format(effect=effect)
    files = {
        "planted_release.py": module,
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: planted-release\nVersion: {release}\n{required}"
        ),
        f"{info}/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
        f"{info}/entry_points.txt": "[onnx_harness.transforms]\nplanted = planted_release\n",
    }
    write_wheel(folder / f"planted_release-{release}-py3-none-any.whl", info, files)


def write_wheel(path: Path, info: str, files: dict[str, str]) -> None:
    """A wheel of those files."""
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


def planted_helper(folder: Path) -> None:
    """A package that a planted release may require."""
    info = "planted_helper-1.0.dist-info"
    files = {
        "planted_helper.py": "FACTOR = 1\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: planted-helper\nVersion: 1.0\n",
        f"{info}/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    write_wheel(folder / "planted_helper-1.0-py3-none-any.whl", info, files)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip finds releases in."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert "planted_release" not in sys.modules
    return folder


def searched(folder: Path, count: int, **settings: Any) -> Diagnosis:
    """The search over that many planted releases."""
    path = save(linear(), folder / "m.onnx")
    cell = Cell(card_for(path), Variant("planted", (Step("planted"),)), "cpu")
    releases = [f"1.{number}" for number in range(count)]
    task = Task(cell, path, Settings(input_sets=1, **settings))
    return bisect(task, "planted-release", releases)


def test_a_cell_is_judged_in_the_environment_of_each_release(wheels: Path) -> None:
    for number in range(3):
        wheel(wheels, f"1.{number}", SPOILS if number >= 1 else RIGHT)

    diagnosis = searched(wheels.parent, 3)

    assert diagnosis.found, diagnosis.evidence
    assert diagnosis.cause.release == "planted-release 1.1"
    assert "since planted-release 1.1; 1.0 is right" in diagnosis.sentence
    assert diagnosis.spent.sessions == 3
    assert diagnosis.spent.seconds > 0


def test_releases_that_fail_otherwise_or_cannot_be_imported_are_no_answer(
    wheels: Path,
) -> None:
    for number, effect in enumerate([RIGHT, NOT_IMPORTED, RAISES, SPOILS]):
        wheel(wheels, f"1.{number}", effect)

    diagnosis = searched(wheels.parent, 4)

    assert diagnosis.cause.release == "planted-release 1.3"
    assert (
        "1.0 is right, and what lies between can't be judged (1.1, 1.2)"
        in diagnosis.sentence
    )
    lines = {line.split(":")[0]: line for line in diagnosis.evidence}
    assert "can't be judged (" in lines["planted-release 1.1"]
    assert (
        "can't be judged (it fails otherwise, at transform" in lines["planted-release 1.2"]
    )
    assert lines["planted-release 1.0"] == "planted-release 1.0: passes"


def test_the_release_since_which_the_process_dies_is_found(wheels: Path) -> None:
    for number, effect in enumerate([RIGHT, DIES, DIES, DIES]):
        wheel(wheels, f"1.{number}", effect)

    diagnosis = searched(wheels.parent, 4)

    assert diagnosis.cause.release == "planted-release 1.1", diagnosis.evidence
    assert "the process died of signal 11" in diagnosis.sentence


def test_a_release_that_dies_is_no_answer_where_another_raises(wheels: Path) -> None:
    for number, effect in enumerate([RIGHT, DIES, RAISES]):
        wheel(wheels, f"1.{number}", effect)

    diagnosis = searched(wheels.parent, 3)

    assert diagnosis.cause.release == "planted-release 1.2"
    lines = {line.split(":")[0]: line for line in diagnosis.evidence}
    assert (
        "can't be judged (it fails otherwise, at transform" in lines["planted-release 1.1"]
    )


def test_the_release_since_which_a_step_never_ends_is_found(wheels: Path) -> None:
    for number, effect in enumerate([RIGHT, HANGS]):
        wheel(wheels, f"1.{number}", effect)

    diagnosis = searched(wheels.parent, 2, cell_timeout=8.0)

    assert diagnosis.cause.release == "planted-release 1.1", diagnosis.evidence
    assert "did not end within 8 s" in diagnosis.sentence


def test_where_no_older_release_can_be_judged_nothing_is_found(wheels: Path) -> None:
    wheel(wheels, "1.0", NOT_IMPORTED)
    wheel(wheels, "1.1", SPOILS)

    diagnosis = searched(wheels.parent, 2)

    assert not diagnosis.found
    assert diagnosis.cause.release is None
    assert (
        "the oldest of them, 1.1, fails too (1 older one can't be judged)"
        in diagnosis.sentence
    )


def test_a_requirement_that_the_environment_lacks_is_installed(wheels: Path) -> None:
    wheel(wheels, "1.0", USES_HELPER, requires="planted-helper>=1.0")
    wheel(wheels, "1.1", SPOILS, requires="numpy<1; python_version >= '3'")
    planted_helper(wheels)

    diagnosis = searched(wheels.parent, 2)

    assert diagnosis.cause.release == "planted-release 1.1", diagnosis.evidence


def test_releases_without_a_record_of_placements_are_judged_where_that_is_allowed() -> None:
    class OldSession:
        """A session of ONNX Runtime before 1.24."""

    task = Task(
        Cell(card_for(Path("m.onnx")), Variant("original", ()), "cpu"),
        Path("m.onnx"),
        Settings(),
    )
    way = Way(task)
    session = cast("ort.InferenceSession", OldSession())

    with pytest.raises(ProviderError, match="can't be proven"):
        prove_placement(way, session)

    way.task = replace(task, unproven_placement=True)
    assert not prove_placement(way, session)
