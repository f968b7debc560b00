"""What a profile of a run tells, and what a record of assignments can't hide from it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_harness.errors import ProviderError
from onnx_harness.providers import get
from onnx_harness.providers.contradiction import breach, contradiction
from onnx_harness.providers.profile import Profile, precision, read_profile
from onnx_harness.providers.profile_runs import NodeRun, read_nodes, read_runs
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.transforms.fp16 import convert_float_to_float16
from tests.models import model
from tests.providers.small_models import cnn

CPU, CUDA, TENSORRT = get("cpu"), get("cuda"), get("tensorrt")
ON, OFF = "CUDAExecutionProvider", "CPUExecutionProvider"
IMAGE = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)


def profiled(made: bytes, folder: Path, **feeds: Any) -> Profile:
    session = open_session(made, CPU, purpose=Purpose.ACCURACY, profile=folder / "profile")
    session.run(None, feeds)
    return read_profile(Path(session.end_profiling()), CPU)


def written(folder: Path, *events: dict[str, Any]) -> Path:
    file = folder / "profile.json"
    file.write_text("[\n" + ",\n".join(map(json.dumps, events)) + "\n]\n")
    return file


def node(
    op: str,
    owner: str = ON,
    *,
    name: str = "",
    took: int = 10,
    index: int = 0,
    **details: Any,
) -> dict[str, Any]:
    args = {"op_name": op, "provider": owner, "node_index": str(index), **details}
    return {"cat": "Node", "name": f"{name or op}_kernel_time", "dur": took, "args": args}


END = {"cat": "Session", "name": "model_run", "dur": 99, "args": {}}


def test_a_run_on_the_cpu_is_told_by_operator_time_and_type(tmp_path: Path) -> None:
    found = profiled(cnn(layers=2), tmp_path, image=IMAGE)
    assert found.executed() == {OFF: found.nodes.total()}
    assert found.nodes[OFF, "GlobalAveragePool"] == 1
    assert found.time_share(CPU) == 1.0
    assert (found.copies, found.arithmetic) == (
        0,
        Counter({"float32": 3}),
    )  # two Conv, with their Relu, and the pool


def test_arithmetic_on_shapes_is_told_from_arithmetic(tmp_path: Path) -> None:
    made = model(
        "(float[n,3] x, int64[n] many) => (float[m] y, int64[n] z)"
        " { shape = Shape(x)  twice = Mul(shape, shape)  flat = Reshape(x, minus)  y = Mul(flat, "
        "flat)"
        "   z = Mul(many, many)  size = Mul(twice, twice) }"
    )
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1]), "minus"))
    made.graph.output.append(
        onnx.helper.make_tensor_value_info("size", onnx.TensorProto.INT64, [2])
    )
    x, many = np.ones((100, 3), np.float32), np.ones(100, np.int64)
    found = profiled(made.SerializeToString(), tmp_path, x=x, many=many)
    assert (found.nodes[OFF, "Mul"], found.sizes[OFF, "Mul"]) == (4, 2)


def test_float16_on_the_cpu_is_emulated_and_the_casts_show(tmp_path: Path) -> None:
    half = convert_float_to_float16(onnx.load_from_string(cnn()), keep_io_types=True)
    found = profiled(half.SerializeToString(), tmp_path, image=IMAGE)
    assert found.arithmetic == {"float32": 2}
    assert precision(found, CPU, wants_half=True) == "emulated"
    alone = model("(float16[4] x) => (float16[4] y) { a = Exp(x)  y = Transpose(a) }")
    found = profiled(alone.SerializeToString(), tmp_path, x=np.ones(4, np.float16))
    assert (found.inserted_casts, found.nodes[OFF, "Cast"]) == (2, 0)
    assert precision(found, CPU, wants_half=True) == "emulated"


def test_names_that_imitate_a_profile_are_names(tmp_path: Path) -> None:
    made = model("(float[4] x) => (float[4] y) { y = Neg(x) }")
    made.graph.node[
        0
    ].name = '"}},\n{"cat" : "Node", "args" : {"provider" : "CUDAExecutionProvider"}'
    found = profiled(made.SerializeToString(), tmp_path, x=np.ones(4, np.float32))
    assert found.executed() == {OFF: 1}


def test_the_last_run_counts(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        node("Conv", took=900),
        node("Det", OFF, took=1),
        END,
        node("Conv", took=30),
        END,
    )
    found = read_profile(file, CUDA)
    assert (found.executed(), found.microseconds) == ({ON: 1}, {ON: 30})


def test_a_run_of_very_many_events_is_read_from_its_first_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnx_harness.providers.profile._MOST_EVENTS", 3)
    events = [node("Add", index=1), *[node("Mul", index=2)] * 9, node("Det", OFF, index=3)]
    found = read_profile(
        written(tmp_path, *events, END, node("Sub"), END, *events, END), CUDA
    )
    assert found.nodes == {(ON, "Add"): 1, (ON, "Mul"): 1}


def test_copies_inserted_casts_and_bodies_are_no_nodes_of_the_model(tmp_path: Path) -> None:
    cast = node("Cast", OFF, name="InsertedPrecisionFreeCast_x", index=7)
    half, single = [{"float16": [1]}], [{"float": [1]}]
    file = written(
        tmp_path,
        node("MemcpyToHost", index=1, took=20),
        node("MemcpyFromHost", index=2, took=20),
        cast,
        node("Loop", OFF, index=3, took=1000),
        *[node("MatMul", index=4, took=5, output_type_shape=half)] * 3,
        node("Exp", OFF, index=5, took=5, output_type_shape=single),
        node(
            "Greater",
            OFF,
            index=6,
            took=5,
            input_type_shape=half,
            output_type_shape=[{"bool": [1]}],
        ),
        END,
    )
    found = read_profile(file, CUDA)
    assert found.nodes == {
        (OFF, "Loop"): 1,
        (ON, "MatMul"): 1,
        (OFF, "Exp"): 1,
        (OFF, "Greater"): 1,
    }
    assert (found.copies, found.inserted_casts) == (2, 1)
    assert found.microseconds == {ON: 55, OFF: 20}
    assert found.time_share(CUDA) == pytest.approx(55 / 75)
    assert found.arithmetic == {"float16": 2, "float32": 1}


@pytest.mark.parametrize(
    "text", ["", "[]", "[\n{", '[\n{"cat": "Node", "name": "x_kernel_time", "args": {}}\n]']
)
def test_what_is_no_profile_is_an_error_that_names_the_provider(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(
        ProviderError, match="where the nodes ran on provider 'cuda' can't be told"
    ):
        read_profile(tmp_path / "broken.json", CUDA)


@pytest.mark.parametrize(
    ("arithmetic", "casts", "wants_half", "expected"),
    [
        ({"float16": 9}, 0, True, "float16"),
        (
            {"float16": 9, "float32": 2},
            0,
            True,
            "float16",
        ),  # blocked nodes, which the model itself surrounds by Casts
        ({"float16": 9, "float32": 2}, 3, True, "mixed"),
        ({"float32": 9}, 3, True, "emulated"),
        ({"float32": 9}, 0, True, "emulated"),  # Casts that undo one another are gone
        ({"float32": 9, "float64": 1}, 0, False, "float32"),
        ({}, 0, True, None),
        ({}, 0, False, None),
    ],
)
def test_what_ran_is_told_from_kernels_and_casts(
    arithmetic: dict[str, int], casts: int, wants_half: bool, expected: str | None
) -> None:
    found = Profile(arithmetic=Counter(arithmetic), inserted_casts=casts)
    assert precision(found, CUDA, wants_half=wants_half) == expected


def test_what_a_provider_compiles_is_known_from_its_declaration(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        node("TRTKernel_0", TENSORRT.ort_name, output_type_shape=[{"float": [1]}]),
        node("TRTKernel_1", TENSORRT.ort_name, output_type_shape=[{"float": [1]}]),
        END,
    )
    found = read_profile(file, TENSORRT)
    assert (found.compiled, found.arithmetic) == (2, {})
    assert precision(found, TENSORRT, wants_half=True) == "float16"
    assert (
        precision(found, replace(TENSORRT, native_fp16=False), wants_half=True) == "emulated"
    )
    assert precision(found, TENSORRT, wants_half=False) == "float32"


def test_another_domain_in_the_record_is_none_in_the_profile() -> None:
    record = Counter({(ON, "MatMul"): 2, (OFF, "com.microsoft:Inverse"): 1})
    ran = Profile(Counter({(ON, "MatMul"): 2, (OFF, "Inverse"): 1}))
    assert contradiction(record, ran, CUDA) is None
    elsewhere = Profile(
        Counter({(ON, "MatMul"): 1, (OFF, "Inverse"): 1, (OFF, "MatMul"): 1})
    )
    assert contradiction(record, elsewhere, CUDA) == (
        f"the record of assignments puts 1 node on {ON} that ran on {OFF}: MatMul x1"
    )


def test_a_compiled_graph_contradicts_nothing_and_one_that_ran_elsewhere_does() -> None:
    record = Counter({("TensorrtExecutionProvider", "Conv"): 8, (ON, "Gather"): 1})
    assert (
        contradiction(
            record, Profile(Counter({(TENSORRT.ort_name, "TRTKernel_0"): 1})), TENSORRT
        )
        is None
    )
    moved = contradiction(
        record, Profile(Counter({(ON, "Conv"): 8, (ON, "Gather"): 1})), TENSORRT
    )
    assert moved == (
        f"the record of assignments puts 8 nodes on TensorrtExecutionProvider that ran on "
        f"{ON}: Conv x8"
    )


def test_nodes_that_ran_on_two_other_providers_are_told_with_both() -> None:
    record = Counter({(TENSORRT.ort_name, "Conv"): 8})
    ran = Profile(Counter({(ON, "Conv"): 5, (OFF, "Conv"): 3}))
    assert f"puts 8 nodes on {TENSORRT.ort_name} that ran on {OFF} and {ON}: Conv x8" in str(
        contradiction(record, ran, TENSORRT)
    )


def test_a_graph_that_folds_away_meets_every_demand() -> None:
    assert contradiction(Counter(), Profile(), CUDA) is None
    assert breach(Profile(), CUDA, min_time_share=1.0, max_copies=0) is None


def test_the_same_operator_of_two_domains_is_counted_together() -> None:
    record = Counter({(ON, "Gelu"): 2, (ON, "com.microsoft:Gelu"): 3})
    ran = Profile(Counter({(ON, "Gelu"): 1, (OFF, "Gelu"): 4}))
    assert "Gelu x4" in str(contradiction(record, ran, CUDA))


@pytest.mark.parametrize(
    ("copies", "ran", "words"),
    [
        (1, {}, "1 node copies between the memory of CUDAExecutionProvider and the host's "
                "(Memcpy), and the card allows 0"),
        (2, {(ON, "Conv"): 9, (OFF, "Det"): 1, (OFF, "Unique"): 2},
         "2 nodes copy between the memory of CUDAExecutionProvider and the host's (Memcpy), and "
         "the card allows 0; op types elsewhere: Unique, Det"),
    ],
)  # fmt: skip
def test_too_many_copies_are_told_with_what_runs_elsewhere(
    copies: int, ran: dict[tuple[str, str], int], words: str
) -> None:
    found = Profile(Counter(ran), copies=copies)
    assert breach(found, CUDA, max_copies=0) == words
    assert breach(found, CUDA, max_copies=copies) is None


@pytest.mark.parametrize(("required", "enough"), [(0.25, True), (0.26, False), (None, True)])
def test_the_share_of_the_time_that_a_card_requires(
    required: float | None, enough: bool
) -> None:
    found = Profile(microseconds=Counter({ON: 1000, OFF: 3000}))
    words = breach(found, CUDA, min_time_share=required)
    assert (words is None) is enough
    if words:
        assert words == (
            "CUDAExecutionProvider has 25% of the time in kernels, and the card requires at "
            "least 26% (time by provider: CPUExecutionProvider 3 ms, CUDAExecutionProvider 1 ms)"
        )


def test_nodes_are_told_apart_by_their_index_and_not_by_their_name(tmp_path: Path) -> None:
    twice = [node("Add", name="same", index=index) for index in (1, 2, 2)]
    found = read_profile(written(tmp_path, *twice, END), CUDA)
    assert (found.nodes, found.microseconds) == ({(ON, "Add"): 2}, {ON: 30})


def test_a_name_that_is_no_utf8_is_read_all_the_same(tmp_path: Path) -> None:
    file = written(tmp_path, node("Add", name="Knoten"), END)
    file.write_bytes(file.read_bytes().replace(b"Knoten", b"Kn\xffoten"))
    assert read_profile(file, CUDA).nodes == {(ON, "Add"): 1}
    assert read_runs(file).op_types == {"Kn\ufffdoten": "Add"}


def test_of_many_operators_elsewhere_the_commonest_six_are_named() -> None:
    ran = Counter({(OFF, f"Op{place}"): 9 - place for place in range(7)})
    words = str(breach(Profile(ran, copies=1), CUDA, max_copies=0))
    assert words.endswith("; op types elsewhere: Op0, Op1, Op2, Op3, Op4, Op5")


def test_the_nodes_of_the_last_run_are_told_with_what_they_gave(tmp_path: Path) -> None:
    half, whole, single = [{"float16": [1]}], [{"int64": [1]}], [{"float": [2]}]
    file = written(
        tmp_path,
        node("Conv", name="first", took=90, output_type_shape=single),
        END,
        node("Conv", name="first", took=5, output_type_shape=half),
        node("Conv", name="first", took=7, output_type_shape=half),
        node("TopK", OFF, name="second", output_type_shape=[*single, *whole]),
        node("Shape", OFF, name="third", output_type_shape=whole),
        node("Drop", OFF, name="fourth"),
        node("Add", index=3, took=4),
        node("Loop", name="body", took=1000),
        END,
    )
    assert read_nodes(file) == {
        "first": NodeRun(12.0, ON, "float16"),
        "second": NodeRun(10.0, OFF, "float32"),
        "third": NodeRun(10.0, OFF, "int64"),
        "fourth": NodeRun(10.0, OFF, ""),
        "Add": NodeRun(4.0, ON, ""),
    }
    runs = read_runs(file)
    assert dict(runs.runs[0]) == {"first": 90.0}
    assert runs.op_types["second"] == "TopK"
    for reads in (read_runs, read_nodes):
        file.write_text("[]")
        words = r"profile can't be read \(ValueError: it holds no run\)"
        with pytest.raises(ProviderError, match=words):
            reads(file)
        with pytest.raises(ProviderError, match=r"can't be read \(FileNotFoundError: "):
            reads(tmp_path / "nowhere")
