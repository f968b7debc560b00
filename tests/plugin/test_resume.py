"""``--resume``: what an earlier run judged isn't judged again, and what has changed is."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.models import linear, model, save, two_outputs
from tests.plugin.running import Ended, install, run_pytest

pytestmark = pytest.mark.usefixtures("unconfined")  # their transforms write files

CLOCK = Path(__file__).parents[1] / "performance" / "ort_clock"
ARGUMENTS = ("--report-dir=reports", "--resume", "--variant=original", "--variant=simplify")


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where every process says how many sessions it opened."""
    folder = tmp_path / "clock"
    folder.mkdir()
    monkeypatch.setenv("ORT_CLOCK", str(folder))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(CLOCK), os.environ.get("PYTHONPATH", "")])
    )
    return folder


def sessions(clock: Path) -> int:
    """How many sessions were opened since the last call."""
    counted = sum(
        struct.unpack("4d", file.read_bytes())[1] for file in clock.glob("*.clock")
    )
    shutil.rmtree(clock)
    clock.mkdir()
    return int(counted)


def summary(ended: Ended) -> dict[str, str]:
    return {key: cell["status"] for key, cell in ended.cells.items()}


def test_a_second_identical_run_opens_no_session(tmp_path: Path, clock: Path) -> None:
    save(linear(), tmp_path / "lin.onnx")
    (tmp_path / "broken.onnx").write_text("this is no model")
    first = run_pytest(
        tmp_path, "lin.onnx", "broken.onnx", *ARGUMENTS, "--latency-budget=0.2"
    )
    assert sessions(clock) > 0
    before = first.cells
    second = run_pytest(
        tmp_path,
        "lin.onnx",
        "broken.onnx",
        *ARGUMENTS,
        "--latency-budget=0.2",
        "-W",
        "error",
    )
    assert sessions(clock) == 0
    assert second.cells == before
    assert (first.code, second.code) == (pytest.ExitCode.TESTS_FAILED,) * 2
    counts = "2 failed, 2 passed"
    assert counts not in first.told or counts in second.told
    assert "2 models, 4 cells on cpu: 2 pass, 2 fail" in second.told


def test_only_what_changed_is_judged_again(tmp_path: Path, clock: Path) -> None:
    save(linear(), tmp_path / "lin.onnx")
    save(two_outputs(), tmp_path / "two.onnx")
    run_pytest(tmp_path, "lin.onnx", "two.onnx", *ARGUMENTS, "-k=accuracy")
    whole = sessions(clock)
    save(linear(), tmp_path / "two.onnx")
    again = run_pytest(tmp_path, "lin.onnx", "two.onnx", *ARGUMENTS, "-k=accuracy")
    assert 0 < sessions(clock) < whole
    assert set(summary(again).values()) == {"pass"}
    assert (
        again.cells["lin-original-cpu"]["model_sha256"]
        == again.cells["two-original-cpu"]["model_sha256"]
    )


def test_latency_is_taken_where_only_that_is_left(tmp_path: Path) -> None:
    save(linear(), tmp_path / "lin.onnx")
    run_pytest(tmp_path, "lin.onnx", *ARGUMENTS, "-k=accuracy")
    timed = run_pytest(tmp_path, "lin.onnx", *ARGUMENTS, "--latency-budget=0.2")
    assert timed.code == 0, timed.told
    assert all(cell["latency"] for cell in timed.cells.values())


def test_under_xdist_too(tmp_path: Path, clock: Path) -> None:
    save(linear(), tmp_path / "lin.onnx")
    run_pytest(tmp_path, "lin.onnx", *ARGUMENTS, "-k=accuracy", "-n2")
    sessions(clock)
    again = run_pytest(tmp_path, "lin.onnx", *ARGUMENTS, "-k=accuracy")
    assert sessions(clock) == 0
    assert summary(again) == {"lin-original-cpu": "pass", "lin-simplify-cpu": "pass"}


def test_without_a_report_folder_it_is_a_usage_error(tmp_path: Path) -> None:
    save(linear(), tmp_path / "lin.onnx")
    ended = run_pytest(tmp_path, "lin.onnx", "--resume")
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert "--report-dir" in ended.told


FLAKY = """
import os, pathlib, signal
from onnx_harness.transforms import Transform

def apply(model):
    mark = pathlib.Path("tried")
    mark.write_text(mark.read_text() + "x" if mark.exists() else "x")
    if os.environ["CRASHES"] == "always" or mark.read_text() == "x":
        os.kill(os.getpid(), signal.SIGSEGV)
    return model

TRANSFORM = Transform("crashes", apply, {"crashing": {}})
"""


@pytest.mark.parametrize("crashes", ["once", "always"])
def test_a_crash_is_tried_once_more_and_is_flaky_if_it_stays_away(
    tmp_path: Path, crashes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(linear(), tmp_path / "lin.onnx")
    install(tmp_path, FLAKY)
    monkeypatch.setenv("CRASHES", crashes)
    ended = run_pytest(
        tmp_path, "lin.onnx", "--variant=crashing", "-k=accuracy", "--report-dir=reports"
    )
    (cell,) = ended.cells.values()
    assert (cell["status"], cell["symptom"]) == ("fail", "crash")
    assert (tmp_path / "tried").read_text() == "xx"
    assert any(note.startswith("flaky") for note in cell["notes"]) == (crashes == "once")


KNOWN = """
[model]
license = "MIT"
[source]
path = "known.onnx"
[[known_failure]]
variants = ["original"]
stage = "load"
reason = "it is no model"
versions = { onnx = "1" }
"""

SEEN = """
from pathlib import Path
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    with Path("protocol").open("a") as log:
        log.write(item.nodeid + "\\n")
    return (yield)
"""

FIXTURE = """
from pathlib import Path
import pytest

@pytest.fixture(autouse=True)
def seen(request):
    with Path("fixture").open("a") as log:
        log.write(request.node.nodeid + "\\n")
"""


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which cells of every status were judged, and those that pass timed."""
    folder = tmp_path_factory.mktemp("judged")
    save(linear(), folder / "lin.onnx")
    whole = model("(int64[4] x) => (int64[4] y) { y = Neg(x) }")
    save(whole, folder / "whole.onnx")
    for name in ("broken", "known"):
        (folder / f"{name}.onnx").write_text("this is no model")
    (folder / "known.model.toml").write_text(KNOWN)
    (folder / "test_own.py").write_text("def test_own():\n    pass\n")
    run_pytest(folder, *MIXED)
    return folder


MIXED = (
    *("lin.onnx", "test_own.py", "broken.onnx", "known.model.toml", *ARGUMENTS),
    *(
        "whole.onnx",
        "--variant=fp16.io32",
        "--latency-budget=0.1",
        "-v",
        "-rA",
        "--junit-xml=junit.xml",
    ),
)


def told(folder: Path, *more: str) -> tuple[int, str, str, dict[str, Any]]:
    """What a resumed run ends with, prints and writes, without times, places and ids of runs."""
    ended = run_pytest(folder, *more, *MIXED)
    changing = re.compile(
        r'(time|timestamp|hostname)="[^"]*"|\d+\.\d\ds|run \d+t\w+-\w+|/[\w/.-]*/'
    )
    written = changing.sub("", (folder / "junit.xml").read_text("utf-8"))
    return ended.code, changing.sub("", ended.told), written, ended.cells


def test_what_is_done_is_reported_as_its_test_would_report_it(
    judged: Path, tmp_path: Path
) -> None:
    """Another plugin makes each test go through pytest's own protocol, and the run says the same."""
    folders = [shutil.copytree(judged, tmp_path / name / "zoo") for name in "ab"]
    (folders[1] / "seen.py").write_text(SEEN)
    thin, whole = told(folders[0]), told(folders[1], "-p", "seen")
    assert len((folders[1] / "protocol").read_text().splitlines()) == 25
    assert {cell["status"] for cell in whole[3].values()} == {
        "pass",
        "fail",
        "known_failure",
        "not_applicable",
    }
    for one, other in zip(thin, whole, strict=True):
        assert one == other


def test_a_fixture_for_every_test_is_used_by_those_that_are_done(
    judged: Path, tmp_path: Path
) -> None:
    shutil.copytree(judged, tmp_path, dirs_exist_ok=True)
    (tmp_path / "conftest.py").write_text(FIXTURE)
    run_pytest(tmp_path, "lin.onnx", *ARGUMENTS, "-k=accuracy")
    assert len((tmp_path / "fixture").read_text().splitlines()) == 2


DURATIONS = """
from pathlib import Path

def pytest_runtest_logreport(report):
    with Path("durations").open("a") as log:
        log.write(f"{report.duration!r}\\n")
"""


def test_what_is_done_goes_through_no_phase(judged: Path, tmp_path: Path) -> None:
    shutil.copytree(judged, tmp_path, dirs_exist_ok=True)
    (tmp_path / "conftest.py").write_text(DURATIONS)
    run_pytest(tmp_path, "lin.onnx", *ARGUMENTS, "-k=accuracy")
    assert set((tmp_path / "durations").read_text().split()) <= {"0", "0.0"}


TWO_SESSIONS = """
import gc
import sys
import pytest

pytest.main(sys.argv[1:])
after_models = gc.get_freeze_count()
pytest.main(["-q", "test_own.py"])
print("frozen", after_models > 0, gc.get_freeze_count())
"""


def test_no_garbage_is_looked_for_where_nothing_was_judged(
    judged: Path, tmp_path: Path
) -> None:
    """A later session of the same process looks at everything again."""
    shutil.copytree(judged, tmp_path, dirs_exist_ok=True)
    words = [sys.executable, "-c", TWO_SESSIONS, "lin.onnx", *ARGUMENTS, "-k=accuracy"]
    for more, said in (((), "frozen True 0"), (("--variant=optimize",), "frozen False 0")):
        ended = subprocess.run(
            [*words, *more], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert said in ended.stdout
