"""The first bad release, by a binary search over environments that hold a release each."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.diagnose.releases import bisect, first_bad
from onnx_harness.names import Step, Variant
from onnx_harness.settings import Settings
from tests.models import linear, save

RELEASES = [f"1.{number}" for number in range(40)]
MODULE = """
from onnx import numpy_helper
from onnx_harness.transforms import Transform

def spoil(model):
    if {spoils}:
        weight = model.graph.initializer[0]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 2, weight.name))
    return model

TRANSFORM = Transform("planted", spoil, {{"planted": {{}}}})
"""


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
    assert found.untestable


def test_where_every_release_fails_there_is_no_good_one() -> None:
    found = first_bad(RELEASES, lambda _: True)

    assert (found.good, found.bad) == (None, "1.0")


def test_where_the_last_release_passes_there_is_nothing_to_search() -> None:
    assert first_bad(RELEASES, lambda _: False).bad is None


def wheel(folder: Path, release: str, *, spoils: bool) -> None:
    """A release of a package that brings a transform."""
    info = f"planted_release-{release}.dist-info"
    files = {
        "planted_release.py": MODULE.format(spoils=spoils),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: planted-release\nVersion: {release}\n",
        f"{info}/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
        f"{info}/entry_points.txt": "[onnx_harness.transforms]\nplanted = planted_release\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"planted_release-{release}-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


def test_a_cell_is_judged_in_the_environment_of_each_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for number in range(3):
        wheel(wheels, f"1.{number}", spoils=number >= 1)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = save(linear(), tmp_path / "m.onnx")
    cell = Cell(card_for(path), Variant("planted", (Step("planted"),)), "cpu")
    assert "planted_release" not in sys.modules

    diagnosis = bisect(
        Task(cell, path, Settings(input_sets=1)), "planted-release", [f"1.{n}" for n in range(3)]
    )

    assert diagnosis.found, diagnosis.evidence
    assert diagnosis.cause.release == "planted-release 1.1"
    assert "since planted-release 1.1; 1.0 is right" in diagnosis.sentence
