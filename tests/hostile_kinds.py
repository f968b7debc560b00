"""All kinds of hostile files: those of ``tests.hostile``, and more that hide the same deeper.

In subgraphs and functions, behind inputs of any size, in a few bytes of the wire format, in names
wherever one can stand, and in what lies beside a model.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial, reduce
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper
from onnx.helper import make_node as node

from tests.hostile import (
    ESCAPE,
    FOLDERS,
    MODELS,
    Writer,
    added,
    external,
    external_with,
    function,
    info,
    input_of,
    loop,
    loop_body,
    model,
    of_shape,
    relu,
    saver,
    tensor,
    whole,
)

BOOL, FLOAT, STRING = TensorProto.BOOL, TensorProto.FLOAT, TensorProto.STRING
Maker = Callable[[], ModelProto | bytes]


def kinds() -> Iterator[tuple[str, Writer]]:
    """Yield each kind with a function that writes it to the path of a model."""
    for name, made in {**MODELS, **BOMBS, **CRASHES, **WIRE, **OUTSIDE, **NAMES}.items():
        yield name, saver(made)
    yield from {**FOLDERS, **BESIDE}.items()


def floats(name: str, values: list[float], shape: list[int] | None = None) -> TensorProto:
    return helper.make_tensor(name, FLOAT, [len(values)] if shape is None else shape, values)


def truth(name: str) -> TensorProto:
    return helper.make_tensor(name, BOOL, [], [True])


def of_opset(made: ModelProto, **versions: int) -> ModelProto:
    domains = {"main": "", "ml": "ai.onnx.ml", "ms": "com.microsoft"}
    del made.opset_import[:]
    for name, version in versions.items():
        made.opset_import.append(helper.make_opsetid(domains[name], version))
    return made


def one(
    op: str, inputs: list[str], *constants: TensorProto, **attributes: Any
) -> ModelProto:
    """A model of one operator, whose first output is the model's."""
    return model([node(op, inputs, ["y"], **attributes)], [*constants])


def of_image(
    op: str, inputs: list[str], *constants: TensorProto, **attributes: Any
) -> ModelProto:
    image = info("x", [1, 4, 4, 4])
    return model([node(op, inputs, ["y"], **attributes)], [*constants], inputs=[image])


def of_constants(
    op: str, inputs: list[str], *constants: TensorProto, **attributes: Any
) -> ModelProto:
    return model([node(op, inputs, ["c"], **attributes), added("c")], [*constants])


def _texts_doubled() -> ModelProto:
    nodes = [node("StringConcat", [f"c{k}"] * 2, [f"c{k + 1}"]) for k in range(40)]
    counted = [node("Size", ["c40"], ["n"]), node("Cast", ["n"], ["f"], to=FLOAT)]
    text = TensorProto(name="c0", data_type=STRING, dims=[1], string_data=[b"text"])
    return of_opset(model([*nodes, *counted, added("f")], [text]), main=20)


def _grown_in_a_loop() -> ModelProto:
    kept = node("Identity", ["go"], ["kept"])
    return loop(40, body=loop_body([kept, node("Concat", ["v", "v"], ["w"], axis=0)]))


def _in_a_branch(inner: ModelProto) -> ModelProto:
    graph = helper.make_graph(
        inner.graph.node, "b", [], [info("y")], inner.graph.initializer
    )
    return model(
        [node("If", ["q"], ["y"], then_branch=graph, else_branch=graph)], [truth("q")]
    )


def _by_an_attribute(shape: list[int]) -> ModelProto:
    listed = node("Constant", [], ["s"])
    listed.attribute.add(name="value_ints", ref_attr_name="shape", type=AttributeProto.INTS)
    made = function("f", [listed, node("ConstantOfShape", ["s"], ["b"])])
    made.attribute.append("shape")
    return model(
        [node("f", ["x"], ["c"], domain="my", shape=shape), added("c")], functions=[made]
    )


def _calls_in_branches(levels: int, *, itself: bool = False) -> ModelProto:
    """Each function calls the one before in both branches: the nodes double with each."""
    yes = node("Constant", [], ["q"], value=truth(""))
    functions = [] if itself else [function("f0", relu_of("a", "b"))]
    for level in range(0 if itself else 1, levels):
        inner = f"f{level if itself else level - 1}"
        branches = {}
        for name in ("then_branch", "else_branch"):
            call = node(inner, ["a"], [name], domain="my")
            branches[name] = helper.make_graph([call], name, [], [info(name)])
        functions.append(function(f"f{level}", [yes, node("If", ["q"], ["b"], **branches)]))
    return model([node(f"f{levels - 1}", ["x"], ["y"], domain="my")], functions=functions)


def relu_of(source: str, target: str) -> list[NodeProto]:
    return [node("Relu", [source], [target])]


def _size_squared() -> ModelProto:
    nodes = [
        node("Size", ["x"], ["s"]),
        node("Add", ["s", "k"], ["t"]),
        node("Mul", ["t", "t"], ["u"]),
        node("Reshape", ["u", "one"], ["v"]),
        node("ConstantOfShape", ["v"], ["y"]),
    ]
    return model(nodes, [tensor("k", [1 << 20], []), tensor("one", [1])])


def _classes_of_input() -> ModelProto:
    nodes = [node("Cast", ["x"], ["i"], to=7), node("OneHot", ["i", "d", "v"], ["y"])]
    return model(nodes, [tensor("d", [1 << 40], []), floats("v", [0.0, 1.0])])


def _scaled_input() -> ModelProto:
    nodes = [node("Reshape", ["x", "s"], ["q"]), node("Resize", ["q", "", "f"], ["y"])]
    return model(nodes, [tensor("s", [1, 1, -1, 4]), floats("f", [1.0, 1.0, 1e6, 1e6])])


PIXEL = floats("q", [0.0], [1, 1, 1, 1])
KERNEL = floats("k", [0.0], [1, 1, 1, 1])
FAR = 1 << 20

BOMBS: dict[str, Maker] = {
    "growth: texts doubled 40 times": _texts_doubled,
    "growth: Concat doubled in a loop": _grown_in_a_loop,
    "bomb: ConstantOfShape in a branch": lambda: _in_a_branch(
        of_shape("ConstantOfShape", [1 << 40])
    ),
    "growth: a shape by a function's attribute": lambda: _by_an_attribute([FAR, FAR]),
    "bomb: functions that call in branches": lambda: _calls_in_branches(40),
    "bomb: a function that calls itself in a branch": lambda: _calls_in_branches(
        1, itself=True
    ),
    "bomb: Bernoulli": lambda: of_constants(
        "Bernoulli", ["r"], TensorProto(name="r", data_type=FLOAT, dims=[1 << 40])
    ),
    "growth: a sum of five axes": lambda: of_constants(
        "Einsum", ["v"] * 5, floats("v", [0.0] * 1000), equation="a,b,c,d,e->abcde"
    ),
    "growth: Resize by factors": lambda: of_constants(
        "Resize", ["q", "", "f"], PIXEL, floats("f", [1.0, 1.0, 1e9, 1e9])
    ),
    "growth: ConvTranspose by strides": lambda: of_constants(
        "ConvTranspose",
        ["q", "k"],
        floats("q", [0.0] * 4, [1, 1, 2, 2]),
        KERNEL,
        strides=[FAR, FAR],
    ),
    "growth: MaxUnpool": lambda: of_constants(
        "MaxUnpool",
        ["q", "i", "s"],
        PIXEL,
        tensor("i", [0], [1, 1, 1, 1]),
        tensor("s", [1, 1, FAR, FAR]),
        kernel_shape=[1, 1],
    ),
    "growth: an input tiled": lambda: one("Tile", ["x", "r"], tensor("r", [FAR, FAR])),
    "bomb: an input expanded": lambda: one(
        "Expand", ["x", "r"], tensor("r", [1 << 40, 1, 1])
    ),
    "growth: an input padded": lambda: one(
        "Pad", ["x", "r"], tensor("r", [0, 0, 1 << 40, 0])
    ),
    "growth: an input's classes": _classes_of_input,
    "growth: an input resized": _scaled_input,
    "growth: an input's size squared": _size_squared,
    "growth: padding of a Conv": lambda: of_image(
        "Conv", ["x", "k"], floats("k", [0.0] * 4, [1, 4, 1, 1]), pads=[FAR] * 4
    ),
    "tensor: sparse, in a Constant": lambda: _sparse_constant([1 << 40, 1 << 40]),
    "tensor: sparse, an index outside": lambda: _sparse([4], [1 << 40]),
    "tensor: sparse, an index below 0": lambda: _sparse([4], [-(1 << 40)]),
    "tensor: sparse, more indices than values": lambda: _sparse([4], [0, 1, 2]),
    "tensor: sparse, dimensions below 0": lambda: _sparse([-4], [0]),
    "input: a gibibyte to the byte": lambda: input_of([1 << 28]),
    "input: 10,000 dimensions": lambda: input_of([1] * 10_000),
}


def _sparse(dims: list[int], indices: list[int], **fields: Any) -> ModelProto:
    values = floats("c", [1.0])
    for name, value in fields.items():
        setattr(values, name, value)
    made = model([added("c")])
    sparse = helper.make_sparse_tensor(values, tensor("", indices), dims)
    made.graph.sparse_initializer.append(sparse)
    return made


def _sparse_constant(dims: list[int]) -> ModelProto:
    sparse = helper.make_sparse_tensor(floats("v", [1.0]), tensor("", [0]), dims)
    return model([node("Constant", [], ["c"], sparse_value=sparse), added("c")])


def _of_whole_numbers(op: str, first: list[int], second: int) -> ModelProto:
    """An operator on whole numbers, of which the first hangs on the input."""
    nodes = [
        node("Cast", ["x"], ["i"], to=7),
        node("Mul", ["i", "o"], ["j"]),
        node("Add", ["j", "a"], ["k"]),
        node(op, ["k", "b"], ["q"]),
        node("Cast", ["q"], ["y"], to=FLOAT),
    ]
    constants = [tensor("o", [0], []), tensor("a", first, []), tensor("b", [second], [])]
    return model(nodes, constants)


CRASHES: dict[str, Maker] = {
    "attribute: no group": lambda: _of_groups(0),
    "attribute: a group below 0": lambda: _of_groups(-1),
    "step: 0": lambda: _range(1.0, 0.0),
    "step: 0, of whole numbers": lambda: _range(1, 0, TensorProto.INT64),
    "step: 0, to a limit of the input's": lambda: _range(None, 0.0),
    "step: too tiny to count": lambda: _range(1.0, 1e-30),
    "step: no number": lambda: _range(1.0, math.nan),
    "step: to infinity": lambda: _range(math.inf, 1.0),
    "text: not UTF-8, as an output": lambda: _of_texts(
        model([node("Identity", ["c"], ["y"])], [NO_TEXT])
    ),
    "text: not UTF-8, looked up": lambda: _of_texts(
        of_opset(
            model(
                [
                    node("Cast", ["x"], ["i"], to=7),
                    node(
                        "LabelEncoder",
                        ["i"],
                        ["y"],
                        domain="ai.onnx.ml",
                        keys_int64s=[0, 1],
                        values_strings=[b"\xff", b"\xfe"],
                        default_string=b"\xfd",
                    ),
                ]
            ),
            main=17,
            ml=2,
        )
    ),
    "text: not UTF-8, as a key": lambda: of_opset(
        model(
            [
                node(
                    "LabelEncoder",
                    ["x"],
                    ["y"],
                    domain="ai.onnx.ml",
                    keys_strings=[b"\xff", b"b"],
                    values_floats=[1.0, 2.0],
                )
            ],
            inputs=[info("x", ["n"], STRING)],
        ),
        main=17,
        ml=2,
    ),
    "arithmetic: a division by 0": lambda: _of_whole_numbers("Div", [1], 0),
    "arithmetic: a remainder of 0": lambda: _of_whole_numbers("Mod", [1], 0),
    "arithmetic: the least number by -1": lambda: _of_whole_numbers("Div", [-(1 << 63)], -1),
    "attribute: strides of 0": lambda: of_image(
        "MaxPool", ["x"], kernel_shape=[2, 2], strides=[0] * 2
    ),
    "attribute: a block of 0": lambda: of_image("SpaceToDepth", ["x"], blocksize=0),
    "attribute: a window of 0": lambda: of_image("LRN", ["x"], size=0),
    "attribute: no head": lambda: of_opset(
        one("Attention", ["x", "x", "x"], q_num_heads=0, kv_num_heads=0), main=23
    ),
    "attribute: a hidden size of 2^40": lambda: model(
        [node("LSTM", ["x", "w", "r"], ["", "y"], hidden_size=1 << 40)],
        [floats("w", [0.0] * 4, [1, 1, 4]), floats("r", [0.0] * 4, [1, 4, 1])],
        inputs=[info("x", [1, 1, 4])],
    ),
    "attribute: a tree that leads to itself": lambda: of_opset(_tree(), main=17, ml=3),
}


NO_TEXT: TensorProto = TensorProto(
    name="c", data_type=STRING, dims=[1], string_data=[b"\xff\xfe"]
)


def _of_texts(made: ModelProto) -> ModelProto:
    made.graph.output[0].CopyFrom(helper.make_empty_tensor_value_info("y"))
    made.graph.output[0].type.tensor_type.elem_type = STRING
    return made


def _of_groups(group: int) -> ModelProto:
    return of_image("Conv", ["x", "k"], floats("k", [0.0] * 4, [1, 4, 1, 1]), group=group)


def _range(limit: float | None, step: float, kind: int = FLOAT) -> ModelProto:
    """The sum of a Range from 0; without a limit it ends at the greatest number of the input."""
    nodes = [
        node("Range", ["a", "b", "d"], ["r"]),
        node("Cast", ["r"], ["f"], to=FLOAT),
        node("ReduceSum", ["f"], ["t"]),
        added("t"),
    ]
    numbers = {"a": 0, "d": step} | ({} if limit is None else {"b": limit})
    if limit is None:
        nodes.insert(0, node("ReduceMax", ["x"], ["b"], keepdims=0))
    constants = [
        helper.make_tensor(name, kind, [], [value]) for name, value in numbers.items()
    ]
    return model(nodes, constants)


def _tree() -> ModelProto:
    attributes: dict[str, Any] = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.0, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [1, 0, 0],
        "target_treeids": [0],
        "target_nodeids": [2],
        "target_ids": [0],
        "target_weights": [1.0],
    }
    return one(
        "TreeEnsembleRegressor", ["x"], domain="ai.onnx.ml", n_targets=1, **attributes
    )


def varint(number: int) -> bytes:
    size = []
    while number > 0x7F:
        size.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*size, number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def _constant_of_bytes(dims: bytes, data: bytes = field(9, bytes(16))) -> bytes:
    """A model whose constant has dimensions and data as they stand here."""
    return _with_in_graph(field(5, field(8, b"c") + b"\x10\x01" + dims + data), added("c"))


def _with_in_graph(content: bytes, *nodes: NodeProto) -> bytes:
    made = model([*nodes] or relu())
    rest = ModelProto(ir_version=9, opset_import=made.opset_import)
    return bytes(
        rest.SerializeToString() + field(7, made.graph.SerializeToString() + content)
    )


FOUR = field(1, b"\x04")

WIRE: dict[str, Maker] = {
    "bytes: a dimension in ten bytes": lambda: _constant_of_bytes(
        field(1, b"\x84" + b"\x80" * 8 + b"\x00")
    ),
    "bytes: a dimension in thirteen bytes": lambda: _constant_of_bytes(
        field(1, b"\x84" + b"\x80" * 11 + b"\x00")
    ),
    "bytes: a dimension beyond 64 bits": lambda: _constant_of_bytes(
        field(1, b"\xff" * 9 + b"\x7f")
    ),
    "bytes: dimensions of both forms": lambda: _constant_of_bytes(
        field(1, varint(1 << 31)) + b"\x08" + varint(1 << 31)
    ),
    "bytes: five million dimensions": lambda: _constant_of_bytes(
        field(1, b"\x01" * 5_000_000)
    ),
    "bytes: data twice, the second shorter": lambda: _constant_of_bytes(
        FOUR, field(9, bytes(16)) + field(9, bytes(3))
    ),
    "bytes: half a number": lambda: _constant_of_bytes(FOUR, field(4, bytes(15))),
    "bytes: a name twice": lambda: _constant_of_bytes(FOUR + field(8, b"d")),
    "bytes: a million empty nodes": lambda: _with_in_graph(b"\x0a\x00" * 1_000_000),
    "bytes: a million empty constants": lambda: _with_in_graph(b"\x2a\x00" * 1_000_000),
    "bytes: a million empty functions": lambda: whole() + b"\xca\x01\x00" * 1_000_000,
    "bytes: a field 0": lambda: whole() + b"\x00\x01",
    "bytes: a field beyond 2^29": lambda: whole() + varint(1 << 40) + b"\x01",
    "bytes: wire type 6": lambda: whole() + b"\x0e\x01",
    "bytes: the end of a group": lambda: whole() + b"\x0c",
    "bytes: unknown fields 3,000 deep": lambda: (
        whole() + reduce(lambda content, _: field(999, content), range(3000), b"")
    ),
}


def _data(location: str, kind: int = FLOAT, **entries: str) -> TensorProto:
    made = TensorProto(
        name="c", data_type=kind, dims=[4], data_location=TensorProto.EXTERNAL
    )
    for key, value in {"location": location, **entries}.items():
        made.external_data.add(key=key, value=value)
    return made


def _located_twice() -> ModelProto:
    constant = _data("m.onnx")
    constant.external_data.add(key="location", value="/etc/passwd")
    return model([added("c")], [constant])


UPWARDS = "../../../../etc/passwd"

OUTSIDE: dict[str, Maker] = {
    "external: of a Constant": lambda: model(
        [node("Constant", [], ["c"], value=_data("/etc/passwd")), added("c")]
    ),
    "external: in a branch": lambda: _in_a_branch(model([added("c")], [_data(UPWARDS)])),
    "external: in a function": lambda: model(
        [node("f", ["x"], ["y"], domain="my")],
        functions=[
            function(
                "f",
                [
                    node("Constant", [], ["c"], value=_data(UPWARDS)),
                    node("Add", ["a", "c"], ["b"]),
                ],
            )
        ],
    ),
    "external: of a sparse tensor": lambda: _sparse_outside(),
    "external: of texts": lambda: model(
        [node("Identity", ["c"], ["y"])], [_data("m.onnx", STRING, length="16")]
    ),
    "external: two locations": _located_twice,
    "external: a length below 0": lambda: external_with(location="m.onnx", length="-16"),
    "external: an offset in other digits": lambda: external_with(
        location="m.onnx", offset="٣"
    ),
    "external: an offset in base 16": lambda: external_with(
        location="m.onnx", offset="0x10"
    ),
    "external: an offset of a million digits": lambda: external_with(
        location="m.onnx", offset="9" * 1_000_000
    ),
    "external: an end that wraps": lambda: external_with(
        location="m.onnx", offset=str((1 << 64) - 8), length="16"
    ),
    "external: an address": lambda: external("file:///etc/passwd"),
    "external: backslashes": lambda: external("..\\..\\..\\etc\\passwd"),
    "external: the environment of the process": lambda: external("/proc/self/environ"),
    "external: a command of GitHub's": lambda: external("a\n::error::b"),
    "external: a key of escape sequences": lambda: external_with(
        location="m.onnx", **{ESCAPE: ESCAPE}
    ),
}


def _sparse_outside() -> ModelProto:
    made = _sparse([4], [0])
    made.graph.sparse_initializer[0].values.CopyFrom(_data("/etc/passwd"))
    return made


def _named(where: str, name: str = ESCAPE) -> ModelProto:
    """Two nodes, with escape sequences in one of the places where a name can stand."""
    made = model(
        [*relu_of("x", "m"), node("Add", ["m", "w"], ["y"])], [floats("w", [1.0] * 4)]
    )
    graph, first = made.graph, made.graph.node[0]
    match where:
        case "the descriptions":
            made.doc_string = graph.doc_string = first.doc_string = name
        case "the producer":
            made.producer_name = made.producer_version = made.domain = name
        case "the metadata":
            made.metadata_props.add(key=name, value=name)
        case "the graph":
            graph.name = name
        case "a domain":
            made.opset_import.add(domain=name, version=1)
        case "a value":
            first.output[0] = graph.node[1].input[0] = name
        case "an attribute":
            first.attribute.add(name=name, type=AttributeProto.INT, i=1)
        case "an attribute's text":
            first.attribute.add(name="alpha", type=AttributeProto.STRING, s=name.encode())
        case "a denotation":
            graph.input[0].type.denotation = name
        case "a function":
            made.functions.append(function(name, relu_of("a", "b")))
            first.op_type, first.domain = name, "my"
        case "a branch":
            inner = helper.make_graph(
                [node("Nope", ["x"], [name], name=name)], name, [], [info(name)]
            )
            first.CopyFrom(node("If", ["q"], ["m"], then_branch=inner, else_branch=inner))
            graph.initializer.append(truth("q"))
        case "an input that isn't there":
            first.input[0] = name
        case "a dimension":
            graph.input[0].CopyFrom(info("x", [name, 4]))
        case "two constants":
            graph.initializer[0].name = graph.node[1].input[1] = name
            graph.initializer.append(floats(name, [1.0] * 4))
        case "two inputs":
            graph.input.extend([info(name), info(name)])
        case "a second output":
            graph.output.append(info(name))
        case "training":
            made.training_info.add().algorithm.name = name
        case "an annotation":
            graph.quantization_annotation.add(tensor_name=name)
    return made


PLACES_THAT_RUN = (
    *(
        "the descriptions",
        "the producer",
        "the metadata",
        "the graph",
        "a domain",
        "a value",
    ),
    *(
        "a denotation",
        "a function",
        "a dimension",
        "two constants",
        "training",
        "an annotation",
    ),
)
PLACES_REFUSED = (
    *("an attribute", "an attribute's text", "a branch", "an input that isn't there"),
    *("two inputs", "a second output"),
)
NAMES: dict[str, Maker] = {
    f"name: escape sequences in {place}": partial(_named, place)
    for place in (*PLACES_THAT_RUN, *PLACES_REFUSED)
}


def _folder_of_elsewhere(path: Path) -> None:
    (path.parent / "sub").symlink_to("/etc")
    onnx.save(external("sub/passwd"), path)


def _socket_beside(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # its address has room for a hundred letters
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("data.bin")
    finally:
        os.chdir(before)
    onnx.save(external("data.bin"), path)


def _environment_beside(path: Path) -> None:
    (path.parent / "data.bin").symlink_to("/proc/self/environ")
    onnx.save(external("data.bin"), path)


def _terabyte_beside(path: Path) -> None:
    with (path.parent / "data.bin").open("wb") as file:
        file.truncate(1 << 40)
    onnx.save(external("data.bin", 0, 1 << 40, (1 << 38,)), path)


def _recorded(target: str | None, path: Path) -> None:
    """A recorded input set that is a link, or a pipe."""
    path.write_bytes(whole())
    folder = path.parent / "test_data_set_0"
    folder.mkdir()
    if target is None:
        os.mkfifo(folder / "input_0.pb")
    else:
        (folder / "input_0.pb").symlink_to(target)


BESIDE: dict[str, Writer] = {
    "file: a link to /etc/passwd": lambda path: path.symlink_to("/etc/passwd"),
    "file: a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "file: a pipe": os.mkfifo,
    "file: a folder": Path.mkdir,
    "external: in a folder that is a link": _folder_of_elsewhere,
    "external: a socket": _socket_beside,
    "external: a link to the environment": _environment_beside,
    "external: a terabyte of nothing": _terabyte_beside,
    "recorded: a pipe": partial(_recorded, None),
    "recorded: /dev/zero": partial(_recorded, "/dev/zero"),
    "recorded: /etc/passwd": partial(_recorded, "/etc/passwd"),
}
