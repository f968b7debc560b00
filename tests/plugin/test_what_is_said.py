"""The account on a terminal: each cause once, in lines that can be read, and no success where
nothing was judged.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_harness.errors import did_you_mean
from onnx_harness.isolate.worker import _gib
from onnx_harness.report.failures import told, wrapped
from onnx_harness.results.cells import Stage, Status
from onnx_harness.results.codec import line_of
from tests.models import linear, model, save
from tests.plugin.running import install, run_pytest
from tests.unit.results_examples import cell

TRANSFORMS = """
from onnx import numpy_helper
from onnx_harness.transforms import Transform

def spoil(model, factor=1.5):
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * factor, tensor.name))
    return model

def trip(model):
    raise RuntimeError("tripped on purpose")

def rename(model):
    model.graph.output[0].name = model.graph.node[-1].output[0] = "z"
    return model

TRANSFORM = (
    Transform(summary="", apply=spoil, forms={"spoil": {}, "spoil.much": {"factor": 2.5}}, options={"factor": float}),
    Transform(summary="", apply=trip, forms={"trip": {}}),
    Transform(summary="", apply=rename, forms={"rename": {}, "rename.again": {}}),
)
"""


def test_twenty_failing_cells_of_three_causes_take_sixty_lines_at_most(
    tmp_path: Path,
) -> None:
    install(tmp_path, TRANSFORMS)
    names = [f"net{number}" for number in range(4)]
    for name in names:
        save(linear(), tmp_path / f"{name}.onnx")
    variants = ["spoil", "spoil.much", "trip", "rename", "rename.again"]
    options = [f"--variant={variant}" for variant in variants]
    ended = run_pytest(
        tmp_path, *(f"{name}.onnx" for name in names), *options, "-k=accuracy"
    )
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    lines = ended.told.splitlines()
    assert len(lines) <= 60, ended.told
    assert "20 fail" in ended.told
    for cause in ("not faithful", "RuntimeError: tripped on purpose", "interface changed"):
        assert sum(line.startswith("FAILED") and cause in line for line in lines) == 1, cause
    assert ended.told.count("  alone: pytest") == 3
    assert "in trip: raise RuntimeError" in ended.told


def test_a_quiet_run_says_one_line_of_ours(tmp_path: Path) -> None:
    save(linear(), tmp_path / "net.onnx")
    ended = run_pytest(
        tmp_path, "net.onnx", "--variant=original", "--variant=simplify", "-k=accuracy", "-q"
    )
    lines = [line for line in ended.told.splitlines() if line and not line.startswith("=")]
    assert "1 model, 2 cells on cpu: 2 pass" in lines
    assert not any(line.startswith("  simplify") for line in lines)


def test_a_model_of_which_nothing_is_judged_is_no_success(tmp_path: Path) -> None:
    noisy = model("(float[2,4] x) => (float[2,4] y) { y = RandomNormalLike(x) }")
    save(noisy, tmp_path / "noisy.onnx")
    save(linear(), tmp_path / "net.onnx")
    ended = run_pytest(
        tmp_path, "noisy.onnx", "net.onnx", "--variant=original", "-k=accuracy"
    )
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    said = " ".join(ended.told.split())
    assert "noisy: no cell was judged, so the run isn't a success: " in said
    assert (
        "Mend: `[random] seed = 0` in noisy.model.toml next to the model. That was tried"
        in said
    )


def test_lines_wrap_at_words_and_hang() -> None:
    text = "the output departs from the reference " * 6
    for width in (80, 100):
        lines = wrapped(text, width, "  ")
        assert all(len(line) <= width for line in lines)
        assert all(line.startswith("    ") for line in lines[1:])
    command = "alone: pytest " + "x" * 200
    assert wrapped(command, 80) == [command]


def test_a_cause_begins_with_its_reason_and_counts_its_cells() -> None:
    failing = [
        cell(
            variant,
            status=Status.FAIL,
            stage=Stage.LOAD,
            reason="m.onnx is empty (0 bytes)",
            accuracy=None,
        )
        for variant in ("original", "simplify", "optimize")
    ]
    (cause,) = told(failing, 80)
    assert cause.summary == "3 cells: m.onnx is empty (0 bytes)"
    assert f"the same: {failing[1].id}, {failing[2].id}" in " ".join(cause.lines)


def test_capitals_are_no_other_word_and_sizes_have_their_unit() -> None:
    assert did_you_mean("CPU", ["cpu", "cuda"]).startswith("Did you mean 'cpu'?")
    assert [_gib(size) for size in (10 * 2**20, 3 * 2**30, 2**19)] == [
        "10.0 MiB",
        "3.0 GiB",
        "512.0 KiB",
    ]


def test_a_mend_is_never_left_out_however_it_is_spelt_and_wrapped() -> None:
    mend = (
        f"mend: `--variant fp16.mixed` keeps "
        f"{' and '.join(f'node_{place}' for place in range(20))} in float32"
    )
    detail = (
        *(f"figure {place}" for place in range(30)),
        mend,
        "more",
        "alone: pytest m.onnx",
    )
    departs = cell(
        "fp16.io32",
        status=Status.FAIL,
        stage=Stage.COMPARE,
        reason="it departs",
        detail=detail,
    )
    [cause] = told([departs], 80)
    assert " ".join(" ".join(cause.lines).split()).count(mend) == 1
    assert cause.lines[-1].endswith("alone: pytest m.onnx")
    shown = sum("figure " in line for line in cause.lines)
    assert any(f"({30 - shown + 1} lines left out here; " in line for line in cause.lines)
    [verbose] = told([departs], 80, whole=True)
    assert sum("figure " in line for line in verbose.lines) == 30
    assert not any("left out" in line for line in verbose.lines)


@pytest.mark.parametrize("verbose", [False, True])
def test_verbose_failures_have_every_line(pytester: pytest.Pytester, verbose: bool) -> None:
    """A cell that a test made itself, so that no model has to be judged."""
    detail = tuple(f"figure {place}" for place in range(30))
    failing = cell(
        "simplify",
        status=Status.FAIL,
        stage=Stage.COMPARE,
        reason="it departs",
        detail=detail,
    )
    pytester.makeconftest(
        f"""
        import pytest

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_makereport(item, call):
            report = yield
            if report.when == "call":
                report.onnx_own_results = [{line_of(failing)!r}]
            return report
        """
    )
    pytester.makepyfile("def test_it(): assert False")
    result = pytester.runpytest_inprocess(*(["-v"] if verbose else []))
    shown = sum(line.strip().startswith("figure ") for line in result.outlines)
    assert (shown == 30) == verbose
    assert ("lines left out here" in result.stdout.str()) != verbose


OWN_TEST = "def test_it(onnx_verify): onnx_verify('lin.onnx')"


@pytest.mark.parametrize(
    "arguments",
    [
        ["lin.onnx", "-k=accuracy"],
        ["lin.onnx", "-k=accuracy", "-n2"],
        ["test_own.py"],
    ],
    ids=["alone", "under xdist", "by a test of one's own"],
)
def test_a_cache_that_cannot_be_written_is_told_once_and_costs_no_verdict(
    tmp_path: Path, arguments: list[str]
) -> None:
    cache = tmp_path / ".cache"
    cache.mkdir()
    (cache / "artifacts").touch()  # stands where the folder should be
    save(linear(), tmp_path / "lin.onnx")
    (tmp_path / "test_own.py").write_text(OWN_TEST)
    variants = ("--variant=original", "--variant=simplify")
    ended = run_pytest(tmp_path, *arguments, *variants, "--report-dir=reports")
    assert ended.code == pytest.ExitCode.OK, ended.told
    assert ended.told.count("onnx-harness: Going on without a cache.") == 1
    assert {cell["status"] for cell in ended.cells.values()} == {"pass"}
    assert not any(cell["notes"] for cell in ended.cells.values())
