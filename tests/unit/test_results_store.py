"""results.json: whole at every moment, cheap to add to, and read back as it was."""

import dataclasses
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from onnx_harness.errors import ResultsError
from onnx_harness.results import codec
from onnx_harness.results.cells import AccuracyRecord, CellResult, Stage, Status
from onnx_harness.results.run import gather
from onnx_harness.results.store import ResultsWriter, read_results
from tests.nights import pinned
from tests.schemas import violations
from tests.unit.results_examples import RUN, cell, full_latency, latency, output

SCHEMA = json.loads((Path(codec.__file__).parent / "results.schema.json").read_text("utf-8"))
ROOT = Path(__file__).parents[2]
WRITES_UNTIL_KILLED = """
import sys
from pathlib import Path
from onnx_harness.results.store import ResultsWriter
from tests.unit.results_examples import RUN, cell, full_latency, latency
writer = ResultsWriter(Path(sys.argv[1]), RUN)
for number in range(10**6):
    # Some are longer than a page, and some come again with their latency, in time or late.
    detail = ("x" * (20_000 if number % 7 == 0 else 10),)
    writer.put(cell(f"v{number}", detail=detail))
    print(number, flush=True)
    if number % 3 == 2:
        writer.put(cell(f"v{number - number % 5}", latency=latency(), detail=("x" * (number % 500),)))
"""


def on_disk(folder: Path) -> list[str]:
    return [
        cell["id"] for cell in json.loads((folder / "results.json").read_text())["cells"]
    ]


def test_the_file_is_whole_from_the_first_moment_and_after_every_cell(
    tmp_path: Path,
) -> None:
    writer = ResultsWriter(tmp_path / "new", RUN)
    assert on_disk(tmp_path / "new") == []
    for number in range(5):
        writer.put(cell(f"v{number}"))
        assert on_disk(tmp_path / "new") == [f"net-v{k}-cpu" for k in range(number + 1)]
    writer.finish()
    assert read_results(tmp_path / "new").cells == tuple(cell(f"v{k}") for k in range(5))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["results.json"]


@pytest.mark.parametrize("which", [0, 1, 4])
@pytest.mark.parametrize("detail", [(), ("much " * 1000,)], ids=["fits", "outgrows"])
def test_a_cell_put_again_replaces_the_first_in_its_place(
    tmp_path: Path, which: int, detail: tuple[str, ...]
) -> None:
    expected = [cell(f"v{number}") for number in range(5)]
    writer = ResultsWriter(tmp_path, RUN)
    for each in expected:
        writer.put(each)
    for newer in (
        cell(f"v{which}", latency=latency(), detail=detail),
        cell(f"v{which}", latency=latency()),
    ):
        expected[which] = newer
        writer.put(newer)
        assert read_results(tmp_path).cells == tuple(expected)
    writer.put(cell("last"))
    writer.finish()
    assert read_results(tmp_path).cells == (*expected, cell("last"))


def test_a_run_killed_at_any_moment_loses_at_most_the_cell_in_hand(tmp_path: Path) -> None:
    moments = random.Random(0)
    for attempt in range(12):
        folder = tmp_path / str(attempt)
        with subprocess.Popen(
            [sys.executable, "-c", WRITES_UNTIL_KILLED, folder],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(moments.uniform(0, 0.15))
            writer.send_signal(signal.SIGKILL)
            finished = 1 + len(writer.stdout.read().splitlines())
        found = [each.variant for each in read_results(folder).cells]
        assert found[:finished] == [f"v{number}" for number in range(finished)]
        assert len(found) - finished <= 1


def test_the_next_run_takes_over_the_folder_of_a_killed_one(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITES_UNTIL_KILLED, tmp_path],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    ) as killed:
        assert killed.stdout is not None
        killed.stdout.readline()
        killed.kill()
    writer = ResultsWriter(tmp_path, RUN)
    assert on_disk(tmp_path) != []  # the killed run's, until there is a verdict
    writer.put(cell("simplify"))
    writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert on_disk(tmp_path) == [cell("simplify").id]


def test_a_thousand_cells_more_cost_what_they_weigh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    pwrite = os.pwrite

    def count(handle: int, data: bytes, offset: int) -> int:
        nonlocal written
        written += len(data)
        return pwrite(handle, data, offset)

    monkeypatch.setattr(os, "pwrite", count)
    costs, weights = [], []
    for cells in (500, 1000, 2000):
        written, folder = 0, tmp_path / str(cells)
        writer = ResultsWriter(folder, RUN)
        for number in range(cells):
            writer.put(cell(f"v{number}"))
        for number in range(cells):
            writer.put(cell(f"v{number}", latency=latency()))
        costs.append(written)
        weights.append((folder / "results.json").stat().st_size)
        writer.close()
    assert costs == pytest.approx([4 * weight for weight in weights], rel=0.1)
    assert costs[2] == pytest.approx(4 * costs[0], rel=0.02)


def test_a_second_run_is_refused_while_the_first_writes(tmp_path: Path) -> None:
    first = ResultsWriter(tmp_path, RUN)
    with pytest.raises(
        ResultsError, match=r"another run is writing its results in .*--report-dir"
    ):
        ResultsWriter(tmp_path, RUN)
    first.put(cell())
    first.finish()
    ResultsWriter(tmp_path, RUN).finish()


def test_a_full_disk_is_an_error_and_the_file_stays_whole(tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path, RUN)
    writer.put(cell("v0"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
        with pytest.raises(
            ResultsError,
            match=r"results.json can't be written at .*MB free.*Mend: .*--report-dir",
        ):
            writer.put(cell("v1", detail=("x" * 5000,)))
        assert on_disk(tmp_path) == ["net-v0-cpu"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    writer.put(cell("v2"))
    assert on_disk(tmp_path) == ["net-v0-cpu", "net-v1-cpu", "net-v2-cpu"]
    writer.finish()
    assert on_disk(tmp_path) == ["net-v0-cpu", "net-v1-cpu", "net-v2-cpu"]


def test_a_folder_that_is_a_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "reports").touch()
    with pytest.raises(
        ResultsError, match=r"can't be written at .*reports.*move it away.*--report-dir"
    ):
        ResultsWriter(tmp_path / "reports", RUN)


def test_a_file_system_without_hard_links_gets_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    writer = ResultsWriter(tmp_path, RUN)
    for number in range(3):
        writer.put(cell(f"v{number}"))
    assert on_disk(tmp_path) == ["net-v0-cpu", "net-v1-cpu", "net-v2-cpu"]
    writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_figures_that_json_cannot_say_are_null(tmp_path: Path) -> None:
    strange = cell(
        accuracy=AccuracyRecord(1, {"y": output(float("inf"), max_abs=float("nan"))})
    )
    writer = ResultsWriter(tmp_path, RUN)
    writer.put(strange)
    writer.finish()
    [found] = json.loads(
        (tmp_path / "results.json").read_text(), parse_constant=pytest.fail
    )["cells"]
    assert found["accuracy"]["outputs"]["y"]["minimum_tolerance"] is None
    assert found["accuracy"]["outputs"]["y"]["max_abs"] is None


def test_names_from_a_hostile_model_survive_the_way_to_disk_and_back(tmp_path: Path) -> None:
    hostile = cell(
        reason='"]}\n\x00\x1b[31m\u2028\ud800', accuracy=AccuracyRecord(1, {'"}]': output()})
    )
    writer = ResultsWriter(tmp_path, RUN)
    writer.put(hostile)
    writer.put(cell("other"))
    writer.finish()
    assert read_results(tmp_path).cells == (hostile, cell("other"))


def test_what_was_written_is_read_back_as_it_was(tmp_path: Path) -> None:
    known = cell(
        "fp16",
        status=Status.KNOWN_FAILURE,
        stage=Stage.SESSION,
        reason="it does",
        accuracy=None,
        graph=None,
    )
    timed = cell(
        "simplify",
        latency=latency(ci95=None),
        notes=("a note",),
        detail=("one", "two"),
        opset=17,
    )
    run = gather("pytest 'a b.onnx'", 3)
    writer = ResultsWriter(tmp_path, run)
    writer.put(known)
    writer.put(timed)
    writer.finish()
    results = read_results(tmp_path / "results.json")
    assert results.run == run
    assert results.cells == (known, timed)


def test_fields_come_in_their_declared_order(tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path, RUN)
    writer.put(cell())
    writer.finish()
    [found] = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert list(found) == [field.name for field in dataclasses.fields(CellResult)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"schema": 1, "run": {', "isn't whole JSON"),
        ("", "isn't whole JSON"),
        ("[1, 2]", "isn't a results file"),
        (
            '{"schema": 2, "run": {}, "cells": []}',
            "has schema 2, and this version of onnx-harness reads 1",
        ),
        ('{"schema": 1, "run": {}, "cells": []}', r"run\.id is missing"),
        ('{"schema": 1, "run": {}, "cells": {}}', "cells should be a list"),
        ("[" * 100_000, "isn't whole JSON"),
    ],
)
def test_a_file_that_is_not_ours_is_told_so(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=complaint):
        read_results(path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"status": "passed"},
            r"cells\[0\]\.status should be one of pass, fail, .* and is 'passed'",
        ),
        ({"graph": 3}, r"cells\[0\]\.graph should be an object, and is 3"),
        ({"notes": [1]}, r"cells\[0\]\.notes\[0\] should be text, and is 1"),
        (
            {"seconds": {"run": True}},
            r"cells\[0\]\.seconds\['run'\] should be a number, and is True",
        ),
        (
            {"seconds": {"run": False}},
            r"cells\[0\]\.seconds\['run'\] should be a number, and is False",
        ),
        ({"seconds": []}, r"cells\[0\]\.seconds should be an object"),
    ],
)
def test_a_field_of_another_type_is_named(
    tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    value = {
        "schema": 1,
        "run": codec.encode(RUN),
        "cells": [{**codec.encode(cell()), **change}],
    }
    (tmp_path / "results.json").write_text(json.dumps(value))
    with pytest.raises(ResultsError, match=complaint):
        read_results(tmp_path)


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    value = {
        "schema": 1,
        "run": codec.encode(RUN),
        "cells": [{**codec.encode(cell()), "mood": "good"}],
        "more": 1,
    }
    (tmp_path / "results.json").write_text(json.dumps(value))
    assert read_results(tmp_path).cells == (cell(),)


def test_a_missing_file_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"results\.json can't be read: No such file"):
        read_results(tmp_path)


def test_numpy_figures_are_written_as_plain_ones() -> None:
    import numpy as np

    assert codec.encode(
        [np.float32(0.5), np.int64(3), np.bool_(True), np.float64("nan")]
    ) == [
        0.5,
        3,
        True,
        None,
    ]


def test_results_follow_the_published_schema_and_it_lists_every_field(
    tmp_path: Path,
) -> None:
    writer = ResultsWriter(tmp_path, gather("pytest", 0))
    writer.put(
        cell(
            "full", latency=full_latency(), notes=("n",), detail=("d",), reason="r", opset=12
        )
    )
    writer.put(cell("slow", latency=latency(), pinned=pinned(1.06)))
    writer.put(cell("void", latency=latency(), pinned=pinned(1.06, pairs=3)))
    writer.put(CellResult("m-v-p", "m", "", "v", "p", Status.ERROR, Stage.LOAD))
    writer.finish()
    assert (
        violations(json.loads((tmp_path / "results.json").read_text()), SCHEMA, SCHEMA) == []
    )


def test_the_schema_lists_the_statuses_and_stages_there_are() -> None:
    properties = SCHEMA["$defs"]["cell"]["properties"]
    assert properties["status"]["enum"] == [*Status]
    assert properties["stage"]["enum"] == [*Stage]


def test_gathering_what_is_known_about_a_run_imports_no_library_that_it_names() -> None:
    code = """
import sys
from onnx_harness.results.run import gather
run = gather("pytest", 0)
print(run.versions["onnx"], run.host.cores > 0, bool({"onnx", "onnxruntime", "numpy"} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[1:] == ["True", "False"]
