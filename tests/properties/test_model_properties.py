"""Model files, whatever bytes they hold: read as onnx reads them, or refused with the file named."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import Message
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from onnx_harness.errors import ModelError
from onnx_harness.model.file import Model

ASKS: dict[str, Callable[[Model], object]] = {
    "skeleton": lambda model: model.skeleton,
    "signature": lambda model: model.signature,
    "external_files": lambda model: model.external_files,
    "sha256": lambda model: model.sha256,
    "load": Model.load,
}


def small_model() -> bytes:
    """Weights above and below what a skeleton keeps.

    In the graph, a body, a function and a file of their own.
    """
    text = """
        <ir_version: 10, opset_import: ["" : 21, "ours" : 1]>
        g (float[400] x, bool c) => (float[400] y) <float[3] v = {0.5, -1, 2}> {
            z = Add(x, w)
            y = If <then_branch = then () => (float[400] t) { t = Identity(z) },
                    else_branch = other () => (float[400] e) { e = Constant <value = float {1}> () }> (c)
        }
        <opset_import: ["" : 21], domain: "ours"> F (a) => (b) { b = Constant <value = float {1}> () }
    """
    model = onnx.parser.parse_model(text)
    big = numpy_helper.from_array(np.arange(400, dtype=np.float32), "w")
    model.graph.initializer.append(big)
    model.graph.node[1].attribute[1].g.node[0].attribute[0].t.CopyFrom(big)
    model.functions[0].node[0].attribute[0].t.CopyFrom(big)
    elsewhere = TensorProto(
        name="u", data_type=TensorProto.INT8, dims=[4], data_location=TensorProto.EXTERNAL
    )
    elsewhere.external_data.add(key="location", value="u.bin")
    model.graph.initializer.append(elsewhere)
    return bytes(model.SerializeToString())


SMALL_MODEL = small_model()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "u.bin").write_bytes(bytes(4))
    return folder / "m.onnx"


def tensors(message: Message) -> Iterator[TensorProto]:
    for field, held in message.ListFields():
        if field.message_type is not None:
            for item in (held,) if isinstance(held, Message) else held:
                if isinstance(item, TensorProto):
                    yield item
                else:
                    yield from tensors(item)


def without_data(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in tensors(copy):
        for name in TensorProto.DESCRIPTOR.fields_by_name:
            if name.endswith("_data") and name != "external_data":
                tensor.ClearField(name)
    # a field of tensor data with another wire type is unknown, and skimmed all the same
    copy.DiscardUnknownFields()
    return copy


def complaint_of(ask: Callable[[Model], object], model: Model) -> str | None:
    try:
        ask(model)
    except ModelError as error:
        return str(error)
    return None


def parsed(content: bytes) -> onnx.ModelProto | None:
    try:
        return onnx.load_from_string(content)
    except Exception:
        return None


def check_read_or_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    model = Model(path)
    complaints = {asked: complaint_of(ask, model) for asked, ask in ASKS.items()}
    assert {complaint[:6] for complaint in complaints.values() if complaint} <= {"m.onnx"}
    refused, whole = complaints["skeleton"], parsed(content)
    if whole is None:
        assert complaints["load"] is not None
    elif refused is None:
        assert without_data(model.skeleton) == without_data(whole)
    else:
        assert "wire type" in refused or not (whole.HasField("graph") and whole.ir_version)


def test_the_model_that_is_spoiled_below_is_good(path: Path) -> None:
    path.write_bytes(SMALL_MODEL)
    assert [complaint_of(ask, Model(path)) for ask in ASKS.values()] == [None] * len(ASKS)


@given(st.integers(0, len(SMALL_MODEL)))
@example(0)
@example(len(SMALL_MODEL) - 1)
def test_a_model_cut_anywhere_is_read_as_onnx_reads_it_or_refused(
    path: Path, length: int
) -> None:
    check_read_or_refused(path, SMALL_MODEL[:length])


@given(
    st.lists(
        st.tuples(st.integers(0, len(SMALL_MODEL) - 1), st.integers(0, 255)),
        min_size=1,
        max_size=8,
    )
)
def test_a_model_with_bytes_changed_is_read_as_onnx_reads_it_or_refused(
    path: Path, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(SMALL_MODEL)
    for at, byte in changes:
        content[at] = byte
    check_read_or_refused(path, bytes(content))


@given(st.integers(0, len(SMALL_MODEL)), st.binary(max_size=40))
def test_a_model_with_bytes_put_in_is_read_as_onnx_reads_it_or_refused(
    path: Path, at: int, junk: bytes
) -> None:
    check_read_or_refused(path, SMALL_MODEL[:at] + junk + SMALL_MODEL[at:])


@given(st.binary(max_size=200))
def test_any_bytes_are_read_as_onnx_reads_them_or_refused(
    path: Path, content: bytes
) -> None:
    check_read_or_refused(path, content)
