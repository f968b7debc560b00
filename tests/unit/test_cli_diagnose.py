"""``onnx-harness diagnose`` as it's called: its options, what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.cli import main
from tests.models import linear, save

FOUND, NONE, USAGE = 0, 1, 2
ORT_DEFECT = Path(__file__).parents[1] / "data" / "defects" / "83_ort_rmsnorm_keepdims0.onnx"


def scaled(factor: float) -> onnx.ModelProto:
    made = linear()
    weight = made.graph.initializer[0]
    weight.CopyFrom(
        numpy_helper.from_array(
            numpy_helper.to_array(weight) * np.float32(factor), weight.name
        )
    )
    return made


def half_io() -> onnx.ModelProto:
    """Return the linear model, whose output a Cast gives as float16."""
    made = linear()
    made.graph.node[-1].output[0] = "wide"
    made.graph.node.append(helper.make_node("Cast", ["wide"], ["y"], to=TensorProto.FLOAT16))
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    return made


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def pair(folder: Path, other: onnx.ModelProto) -> list[str]:
    return [
        str(save(linear(), folder / "a.onnx")),
        str(save(other, folder / "b.onnx")),
        "--input-sets=1",
        "--json",
    ]


def test_a_cell_by_its_id_is_looked_for_in_the_folders_that_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "net.onnx").write_bytes(ORT_DEFECT.read_bytes())
    words = ["net-ort.extended-cpu", "--models", "zoo", "--input-sets=1", "--json"]

    assert main(["diagnose", *words, "--repro", "shown"]) == FOUND

    told = document(capsys)
    assert told["cause"]["optimizers"] == ["SimplifiedLayerNormFusion"]
    assert told["smallest"]["path"] == "shown"
    issue = (tmp_path / "shown" / "ISSUE.md").read_text("utf-8")
    assert "SimplifiedLayerNormFusion" in issue


def test_recorded_inputs_are_what_is_diagnosed_and_no_repro_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "mine.npz", x=np.ones((2, 4), np.float32))
    words = [*pair(tmp_path, scaled(1.1)), "--inputs", "mine.npz", "--no-repro"]

    assert main(["diagnose", *words]) == FOUND

    told = document(capsys)
    assert "mine.npz" in told["cause"]["input_set"]
    assert told["cause"]["node"]["name"] == "product"
    assert told["smallest"] is None
    assert {path.name for path in tmp_path.iterdir()} == {"a.onnx", "b.onnx", "mine.npz"}


def test_a_model_that_computes_the_same_leaves_nothing_to_diagnose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*pair(tmp_path, scaled(1.0)), "--rtol=1e-6", "--atol=1e-6", "--no-repro"]

    assert main(["diagnose", *words]) == NONE

    assert document(capsys)["sentence"].startswith("Nothing to diagnose")


def test_float16_at_the_interface_is_a_difference_unless_it_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*pair(tmp_path, half_io()), "--no-repro"]

    main(["diagnose", *words])
    assert "float16" in document(capsys)["sentence"]

    assert main(["diagnose", *words, "--float16-io", "--rtol=1e-2", "--atol=1e-2"]) == NONE
    assert document(capsys)["sentence"].startswith("Nothing to diagnose")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--no-repro", "--public"], "--no-repro looks for no smallest model"),
        (["--budget=0"], "--budget is 0; it has to be more than 0 seconds"),
        (["--inputs=nowhere.npz"], "there is no file nowhere.npz"),
        (["--variant=simplify"], "--variant is for one model"),
        (["--rtol=0.1"], "atol"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    assert main(["diagnose", *pair(tmp_path, scaled(1.1)), *words]) == USAGE

    assert complaint in capsys.readouterr().err


def confidential(values: list[float]) -> onnx.ModelProto:
    """Return a table of names, by which a score is looked up: everything in it tells something."""
    names = ["Mr Secret One", "Mrs Secret Two", "Secret"]
    node = helper.make_node(
        "LabelEncoder",
        ["the secret customer"],
        ["the secret score"],
        "look up the secret",
        domain="ai.onnx.ml",
        doc_string="a secret",
        keys_strings=names,
        values_floats=values,
        default_float=-1.0,
    )
    shape = ["secret customers"]
    graph = helper.make_graph(
        [node],
        "secret graph",
        [helper.make_tensor_value_info("the secret customer", TensorProto.STRING, shape)],
        [helper.make_tensor_value_info("the secret score", TensorProto.FLOAT, shape)],
        doc_string="secret",
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_model(
        graph, opset_imports=opsets, ir_version=9, producer_name="Secret"
    )
    helper.set_model_props(made, {"secret": "secret"})
    return made


def test_what_is_public_has_no_name_and_no_string_of_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(confidential([1.0, 2.0, 3.0]), tmp_path / "a.onnx")
    save(confidential([1.0, 2.5, 3.5]), tmp_path / "b.onnx")
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "cell.onnx").write_bytes((tmp_path / "b.onnx").read_bytes())
    words = ["a.onnx", "b.onnx", "--public", "--repro", "shown", "--input-sets=1"]

    assert main(["diagnose", *words]) == FOUND

    shown = capsys.readouterr().out
    assert "doesn't show it" not in shown
    files = [path for path in (tmp_path / "shown").rglob("*") if path.is_file()]
    assert {"model.onnx", "inputs.npz", "expected.npz", "ISSUE.md", "repro.py"} <= {
        path.name for path in files
    }
    for path in files:
        content = path.read_bytes().lower()
        for encoding in ("utf-8", "utf-32-le"):  # numpy's, of strings
            assert "secret".encode(encoding) not in content, path
    assert (tmp_path / "shown-whole" / "cell.onnx").is_file()
