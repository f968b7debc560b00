"""Models, cards and disks that are not as they should be: a clear end for the cell concerned, and
for no other.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.models import linear, model, save, with_external_data
from tests.plugin.running import Ended, run_pytest

Make = Callable[[Path], object]

# May nothing read a file that its owner locked? Root may, but not without these capabilities.
UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def truncated(path: Path) -> None:
    data = linear().SerializeToString()
    path.write_bytes(data[: len(data) // 2])


def missing_data(path: Path) -> None:
    with_external_data(path, "weights.bin")
    (path.parent / "weights.bin").unlink()


def data_outside(path: Path) -> None:
    (path.parent.parent / "secret.bin").write_bytes(bytes(4 * 64))
    with_external_data(path, "inside.bin")
    made = onnx.load(path, load_external_data=False)
    made.graph.initializer[0].external_data[0].value = "../secret.bin"
    path.write_bytes(made.SerializeToString())


def linked_outside(path: Path) -> None:
    (path.parent.parent / "linked.bin").write_bytes(bytes(4 * 64))
    with_external_data(path, "link.bin")
    (path.parent / "link.bin").unlink()
    (path.parent / "link.bin").symlink_to("../linked.bin")


def locked(path: Path) -> None:
    save(linear(), path).chmod(0)


def wrong_hash(path: Path) -> None:
    save(linear(), path)
    path.with_suffix(".model.toml").write_text(
        f'[source]\npath = "{path.name}"\nsha256 = "{"0" * 64}"\n'
    )


def without_its_file(path: Path) -> None:
    path.with_suffix(".model.toml").write_text('[source]\npath = "exports/gone.onnx"\n')


def misnamed_input(path: Path) -> None:
    save(linear(), path)
    path.with_suffix(".model.toml").write_text("[inputs.pixels]\nlow = 0\nhigh = 1\n")


def recorded_for_another(path: Path) -> None:
    save(linear(), path)
    np.savez(path.with_suffix(".npz"), x=np.zeros((2, 9), np.float32))


def graph(text: str, **details: object) -> Make:
    return lambda path: save(model(text, **details), path)  # type: ignore[arg-type]


REFUSED: dict[str, tuple[Make, str, str]] = {
    "text": (lambda path: path.write_text("no model\n" * 9), "fail", ("text.onnx isn't an ONNX "
                                                                     "file: it is text")),
    "empty": (lambda path: path.touch(), "fail", "empty.onnx is empty (0 bytes)"),
    "truncated": (truncated, "fail", "truncated.onnx is truncated, or isn't"),
    "locked": (locked, "fail", "can't be read: Permission denied"),
    "missing_data": (missing_data, "fail", ("no file 'weights.bin' beside the model. Copy it "
                                           "there.")),
    "data_outside": (data_outside, "fail", ("tensor 'w' lies outside the model's folder "
                                           "('../secret.bin')")),
    "linked_outside": (linked_outside, "fail", ("tensor 'w' lies outside the model's folder "
                                               "('link.bin')")),
    "future": (
        graph("(float[n] x) => (float[n] y) { y = Relu(x) }", opset=99),
        "fail",
        "Mend: a newer ONNX Runtime, or the model in an older opset",
    ),
    "custom": (
        graph("(float[n] x) => (float[n] y) { y = mine.Twist(x) }", domains=', "mine": 1'),
        "fail",
        ("mine:Twist(-1) is not a registered function/op. Mend: name the library that has it, in "
        "the card"),
    ),
    "picky": (
        graph("(float[n,4] x) => (float[m] y) <int64[1] seven = {7}> { y = Reshape(x, seven) }"),
        "error",
        "couldn't invent 'x'",
    ),
    "wrong_hash": (wrong_hash, "error", (f"but should be {'0' * 64}. If the model was changed on "
                                        f"purpose, write its")),
    "without_its_file": (without_its_file, "error", "gone.onnx"),
    "misnamed_input": (misnamed_input, "error", "pixels"),
    "recorded_for_another": (recorded_for_another, "error", "recorded_for_another.npz"),
}  # fmt: skip

ODD_BUT_FINE: dict[str, Make] = {
    "no_inputs": graph("() => (float[3] y) <float[3] a = {1,2,3}> { y = Add(a, a) }"),
    "no_rows": graph("(float[0,4] x) => (float[0,4] y) { y = Relu(x) }"),
    "no_columns": graph("(float[n,0] x) => (float[n,0] y) { y = Relu(x) }"),
    "strings": graph("(string[n] x) => (string[n] y) { y = Identity(x) }"),
    "scalar": graph("(float x) => (float y) { y = Sqrt(x) }"),
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """One run over all of them, a good model first and last."""
    folder = tmp_path_factory.mktemp("bad") / "models"
    folder.mkdir()
    save(linear(), folder / "a_good_one.onnx")
    save(linear(), folder / "z_good_one.onnx")
    for name, make in {
        **{name: make for name, (make, _, _) in REFUSED.items()},
        **ODD_BUT_FINE,
    }.items():
        make(folder / f"{name}.onnx")
    named = sorted(
        {
            path.name
            for path in folder.iterdir()
            if path.name.endswith((".onnx", ".model.toml"))
        }
    )
    wrap = UNPRIVILEGED if os.geteuid() == 0 and shutil.which("setpriv") else ()
    return run_pytest(
        folder,
        *named,
        "--variant=original",
        "--variant=optimize",
        "-k=accuracy",
        "--report-dir=reports",
        wrap=wrap,
    )


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_judged_ends_in_load_and_says_why(
    ended: Ended, name: str
) -> None:
    _, status, reason = REFUSED[name]
    for variant in ("original", "optimize"):
        cell = ended.cells[f"{name}-{variant}-cpu"]
        assert (cell["status"], cell["stage"]) == (status, "load")
        assert reason in cell["reason"]


@pytest.mark.parametrize("name", ODD_BUT_FINE)
def test_an_odd_model_is_judged_like_any_other(ended: Ended, name: str) -> None:
    for variant in ("original", "optimize"):
        cell = ended.cells[f"{name}-{variant}-cpu"]
        assert (cell["status"], cell["reason"]) == ("pass", None)
        assert cell["accuracy"]["outputs"].keys() == {"y"}


def test_a_comparison_that_could_not_have_failed_says_so(ended: Ended) -> None:
    vacuous = {
        name: ended.cells[f"{name}-original-cpu"]["accuracy"]["outputs"]["y"]["vacuous"]
        for name in ODD_BUT_FINE
    }
    assert {name for name, why in vacuous.items() if why} == {"no_rows", "no_columns"}


def test_bad_models_cost_the_good_ones_nothing(ended: Ended) -> None:
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    assert {
        ended.cells[f"{name}-optimize-cpu"]["status"]
        for name in ("a_good_one", "z_good_one")
    } == {"pass"}
    assert len(ended.cells) == 2 * (len(REFUSED) + len(ODD_BUT_FINE) + 2)


def test_an_input_that_cannot_be_invented_can_be_pinned_as_the_message_says(
    ended: Ended,
) -> None:
    assert "Settle it in the model's card:" in ended.told
    assert "[inputs.x]" in ended.told


def small_files(most_bytes: int) -> Callable[[], None]:
    """What a full disk does to the files of a run, without one."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))


def test_a_disk_that_fills_up_is_no_success_and_loses_no_verdict(tmp_path: Path) -> None:
    save(linear(), tmp_path / "lin.onnx")
    cells = ["lin.onnx", "--report-dir=reports", "-k=accuracy"]
    assert (
        run_pytest(tmp_path, *cells, "--variant=original").code == pytest.ExitCode.OK
    )  # the cache is warm now
    ended = run_pytest(tmp_path, *cells, preexec=small_files(4096))
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    assert (
        "results.json can't be written at reports/results.json: File too large" in ended.told
    )
    assert "Mend: a file-size limit (ulimit -f) is in the way" in ended.told
    assert "1 model, 6 cells on cpu: 6 pass" in ended.told
    assert ended.cells  # what was written stays whole


def test_results_that_cannot_be_kept_refuse_the_run(tmp_path: Path) -> None:
    save(linear(), tmp_path / "lin.onnx")
    (tmp_path / "file").touch()
    ended = run_pytest(tmp_path, "lin.onnx", "--report-dir=file/reports")
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert "a file stands where a folder is needed" in ended.told
    assert "Nothing was run." in ended.told
