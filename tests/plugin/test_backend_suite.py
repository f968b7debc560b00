"""The official cases of ONNX's operators as a suite: what is chosen, what is judged, and the
account at the end.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.models import linear, save
from tests.plugin.running import Ended, install, run_pytest

USAGE = pytest.ExitCode.USAGE_ERROR

FAULTS = """
import os, signal
from onnx import TensorProto, helper
from onnx_harness.transforms import Transform

def break_it(model):
    node = model.graph.node[0]
    if node.op_type == "Exp":
        node.op_type = "Neg"
    elif node.op_type == "Relu":
        raise ValueError("no Relu, please")
    elif node.op_type == "Shrink":
        node.input[0] = "nowhere"
    elif node.op_type == "Sign":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif node.op_type == "Sqrt":
        node.domain = "nobody"
        model.opset_import.append(helper.make_opsetid("nobody", 1))
    elif node.op_type == "Selu":
        output = model.graph.output[0]
        model.graph.node.append(helper.make_node("Cast", [output.name], ["wide"], to=TensorProto.DOUBLE))
        output.name, output.type.tensor_type.elem_type = "wide", TensorProto.DOUBLE
    return model

def same(model):
    return model

def drift(model):
    output = model.graph.output[0]
    kind = output.type.tensor_type.elem_type
    model.graph.initializer.append(helper.make_tensor("factor", kind, [], [1.00001]))
    model.graph.node[-1].output[0] = "straight"
    model.graph.node.append(helper.make_node("Mul", ["straight", "factor"], [output.name]))
    return model

TRANSFORM = (
    Transform("ours", break_it, {"broken": {}}),
    Transform("theirs", break_it, {"broken.upstream": {}}, requires=("pytest",)),
    Transform("harmless", same, {"harmless": {}}),
    Transform("drifts", drift, {"drifts": {}}),
    Transform("says that it doesn't", drift, {"drifts.exact": {}}, keeps_values=True),
)
"""
BROKEN = {
    "exception": ["simple.test_single_relu_model"],
    "crash": ["simple.test_sign_model"],
    "invalid": ["simple.test_shrink"],
    "does_not_run": ["pytorch_operator.test_operator_sqrt"],
    "changed_types": ["pytorch_operator.test_operator_selu"],
    "wrong_values": ["pytorch_operator.test_operator_exp"],
}


def suite(folder: Path, *args: str) -> Ended:
    return run_pytest(folder, "--report-dir=reports", *args)


def account(ended: Ended) -> dict[str, dict[str, Any]]:
    """The variants of ``backend_suite.json`` by name."""
    page = json.loads((ended.folder / "reports" / "backend_suite.json").read_text("utf-8"))
    assert page["schema"] == 1
    assert "onnx" in page["versions"]
    return {each["variant"]: each for each in page["variants"]}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The cases that are files of the onnx package, in a right transform and a wrong one, by two
    processes.
    """
    folder = tmp_path_factory.mktemp("suite")
    install(folder, FAULTS)
    (folder / "test_own.py").write_text("def test_own(): assert False")
    kinds = "--onnx-backend-suite=simple,pytorch-operator"
    return suite(folder, kinds, "-n", "2", "--variant", "harmless", "--variant", "broken")


def test_a_transform_that_breaks_an_operator_fails_the_run(ended: Ended) -> None:
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    failed = {
        cell["id"]
        for cell in ended.cells.values()
        if cell["status"] not in ("pass", "not_applicable")
    }
    assert failed == {f"{name}-broken-cpu" for names in BROKEN.values() for name in names}
    assert "test_own" not in ended.told


def test_the_account_names_what_each_variant_breaks_and_how(ended: Ended) -> None:
    found = account(ended)
    not_run = found["harmless"]["cases"][
        "not_run"
    ]  # which they are depends on ONNX Runtime, and on installed locales
    assert {"simple.test_gradient_of_add", "pytorch_operator.test_operator_addmm"} <= set(
        not_run
    )
    assert (found["harmless"]["broken"], found["broken"]["broken"]) == (0, 6)
    assert {
        how: names for how, names in found["broken"]["cases"].items() if how != "not_run"
    } == BROKEN
    run = found["broken"]["run"]
    assert run == found["harmless"]["run"] == len(ended.cells) / 2 - len(not_run)
    for line in (
        f"  harmless on cpu: {run} of {run} pass · {len(not_run)} not run by ONNX Runtime itself",
        f"  broken on cpu: {run - 6} of {run} pass · 1 raise an exception · 1 crash · 1 invalid · "
        f"1 don't run · "
        f"1 change types or shapes · 1 wrong values · {len(not_run)} not run by ONNX Runtime "
        f"itself",
        "      wrong values: pytorch_operator.test_operator_exp",
        "  every case by name: reports/backend_suite.json",
    ):
        assert line in ended.told.splitlines()


def test_a_case_is_judged_on_the_suites_own_inputs(ended: Ended) -> None:
    cell = ended.cells["pytorch_operator.test_operator_exp-harmless-cpu"]
    assert cell["accuracy"]["input_sets"] == 1
    unknown = ended.cells["simple.test_gradient_of_add-harmless-cpu"]
    assert (unknown["status"], unknown["symptom"]) == ("not_applicable", "not_run")
    assert "can't open the untouched model" in unknown["reason"]


def test_a_failure_ends_in_the_command_that_runs_its_case_alone(ended: Ended) -> None:
    command = (
        "alone: pytest --onnx-backend-suite=pytorch-operator/test_operator_exp --provider cpu "
        "--variant broken "
        "--seed 0 --input-sets 4"
    )
    assert command in ended.told
    again = suite(ended.folder, *command.split()[2:])
    assert again.code == pytest.ExitCode.TESTS_FAILED
    assert list(again.cells) == ["pytorch_operator.test_operator_exp-broken-cpu"]


def test_what_a_library_breaks_is_known_and_counted(tmp_path: Path) -> None:
    install(tmp_path, FAULTS)
    ended = suite(
        tmp_path,
        "--onnx-backend-suite",
        "simple",
        "-k",
        "relu or sign",
        "--variant=broken.upstream",
    )
    assert ended.code == pytest.ExitCode.OK
    assert Counter(cell["status"] for cell in ended.cells.values()) == {"known_failure": 2}
    assert (
        "no Relu, please (made by pytest"
        in ended.cells["simple.test_single_relu_model-broken.upstream-cpu"]["reason"]
    )
    assert (
        "  broken.upstream on cpu: 0 of 2 pass · 1 raise an exception · 1 crash"
        in ended.told.splitlines()
    )


@pytest.fixture(scope="module")
def operators(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Three cases of single operators, in a folder where the first run wrote all 1,500 of them."""
    folder = tmp_path_factory.mktemp("operators")
    install(folder, FAULTS)
    return suite(folder, *SINGLE)


SINGLE = [
    "--onnx-backend-suite=node/test_abs",
    "--onnx-backend-suite=node.test_add",
    "--onnx-backend-suite=node/test_cast_float_to_bfloat16",
    "--variant=original",
    "--variant=simplify",
]


def test_cases_of_single_operators_are_written_once(operators: Ended) -> None:
    (kept,) = (operators.folder / ".cache" / "artifacts" / "backend_suite").glob("*/*")
    models = {file: file.stat().st_mtime_ns for file in kept.glob("*/model.onnx")}
    assert len(models) > 1500
    again = suite(operators.folder, *SINGLE)
    for ended in (operators, again):
        assert ended.code == pytest.ExitCode.OK
    assert {cell["status"] for cell in again.cells.values()} == {"pass"}
    assert len(again.cells) == 6
    assert {file: file.stat().st_mtime_ns for file in kept.glob("*/model.onnx")} == models
    # A case is quicker made again than kept.
    assert [
        path.name for path in kept.parents[2].iterdir() if not path.name.startswith(".")
    ] == ["backend_suite"]


def test_what_declares_to_keep_values_is_held_to_it(operators: Ended) -> None:
    case, variants = (
        "--onnx-backend-suite=node/test_exp",
        ("--variant=drifts", "--variant=drifts.exact"),
    )
    ended = suite(operators.folder, case, *variants)
    assert {
        cell["variant"]: (cell["status"], cell["symptom"]) for cell in ended.cells.values()
    } == {
        "drifts": ("pass", None),
        "drifts.exact": ("fail", "wrong_values"),
    }
    wide = suite(operators.folder, case, *variants, "--rtol=1e-4", "--atol=0")
    assert wide.code == pytest.ExitCode.OK


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--onnx-backend-suite", "nodes"],
            "there are no cases of the kind 'nodes' *. Did you mean 'node'?*",
        ),
        (
            ["--onnx-backend-suite=all/test_abs"],
            "there are no cases of the kind 'all/test_abs'*",
        ),
        (
            ["--onnx-backend-suite", "lin.onnx"],
            "*a path after the option needs it written as --onnx-backend-suite=KIND*",
        ),
        (
            ["--onnx-backend-suite=simple/test_sign_mode"],
            (
                "there is no case 'test_sign_mode' of the kind 'simple'. Did you mean "
                "'test_sign_model'?*"
            ),
        ),
    ],
)
def test_what_is_misspelt_is_a_usage_error(
    pytester: pytest.Pytester, words: list[str], said: str
) -> None:
    result = pytester.runpytest_subprocess(*words)
    assert result.ret == USAGE
    result.stderr.fnmatch_lines([f"ERROR: {said}"])


def collected(pytester: pytest.Pytester, *args: str) -> list[str]:
    result = pytester.runpytest_subprocess("--collect-only", "-q", *args)
    assert result.ret == pytest.ExitCode.OK
    return [line for line in result.outlines if "::" in line]


def test_only_accuracy_is_tested_and_a_keyword_chooses(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_own(): pass")
    assert collected(
        pytester, "--onnx-backend-suite=simple", "-k", "sign", "--variant=original"
    ) == ["onnx-backend-suite/simple/test_sign_model::test_accuracy[original-cpu]"]


def test_paths_that_are_named_are_tested_beside_the_suite(pytester: pytest.Pytester) -> None:
    save(linear(), pytester.path / "lin.onnx")
    found = collected(
        pytester,
        "lin.onnx",
        "--onnx-backend-suite=simple",
        "-k",
        "sign or lin",
        "--variant=original",
    )
    assert [name.partition("::")[0] for name in found] == ["lin.onnx"] * 2 + [
        "onnx-backend-suite/simple/test_sign_model"
    ]


def test_collecting_the_suite_imports_nothing_of_weight(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        watch="""
        import sys

        def pytest_sessionfinish():
            weighty = ("onnx", "onnxruntime", "numpy", "google.protobuf")
            sys.stderr.write(f"imported: {[name for name in weighty if name in sys.modules]}")
        """
    )
    args = [
        "--collect-only",
        "-p",
        "watch",
        "--onnx-backend-suite=simple",
        "--variant=simplify",
    ]
    result = pytester.runpytest_subprocess(*args)
    assert result.ret == pytest.ExitCode.OK
    result.stderr.fnmatch_lines(["imported: []"])
