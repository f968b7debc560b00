"""Model files: the skimmed skeleton is the model, the hash is its content, and every bad file is
told what it is.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

from onnx_harness.errors import ModelError
from onnx_harness.model.file import Model, ValueType, node_count
from onnx_harness.model.skeleton import SMALL_BYTES

BACKEND_MODELS = sorted((Path(onnx.__file__).parent / "backend/test/data").rglob("*.onnx"))
DATA_FIELDS = (
    "float_data",
    "int32_data",
    "string_data",
    "int64_data",
    "raw_data",
    "double_data",
    "uint64_data",
)
BIG = np.arange(1000, dtype=np.float32)
OPSETS = [helper.make_opsetid("", 21)]


def value(
    name: str, shape: list[Any] | None = None, dtype: int = TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def build(
    *nodes: onnx.NodeProto,
    initializers: tuple[TensorProto, ...] = (),
    ir_version: int = 10,
    **parts: Any,
) -> onnx.ModelProto:
    """A model from x to y, both [1000]; Identity when no node is given."""
    graph = helper.make_graph(
        nodes or (helper.make_node("Identity", ["x"], ["y"]),),
        "g",
        parts.pop("inputs", [value("x", [1000])]),
        parts.pop("outputs", [value("y", [1000])]),
        initializers,
        sparse_initializer=parts.pop("sparse_initializer", ()),
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=ir_version, **parts)


def add_weight(data: np.ndarray[Any, Any] = BIG) -> onnx.ModelProto:
    return build(
        helper.make_node("Add", ["x", "w"], ["y"]),
        initializers=(numpy_helper.from_array(data, "w"),),
    )


def write(path: Path, model: onnx.ModelProto | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def tensors(message: Message) -> Iterator[TensorProto]:
    """Every tensor anywhere in a message, found by reflection."""
    for field_of, held in message.ListFields():
        if field_of.message_type is not None:
            for item in (held,) if isinstance(held, Message) else held:
                if isinstance(item, TensorProto):
                    yield item
                else:
                    yield from tensors(item)


def without_big_data(model: onnx.ModelProto) -> onnx.ModelProto:
    """What a skeleton should be, made from the whole model; ``model`` is changed."""
    for holder in (model.graph, *model.functions):
        for tensor in tensors(holder):
            if tensor.ByteSize() > SMALL_BYTES:
                for name in DATA_FIELDS:
                    tensor.ClearField(name)
    return model


def constant(name: str, data: np.ndarray[Any, Any] = BIG) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(data))


def sparse(name: str) -> onnx.SparseTensorProto:
    indices = numpy_helper.from_array(np.arange(1000, dtype=np.int64), f"{name}_indices")
    return helper.make_sparse_tensor(numpy_helper.from_array(BIG, name), indices, [5000])


def nested(depth: int) -> onnx.NodeProto:
    """An If with a Constant in both bodies, and so on inwards."""
    nodes = [constant("inner"), nested(depth - 1)] if depth else [constant("inner")]
    body = helper.make_graph(nodes, "body", [], [value("inner", [1000])])
    return helper.make_node(
        "If", ["c"], [f"out_{depth}"], then_branch=body, else_branch=body
    )


def custom(**attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Foo", ["x"], ["y"], domain="ours", **attributes)


def function(*nodes: onnx.NodeProto) -> onnx.FunctionProto:
    return helper.make_function("ours", "F", ["a"], ["b"], nodes, OPSETS)


HEAVY = {
    "a weight": add_weight(),
    "a weight in a typed field": build(
        initializers=(helper.make_tensor("w", TensorProto.FLOAT, [1000], BIG),)
    ),
    "strings": build(initializers=(numpy_helper.from_array(np.array(["word"] * 500), "w"),)),
    "doubles and integers": build(
        initializers=tuple(
            helper.make_tensor(str(dtype), dtype, [500], list(range(500)))
            for dtype in (
                TensorProto.DOUBLE,
                TensorProto.INT64,
                TensorProto.UINT64,
                TensorProto.INT32,
            )
        )
    ),
    "a constant": build(constant("y")),
    "bodies in bodies": build(nested(6)),
    "a list of tensors": build(custom(all=[numpy_helper.from_array(BIG)] * 3)),
    "a list of graphs": build(custom(all=[build(constant("y")).graph] * 2)),
    "sparse weights": build(sparse_initializer=[sparse("w")]),
    "a sparse constant": build(
        helper.make_node("Constant", [], ["y"], sparse_value=sparse("w"))
    ),
    "a function": build(functions=[function(constant("b"), nested(1))]),
}
LIGHT = {
    "shapes": build(
        constant("shape", np.array([1, -1])),
        initializers=(numpy_helper.from_array(np.ones(4, np.int8)),),
    ),
    "a long list of floats": build(custom(all=[0.5] * 900)),
    "a long list of integers": build(custom(all=list(range(900)))),
    "a long list of strings": build(custom(all=["word"] * 900)),
    "a long name": build(
        helper.make_node("Identity", ["x"], ["y"], name="n" * 5000, doc_string="d" * 5000)
    ),
}


@pytest.mark.parametrize("what", HEAVY)
def test_a_skeleton_is_the_model_without_big_data(tmp_path: Path, what: str) -> None:
    path = write(tmp_path / "m.onnx", HEAVY[what])
    skeleton = Model(path).skeleton
    assert skeleton == without_big_data(onnx.load(path))
    assert skeleton.ByteSize() < path.stat().st_size / 2


@pytest.mark.parametrize("what", LIGHT)
def test_whatever_is_not_big_tensor_data_stays_in_the_skeleton(
    tmp_path: Path, what: str
) -> None:
    assert Model(write(tmp_path / "m.onnx", LIGHT[what])).skeleton == LIGHT[what]


def test_the_skeletons_of_all_models_of_the_onnx_package_are_those_models() -> None:
    assert len(BACKEND_MODELS) > 100
    wrong = [
        path
        for path in BACKEND_MODELS
        if Model(path).skeleton != without_big_data(onnx.load(path))
    ]
    assert wrong == []


def varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number: int, wire_type: int, payload: bytes) -> bytes:
    return (
        varint(number << 3 | wire_type)
        + (varint(len(payload)) if wire_type == 2 else b"")
        + payload
    )


FLOATS = b"".join(field(4, 5, np.float32(item).tobytes()) for item in BIG)
INTEGERS = b"".join(field(7, 0, varint(item)) for item in range(1000))


@pytest.mark.parametrize(
    "tensor",
    [
        field(8, 2, b"w") + FLOATS + field(1, 0, varint(1000)) + field(2, 0, varint(1)),
        field(1, 0, varint(1000)) + field(2, 0, varint(7)) + INTEGERS + field(8, 2, b"w"),
        field(9, 2, bytes(2000))
        + field(8, 2, b"w")
        + field(9, 2, bytes(4000))
        + field(1, 2, varint(1000)),
        field(8, 2, b"w")
        + FLOATS
        + field(99, 2, b"unknown")
        + field(98, 0, varint(5))
        + field(97, 1, bytes(8)),
    ],
    ids=[
        "unpacked floats",
        "unpacked integers",
        "a field twice and packed dims",
        "unknown fields",
    ],
)
def test_unusual_spellings_of_a_tensor_are_skimmed_alike(
    tmp_path: Path, tensor: bytes
) -> None:
    graph = build().graph.SerializeToString() + field(5, 2, tensor)
    model = (
        field(7, 2, graph) + field(1, 0, varint(10)) + field(8, 2, field(2, 0, varint(21)))
    )
    path = write(tmp_path / "m.onnx", model)
    skeleton, whole = Model(path).skeleton, onnx.load(path)
    assert whole.graph.initializer[0].ByteSize() > SMALL_BYTES
    assert skeleton == without_big_data(whole)
    assert len(skeleton.SerializeToString()) < 500


def test_a_graph_written_in_two_parts_is_one(tmp_path: Path) -> None:
    weight = field(5, 2, numpy_helper.from_array(BIG, "w").SerializeToString())
    path = write(tmp_path / "m.onnx", build().SerializeToString() + field(7, 2, weight))
    assert Model(path).skeleton == without_big_data(onnx.load(path))
    assert [tensor.name for tensor in Model(path).skeleton.graph.initializer] == ["w"]


def test_a_known_number_with_another_wire_type_is_an_unknown_field(tmp_path: Path) -> None:
    odd = field(7, 0, varint(2**40)) + field(25, 1, bytes(8))
    path = write(tmp_path / "m.onnx", build().SerializeToString() + odd)
    assert Model(path).skeleton == onnx.load(path)


def inline_weights(path: Path, size: int) -> Path:
    """A model with ``size`` bytes of weights in it, all of them a hole in the file."""
    tensor = (
        field(1, 0, varint(size))
        + field(2, 0, varint(TensorProto.UINT8))
        + field(8, 2, b"w")
    )
    tensor += varint(9 << 3 | 2) + varint(size)
    graph = (
        build().graph.SerializeToString()
        + varint(5 << 3 | 2)
        + varint(len(tensor) + size)
        + tensor
    )
    head = field(1, 0, varint(10)) + varint(7 << 3 | 2) + varint(len(graph) + size) + graph
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    return path


def test_a_signature_reads_no_weights(tmp_path: Path) -> None:
    path = inline_weights(tmp_path / "m.onnx", 8 << 30)
    script = """if True:
        import resource, sys
        from pathlib import Path
        import onnx
        from onnx_harness.model.file import Model
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        model = Model(Path(sys.argv[1]))
        print(model.signature.inputs[0].name, model.size_bytes, model.skeleton.graph.initializer[0].dims[0])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    command = [sys.executable, "-c", script, str(path)]
    printed = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert printed[:3] == ["x", str(path.stat().st_size), str(8 << 30)]
    assert int(printed[3]) < 64 * 1024  # KiB


# --- signature


def test_a_signature_names_kinds_and_shapes(tmp_path: Path) -> None:
    inputs = [
        value("x", ["batch", 3, None, 0]),
        value("n", None, TensorProto.INT64),
        value("s", [], TensorProto.STRING),
    ]
    model = build(inputs=inputs, outputs=[value("y", [-1, 2])])
    signature = Model(write(tmp_path / "m.onnx", model)).signature
    assert signature.inputs == (
        ValueType("x", "tensor(float)", ("batch", 3, None, 0)),
        ValueType("n", "tensor(int64)", None),
        ValueType("s", "tensor(string)", ()),
    )
    assert signature.outputs == (ValueType("y", "tensor(float)", (None, 2)),)


TYPES = {
    dtype: helper.make_tensor_type_proto(TensorProto.DataType.Value(dtype), [2])
    for dtype in (
        "FLOAT",
        "DOUBLE",
        "FLOAT16",
        "BFLOAT16",
        "BOOL",
        "STRING",
        "UINT8",
        "INT4",
        "FLOAT8E4M3FN",
    )
}
TYPES |= {
    "sequence": helper.make_sequence_type_proto(TYPES["DOUBLE"]),
    "optional": helper.make_optional_type_proto(TYPES["FLOAT"]),
    "map": helper.make_map_type_proto(TensorProto.STRING, TYPES["FLOAT"]),
    "maps": helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, TYPES["FLOAT"])
    ),
    "sparse": helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, [2]),
}


@pytest.mark.parametrize("what", TYPES)
def test_a_kind_is_spelled_as_onnx_runtime_spells_it(tmp_path: Path, what: str) -> None:
    path = write(
        tmp_path / "m.onnx",
        build(inputs=[value("x"), helper.make_value_info("other", TYPES[what])]),
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert Model(path).signature.inputs[1].kind == session.get_inputs()[1].type


def test_an_undeclared_type_is_empty(tmp_path: Path) -> None:
    model = build(outputs=[onnx.ValueInfoProto(name="y")])
    assert Model(write(tmp_path / "m.onnx", model)).signature.outputs == (
        ValueType("y", "", None),
    )


def test_an_element_type_from_the_future_is_undefined(tmp_path: Path) -> None:
    model = build(inputs=[value("x", [1], 99)])
    assert (
        Model(write(tmp_path / "m.onnx", model)).signature.inputs[0].kind
        == "tensor(undefined)"
    )


@pytest.mark.parametrize(
    ("ir_version", "names"), [(3, ["x"]), (4, ["x", "w"]), (10, ["x", "w"])]
)
def test_a_weight_listed_as_input_is_one_from_ir_version_4(
    tmp_path: Path, ir_version: int, names: list[str]
) -> None:
    model = add_weight()
    model.ir_version = ir_version
    model.graph.input.append(value("w", [1000]))
    assert [
        info.name for info in Model(write(tmp_path / "m.onnx", model)).signature.inputs
    ] == names


def test_a_model_may_have_no_inputs(tmp_path: Path) -> None:
    assert (
        Model(write(tmp_path / "m.onnx", build(constant("y"), inputs=[]))).signature.inputs
        == ()
    )


@pytest.mark.parametrize(("domain", "opset"), [("", 21), ("ai.onnx", 21), ("ours", None)])
def test_the_opset_is_that_of_the_standard_domain(
    tmp_path: Path, domain: str, opset: int | None
) -> None:
    model = build()
    model.opset_import[0].domain = domain
    assert Model(write(tmp_path / "m.onnx", model)).opset == opset


def test_nodes_of_bodies_count() -> None:
    # Each If has itself and two bodies, each body a Constant and the next If.
    innermost = 1 + 2 * 1
    assert node_count(build(nested(0)).graph) == innermost
    assert node_count(build(nested(1)).graph) == 1 + 2 * (1 + innermost)


# --- external data


def external(
    path: Path,
    entries: dict[str, str],
    name: str = "w",
    model: onnx.ModelProto | None = None,
) -> Path:
    """Write a model whose weight of 1000 float32 is where ``entries`` say."""
    model = model or build(helper.make_node("Add", ["x", name], ["y"]))
    tensor = TensorProto(
        name=name,
        data_type=TensorProto.FLOAT,
        dims=[1000],
        data_location=TensorProto.EXTERNAL,
    )
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=text)
    model.graph.initializer.append(tensor)
    return write(path, model)


def external_twice(path: Path, one: dict[str, str], other: dict[str, str]) -> Model:
    external(path, one)
    return Model(external(path, other, "v", onnx.load(path, load_external_data=False)))


def two_files(folder: Path) -> Model:
    write(folder / "b.bin", BIG.tobytes())
    write(folder / "sub/a.bin", bytes(16) + BIG.tobytes())
    second = {"location": "sub/a.bin", "offset": "16", "length": "4000"}
    return external_twice(folder / "m.onnx", {"location": "b.bin"}, second)


def test_external_files_are_found_sized_and_loaded(tmp_path: Path) -> None:
    model = two_files(tmp_path)
    assert model.external_files == (tmp_path / "b.bin", tmp_path / "sub/a.bin")
    assert model.size_bytes == model.path.stat().st_size + 4000 + 4016
    loaded = [numpy_helper.to_array(tensor) for tensor in model.load().graph.initializer]
    assert [array.tolist() for array in loaded] == [BIG.tolist(), BIG.tolist()]


def test_a_file_that_several_tensors_share_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "w.bin", BIG.tobytes())
    model = external_twice(
        tmp_path / "m.onnx", {"location": "w.bin"}, {"location": "./w.bin"}
    )
    assert model.external_files == (tmp_path / "w.bin",)
    assert model.size_bytes == model.path.stat().st_size + 4000


def hidden_external_data(where: str) -> onnx.ModelProto:
    tensor = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value="w.bin")
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    match where:
        case "a body":
            body = helper.make_graph([node], "body", [], [value("y")])
            return build(
                helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
            )
        case "a function":
            return build(functions=[function(node)])
        case "a list":
            return build(custom(all=[tensor]))
    weight = sparse("dense")
    if "indices" in where:
        tensor.data_type, tensor.dims[:] = TensorProto.INT64, [2]
        weight.indices.CopyFrom(tensor)
    else:
        weight.values.CopyFrom(tensor)
    match where.partition("'")[0]:
        case "attribute":
            return build(helper.make_node("Constant", [], ["y"], sparse_value=weight))
        case "list":
            return build(custom(all=[sparse("first"), weight]))
        case _:
            return build(sparse_initializer=[sparse("first"), weight])


@pytest.mark.parametrize(
    "where",
    [
        "a body",
        "a function",
        "a list",
        "weight's values",
        "weight's indices",
        "attribute's values",
        "attribute's indices",
        "list's values",
        "list's indices",
    ],
)
def test_external_data_is_found_wherever_it_hides(tmp_path: Path, where: str) -> None:
    path = write(tmp_path / "m.onnx", hidden_external_data(where))
    with pytest.raises(
        ModelError,
        match=r"m\.onnx: external data of tensor 'w' is missing: there is no file 'w\.bin'",
    ):
        _ = Model(path).external_files
    write(tmp_path / "w.bin", bytes(16))
    assert Model(path).external_files == (tmp_path / "w.bin",)


LOCATIONS = {
    "../w.bin": "outside the model's folder",
    "sub/../../w.bin": "outside the model's folder",
    "/etc/passwd": "outside the model's folder",
    "": "outside the model's folder",
    ".": "outside the model's folder",
    "link.bin": "outside the model's folder",
    "linked_folder/w.bin": "outside the model's folder",
    "nowhere.bin": "is missing",
    "sub": "is missing",
    "dangling.bin": "is missing",
    "loop.bin": "is no path to a file",
    "w\0.bin": "is no path to a file",
    "w" * 300: "is no path to a file",
}


@pytest.mark.parametrize("location", LOCATIONS, ids=lambda location: repr(location[:20]))
def test_a_location_that_is_no_file_of_the_folder_is_refused(
    tmp_path: Path, location: str
) -> None:
    write(tmp_path / "w.bin", BIG.tobytes())
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    (folder / "linked_folder").symlink_to(tmp_path)
    (folder / "dangling.bin").symlink_to(folder / "gone.bin")
    (folder / "loop.bin").symlink_to(folder / "loop.bin")
    path = external(folder / "m.onnx", {"location": location})
    for ask in (ASKS["external_files"], ASKS["size_bytes"], ASKS["sha256"], ASKS["load"]):
        with pytest.raises(ModelError) as caught:
            ask(Model(path))
        assert str(caught.value).startswith("m.onnx: external data of tensor 'w' ")
        assert LOCATIONS[location] in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        (
            {"offset": "4", "length": "4000"},
            r"is truncated: 'w\.bin' has 4000 bytes, 4004 are needed",
        ),
        ({"offset": "4"}, r"is truncated: 'w\.bin' has 4000 bytes, 4004 are needed"),
        ({"length": "4001"}, r"is truncated: 'w\.bin' has 4000 bytes, 4001 are needed"),
        ({"offset": "9" * 5000}, "is truncated"),
        ({"offset": "-4"}, "an offset or length that isn't a number: '-4'"),
        ({"length": "-1"}, "an offset or length that isn't a number: '0', '-1'"),
        ({"offset": "0x10"}, "isn't a number"),
        ({"offset": "1_0"}, "isn't a number"),
        ({"offset": "4.0"}, "isn't a number"),
        ({"offset": "\N{ARABIC-INDIC DIGIT FOUR}"}, "isn't a number"),
        ({"length": ""}, "isn't a number"),
    ],
)
def test_an_offset_or_length_that_does_not_fit_is_refused(
    tmp_path: Path, entries: dict[str, str], complaint: str
) -> None:
    write(tmp_path / "w.bin", BIG.tobytes())
    with pytest.raises(ModelError, match=complaint):
        _ = Model(
            external(tmp_path / "m.onnx", {"location": "w.bin", **entries})
        ).external_files


def test_a_file_shorter_than_the_tensor_is_truncated_though_no_length_is_given(
    tmp_path: Path,
) -> None:
    write(tmp_path / "w.bin", BIG.tobytes()[:-1])
    with pytest.raises(ModelError, match=r"'w\.bin' has 3999 bytes, 4000 are needed"):
        Model(external(tmp_path / "m.onnx", {"location": "w.bin"})).load()


@pytest.mark.parametrize(
    "dtype", [TensorProto.INT4, TensorProto.FLOAT4E2M1, TensorProto.UNDEFINED, 99]
)
def test_a_tensor_whose_size_cannot_be_told_is_not_measured(
    tmp_path: Path, dtype: int
) -> None:
    write(tmp_path / "w.bin", bytes(500))
    path = external(tmp_path / "m.onnx", {"location": "w.bin"})
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].data_type = dtype
    assert Model(write(path, model)).external_files == (tmp_path / "w.bin",)


def test_a_link_inside_the_folder_is_for_onnx_to_refuse(tmp_path: Path) -> None:
    write(tmp_path / "w.bin", BIG.tobytes())
    (tmp_path / "link.bin").symlink_to(tmp_path / "w.bin")
    model = Model(external(tmp_path / "m.onnx", {"location": "link.bin"}))
    assert model.external_files == (tmp_path / "w.bin",)
    with pytest.raises(ModelError, match=r"^m\.onnx can't be loaded: .*symbolic link"):
        model.load()


def test_a_model_behind_a_link_finds_its_data_where_the_link_lies(tmp_path: Path) -> None:
    path = external(tmp_path / "a/m.onnx", {"location": "w.bin"})
    write(tmp_path / "b/w.bin", BIG.tobytes())
    (tmp_path / "b/m.onnx").symlink_to(path)
    assert Model(tmp_path / "b/m.onnx").external_files == (tmp_path / "b/w.bin",)


@pytest.mark.parametrize("key", ["location", "offset", "length", "checksum"])
def test_external_data_described_in_no_utf_8_is_refused_or_ignored(
    tmp_path: Path, key: str
) -> None:
    write(tmp_path / "w.bin", BIG.tobytes())
    path = external(tmp_path / "m.onnx", {"location": "w.bin", key: "8<8"})
    model = Model(write(path, path.read_bytes().replace(b"8<8", b"8\xff8")))
    if key == "checksum":
        assert model.external_files == (tmp_path / "w.bin",)
    else:
        with pytest.raises(
            ModelError, match=r"there is no file '8\ufffd8'|isn't a number: .*'8\ufffd8'"
        ):
            _ = model.external_files


def test_names_in_no_utf_8_are_text_all_the_same(tmp_path: Path) -> None:
    model = (
        build(inputs=[value("8<8", ["8<8"])]).SerializeToString().replace(b"8<8", b"8\xff8")
    )
    expected = ValueType("8\ufffd8", "tensor(float)", ("8\ufffd8",))
    assert Model(write(tmp_path / "m.onnx", model)).signature.inputs == (expected,)


# --- hash


def test_a_hash_is_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    model = two_files(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    (tmp_path / "there/m.onnx").rename(tmp_path / "there/renamed.onnx")
    assert Model(tmp_path / "there/renamed.onnx").sha256 == model.sha256


def test_a_hash_does_not_depend_on_how_the_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absolute = two_files(tmp_path).sha256
    monkeypatch.chdir(tmp_path)
    assert Model(Path("m.onnx")).sha256 == Model(Path("sub/../m.onnx")).sha256 == absolute


@pytest.mark.parametrize("name", ["m.onnx", "b.bin", "sub/a.bin"])
def test_one_bit_anywhere_changes_the_hash(tmp_path: Path, name: str) -> None:
    model = two_files(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[-1] ^= 1  # of m.onnx: the version of the opset
    (tmp_path / name).write_bytes(data)
    assert Model(model.path).sha256 != two_files(tmp_path / "again").sha256


def test_one_bit_of_an_inline_weight_changes_the_hash(tmp_path: Path) -> None:
    other = BIG.copy()
    other[500] = np.nextafter(other[500], 0)
    one, two = (
        Model(write(tmp_path / f"{array[500]}.onnx", add_weight(array)))
        for array in (BIG, other)
    )
    assert one.skeleton == two.skeleton
    assert one.sha256 != two.sha256


def test_data_exchanged_between_two_files_changes_the_hash(tmp_path: Path) -> None:
    hashes = set()
    for folder, first, second in (("1", BIG, BIG[::-1]), ("2", BIG[::-1], BIG)):
        write(tmp_path / folder / "a.bin", first.tobytes())
        write(tmp_path / folder / "b.bin", second.tobytes())
        hashes.add(
            external_twice(
                tmp_path / folder / "m.onnx", {"location": "a.bin"}, {"location": "b.bin"}
            ).sha256
        )
    assert len(hashes) == 2


def test_the_hash_of_a_model_alone_is_that_of_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", add_weight())
    assert Model(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


# --- bad files

ASKS: dict[str, Callable[[Model], object]] = {
    "skeleton": lambda model: model.skeleton,
    "signature": lambda model: model.signature,
    "opset": lambda model: model.opset,
    "external_files": lambda model: model.external_files,
    "size_bytes": lambda model: model.size_bytes,
    "sha256": lambda model: model.sha256,
    "load": Model.load,
}
NOT_ONNX = {
    "empty": b"",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "an archive": b"PK\x03\x04" + bytes(100),
    "a pointer to large "
    "storage": b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1234\n",
    "zeros": bytes(5000),
    "ones": b"\xff" * 5000,
    "cut in a weight": add_weight().SerializeToString()[:-3000],
    "a field without a number": field(1, 0, varint(10))
    + field(7, 2, field(1, 2, field(5, 2, bytes(2000)))),
    "a group, which nobody writes": build().SerializeToString()
    + field(90, 3, field(90, 4, b"")),
    "text in a wrong encoding": field(1, 0, varint(10)) + field(2, 2, b"\xff\xfe"),
    "no graph": field(1, 0, varint(10)),
    "no IR version": build().SerializeToString()[2:],
}


@pytest.mark.parametrize("asked", ASKS)
@pytest.mark.parametrize("what", NOT_ONNX)
def test_what_is_not_an_onnx_model_is_told_so(tmp_path: Path, what: str, asked: str) -> None:
    model = Model(write(tmp_path / "m.onnx", NOT_ONNX[what]))
    with pytest.raises(ModelError, match=r"^m\.onnx .*(isn't an ONNX|is empty|Git LFS)"):
        ASKS[asked](model)


@pytest.mark.parametrize("asked", ASKS)
def test_a_file_that_cannot_be_read_is_told_so(tmp_path: Path, asked: str) -> None:
    with pytest.raises(
        ModelError, match=r"m\.onnx can't be read: No such file or directory"
    ):
        ASKS[asked](Model(tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match="can't be read: Is a directory"):
        ASKS[asked](Model(tmp_path))


def test_graphs_nested_beyond_what_protobuf_takes_are_refused(tmp_path: Path) -> None:
    graph = build(constant("y")).graph.SerializeToString()
    for _ in range(400):
        graph = field(1, 2, field(5, 2, field(6, 2, graph)))
    path = write(tmp_path / "m.onnx", field(1, 0, varint(10)) + field(7, 2, graph))
    with pytest.raises(ModelError, match=r"^m\.onnx .*isn't an ONNX file"):
        _ = Model(path).skeleton


def test_a_model_cut_after_any_byte_is_refused_or_has_what_came_before(
    tmp_path: Path,
) -> None:
    whole = build(
        initializers=(numpy_helper.from_array(BIG[:300], "w"),), producer_name="us"
    ).SerializeToString()
    for length in range(len(whole)):
        model = Model(write(tmp_path / "m.onnx", whole[:length]))
        try:
            skeleton = model.skeleton
        except ModelError as error:
            assert str(error).startswith("m.onnx is")  # noqa: PT017 - either end is right
        else:
            assert skeleton == without_big_data(onnx.load(model.path))
