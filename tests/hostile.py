"""Model files that mean no good, each a few hundred bytes: what an untrusted file may hold, kind by
kind.

None of them uses a hole of a library: each is valid protobuf or plainly isn't, and asks for more
than there is, for something outside, or for something absurd.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper

Writer = Callable[[Path], object]
ESCAPE = "\x1b]0;owned\x07\x1b[31m"


def info(
    name: str, shape: list[int | str] | None = None, kind: int = TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["n", 4] if shape is None else shape)


def tensor(name: str, values: list[int], shape: list[int] | None = None) -> TensorProto:
    return helper.make_tensor(
        name, TensorProto.INT64, [len(values)] if shape is None else shape, values
    )


def _bytes(message: Any) -> bytes:
    raw: bytes = message.SerializeToString()
    return raw


def model(
    nodes: list[onnx.NodeProto],
    constants: list[TensorProto] | None = None,
    *,
    inputs: list[onnx.ValueInfoProto] | None = None,
    output: str = "y",
    functions: list[onnx.FunctionProto] | None = None,
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x")] if inputs is None else inputs,
        [info(output)],
        list(constants or []),
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=9, functions=list(functions or [])
    )


def relu() -> list[onnx.NodeProto]:
    return [helper.make_node("Relu", ["x"], ["y"])]


def added(name: str) -> onnx.NodeProto:
    """The last node: what was made on the way is added to the input, so that nothing is dead."""
    return helper.make_node("Add", ["x", name], ["y"])


def _doubling(op: str, count: int) -> ModelProto:
    nodes = []
    for number in range(count):
        attributes: dict[str, Any] = {"axis": 0} if op == "Concat" else {}
        nodes.append(
            helper.make_node(op, [f"c{number}"] * 2, [f"c{number + 1}"], **attributes)
        )
    return model(
        [*nodes, added(f"c{count}")],
        [helper.make_tensor("c0", TensorProto.FLOAT, [4], [0.0] * 4)],
    )


def _tiles(count: int) -> ModelProto:
    nodes = [helper.make_node("Tile", [f"c{n}", "r"], [f"c{n + 1}"]) for n in range(count)]
    first = helper.make_tensor("c0", TensorProto.FLOAT, [1, 1], [0.0])
    return model([*nodes, added(f"c{count}")], [first, tensor("r", [1000, 1000])])


def of_shape(op: str, shape: list[int], **attributes: Any) -> ModelProto:
    constants = [
        tensor("s", shape),
        helper.make_tensor("one", TensorProto.FLOAT, [1], [0.0]),
    ]
    inputs = {"ConstantOfShape": ["s"], "Expand": ["one", "s"], "Reshape": ["one", "s"]}[op]
    return model([helper.make_node(op, inputs, ["c"], **attributes), added("c")], constants)


def _range(limit: int) -> ModelProto:
    constants = [
        tensor(name, [value], []) for name, value in (("a", 0), ("b", limit), ("d", 1))
    ]
    nodes = [
        helper.make_node("Range", ["a", "b", "d"], ["r"]),
        helper.make_node("Cast", ["r"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["c"], ["t"]),
    ]
    return model([*nodes, added("t")], constants)


def _random(shape: list[int]) -> ModelProto:
    return model([helper.make_node("RandomNormal", [], ["c"], shape=shape), added("c")])


def _computed_shape() -> ModelProto:
    nodes = [
        helper.make_node("Mul", ["k", "k"], ["k2"]),
        helper.make_node("Mul", ["k2", "k2"], ["k4"]),
        helper.make_node("ConstantOfShape", ["k4"], ["c"]),
    ]
    return model([*nodes, added("c")], [tensor("k", [10_000])])


def _outer_product() -> ModelProto:
    constants = [tensor("a", [1, 1_000_000]), tensor("b", [1_000_000, 1])]
    nodes = [
        helper.make_node("ConstantOfShape", ["a"], ["row"]),
        helper.make_node("ConstantOfShape", ["b"], ["column"]),
        helper.make_node("Add", ["row", "column"], ["c"]),
    ]
    return model([*nodes, added("c")], constants)


def _matmul() -> ModelProto:
    constants = [tensor("a", [10_000_000, 1]), tensor("b", [1, 10_000_000])]
    nodes = [
        helper.make_node("ConstantOfShape", ["a"], ["row"]),
        helper.make_node("ConstantOfShape", ["b"], ["column"]),
        helper.make_node("MatMul", ["row", "column"], ["c"]),
    ]
    return model([*nodes, added("c")], constants)


def _one_hot() -> ModelProto:
    constants = [
        tensor("s", [1_000_000]),
        tensor("depth", [1 << 40], []),
        helper.make_tensor("v", TensorProto.FLOAT, [2], [0.0, 1.0]),
    ]
    zero = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["i"], value=zero),
        helper.make_node("OneHot", ["i", "depth", "v"], ["c"]),
    ]
    return model([*nodes, added("c")], constants)


def _pad() -> ModelProto:
    constants = [
        helper.make_tensor("one", TensorProto.FLOAT, [1, 1], [0.0]),
        tensor("p", [0, 0, 1_000_000, 1_000_000]),
    ]
    return model([helper.make_node("Pad", ["one", "p"], ["c"]), added("c")], constants)


def _resize() -> ModelProto:
    constants = [
        helper.make_tensor("one", TensorProto.FLOAT, [1, 1, 1, 1], [0.0]),
        tensor("s", [1, 1, 1_000_000, 1_000_000]),
    ]
    return model(
        [helper.make_node("Resize", ["one", "", "", "s"], ["c"]), added("c")], constants
    )


def _declared(dims: list[int], kind: int = TensorProto.FLOAT, **fields: Any) -> ModelProto:
    constant = TensorProto(name="c", data_type=kind, dims=dims, **fields)
    return model([added("c")], [constant])


def input_of(shape: list[int | str], kind: int = TensorProto.FLOAT) -> ModelProto:
    return model(relu(), inputs=[info("x", shape, kind)])


def _sparse(dims: list[int]) -> ModelProto:
    values = helper.make_tensor("c", TensorProto.FLOAT, [1], [1.0])
    made = model([added("c")])
    made.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, tensor("", [0]), dims)
    )
    return made


def external(
    location: str, offset: int = 0, length: int = 16, shape: tuple[int, ...] = (4,)
) -> ModelProto:
    constant = TensorProto(
        name="c", data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL
    )
    for key, value in (
        ("location", location),
        ("offset", str(offset)),
        ("length", str(length)),
    ):
        constant.external_data.add(key=key, value=value)
    return model([added("c")], [constant])


def external_with(**entries: str) -> ModelProto:
    made = external("data.bin")
    del made.graph.initializer[0].external_data[:]
    for key, value in entries.items():
        made.graph.initializer[0].external_data.add(key=key, value=value)
    return made


def _linked_outside(path: Path) -> None:
    outside = path.parent.parent / "outside.bin"
    outside.write_bytes(bytes(16))
    (path.parent / "data.bin").symlink_to(outside)
    onnx.save(external("data.bin"), path)


def _linked_in_a_circle(path: Path) -> None:
    (path.parent / "data.bin").symlink_to(path.parent / "data.bin")
    onnx.save(external("data.bin"), path)


def _pipe_beside(path: Path) -> None:
    os.mkfifo(path.parent / "data.bin")
    onnx.save(external("data.bin"), path)


def _folder_beside(path: Path) -> None:
    (path.parent / "data.bin").mkdir()
    onnx.save(external("data.bin"), path)


def _overlapping(path: Path) -> None:
    """Many tensors of one range: the file is small, and what is loaded isn't."""
    with (path.parent / "data.bin").open("wb") as file:
        file.truncate(1 << 30)
    constants = []
    for number in range(2000):
        constants.append(external("data.bin", 0, 1 << 30, (1 << 28,)).graph.initializer[0])
        constants[-1].name = f"c{number}"
    onnx.save(model([added("c0")], constants), path)


def function(name: str, nodes: list[onnx.NodeProto]) -> onnx.FunctionProto:
    return helper.make_function(
        "my", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 17)]
    )


def _laughs(levels: int, width: int = 10) -> ModelProto:
    """Functions that call one another: each level is ten times the one before."""
    functions = [function("f0", [helper.make_node("Relu", ["a"], ["b"])])]
    for level in range(1, levels):
        steps = [
            helper.make_node(
                f"f{level - 1}",
                [f"a{k}" if k else "a"],
                [f"a{k + 1}" if k < width - 1 else "b"],
                domain="my",
            )
            for k in range(width)
        ]
        functions.append(function(f"f{level}", steps))
    call = helper.make_node(f"f{levels - 1}", ["x"], ["y"], domain="my")
    return model([call], functions=functions)


def _recursive(mutual: bool) -> ModelProto:
    inner = "g" if mutual else "f"
    functions = [function("f", [helper.make_node(inner, ["a"], ["b"], domain="my")])]
    if mutual:
        functions.append(function("g", [helper.make_node("f", ["a"], ["b"], domain="my")]))
    return model([helper.make_node("f", ["x"], ["y"], domain="my")], functions=functions)


def _doubling_in_a_function(levels: int = 40) -> ModelProto:
    twice = function("twice", [helper.make_node("Concat", ["a", "a"], ["b"], axis=0)])
    nodes = [
        helper.make_node("twice", [f"c{k}"], [f"c{k + 1}"], domain="my")
        for k in range(levels)
    ]
    first = helper.make_tensor("c0", TensorProto.FLOAT, [4], [0.0] * 4)
    return model([*nodes, added(f"c{levels}")], [first], functions=[twice])


def loop_body(nodes: list[onnx.NodeProto], condition: str = "kept") -> GraphProto:
    inputs = [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("v")]
    return helper.make_graph(
        nodes, "body", inputs, [info(condition, [], TensorProto.BOOL), info("w")]
    )


def loop(
    trips: int | None, *, body: GraphProto | None = None, given: bool = True
) -> ModelProto:
    step = helper.make_node("Relu", ["v"], ["w"])
    inner = body or loop_body([helper.make_node("Identity", ["go"], ["kept"]), step])
    constants = [helper.make_tensor("yes", TensorProto.BOOL, [], [True])]
    if trips is not None:
        constants.append(tensor("m", [trips], []))
    names = ["" if trips is None else "m", "yes" if given else "", "x"]
    return model([helper.make_node("Loop", names, ["y"], body=inner)], constants)


def _loop_in_loop(trips: int, depth: int) -> ModelProto:
    step: onnx.NodeProto = helper.make_node("Relu", ["v"], ["w"])
    for _ in range(depth):
        body = loop_body([helper.make_node("Identity", ["go"], ["kept"]), step])
        step = helper.make_node("Loop", ["m", "yes", "v"], ["w"], body=body)
    made = loop(trips)
    made.graph.node[0].attribute[0].g.CopyFrom(
        loop_body([helper.make_node("Identity", ["go"], ["kept"]), step])
    )
    return made


def _always_true() -> ModelProto:
    yes = helper.make_node(
        "Constant", [], ["kept"], value=helper.make_tensor("", TensorProto.BOOL, [], [True])
    )
    return loop(None, body=loop_body([yes, helper.make_node("Relu", ["v"], ["w"])]))


def _deep_branches(depth: int) -> bytes:
    """Ifs in Ifs, put together byte by byte: the library's own Python classes copy them level by
    level.
    """

    def field(number: int, body: bytes) -> bytes:
        size, length = bytearray(), len(body)
        while length >= 0x80:
            size.append(length & 0x7F | 0x80)
            length >>= 7
        return bytes([number << 3 | 2, *size, length]) + body

    graph = field(1, field(2, b"y") + field(4, b"Relu"))
    for _ in range(depth):
        branch = field(
            5,
            field(1, b"then_branch")
            + field(6, graph)
            + bytes([0xA0, 0x01, AttributeProto.GRAPH]),
        )
        graph = field(1, field(2, b"y") + field(4, b"If") + branch)
    return bytes([8, 9]) + field(7, graph)


def _nested_types(depth: int) -> bytes:
    nested = onnx.TypeProto()
    nested.tensor_type.elem_type = 1
    raw = _bytes(nested)
    for _ in range(depth):
        inner = b"\x0a" + _length(raw) + raw
        raw = b"\x22" + _length(inner) + inner
    value = b"\x0a\x01x\x12" + _length(raw) + raw
    graph = b"\x5a" + _length(value) + value
    return bytes([8, 9]) + b"\x3a" + _length(graph) + graph


def _length(body: bytes) -> bytes:
    size, length = bytearray(), len(body)
    while length >= 0x80:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*size, length])


def _renamed(name: str | bytes, where: str = "node") -> bytes:
    """The small model with another name in it, put there as bytes: it needn't be text."""
    mark = "NAME_THAT_IS_REPLACED"
    made = model(relu())
    if where == "node":
        made.graph.node[0].name = mark
    elif where == "op":
        made.graph.node[0].op_type = mark
    elif where == "domain":
        made.graph.node[0].domain = mark
    elif where == "output":
        made.graph.node[0].output[0] = made.graph.output[0].name = mark
    elif where == "input":
        made.graph.node[0].input[0] = made.graph.input[0].name = mark
    text = name.encode() if isinstance(name, str) else name
    if len(text) == len(mark):
        return _bytes(made).replace(mark.encode(), text)
    if isinstance(name, bytes):
        return _bytes(made).replace(mark.encode(), text.ljust(len(mark), b".")[: len(mark)])
    for node in made.graph.node:
        for field in ("name", "op_type", "domain"):
            if getattr(node, field) == mark:
                setattr(node, field, name)
        for names in (node.input, node.output):
            for index, each in enumerate(names):
                if each == mark:
                    names[index] = name
    for value in (*made.graph.input, *made.graph.output):
        if value.name == mark:
            value.name = name
    return _bytes(made)


def whole() -> bytes:
    return _bytes(model(relu()))


def _of(**changes: Any) -> ModelProto:
    made = model(relu())
    for key, value in changes.items():
        setattr(made, key, value)
    return made


def _cycle() -> ModelProto:
    return model(
        [
            helper.make_node("Add", ["x", "y2"], ["y"]),
            helper.make_node("Relu", ["y"], ["y2"]),
        ]
    )


def _two_writers() -> ModelProto:
    return model([*relu(), helper.make_node("Neg", ["x"], ["y"])])


def _huge_attribute() -> ModelProto:
    return model([helper.make_node("Softmax", ["x"], ["y"], axis=1 << 62)])


def _huge_kernel() -> ModelProto:
    nodes = [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[1 << 40, 1 << 40])]
    return model(nodes, inputs=[info("x", [1, 1, 4, 4])])


def _many_inputs(count: int) -> ModelProto:
    return model([helper.make_node("Sum", ["x"] * count, ["y"])])


def _opset(version: int) -> ModelProto:
    made = model(relu())
    made.opset_import[0].version = version
    return made


def _no_text(name: str) -> ModelProto:
    return model([helper.make_node("my_op_that_is_nowhere", ["x"], ["y"], domain=name)])


def _raw_too_short() -> ModelProto:
    return _declared([1024, 1024], raw_data=bytes(8))


def _wrong_kind() -> ModelProto:
    return _declared([4], kind=99, raw_data=bytes(16))


def _two_graphs() -> bytes:
    return whole() + _bytes(model([helper.make_node("Neg", ["x"], ["y"])]))


def _numpy_archive() -> bytes:
    return _bytes(helper.make_tensor("c", TensorProto.FLOAT, [4], [0.0] * 4))


def saver(make: Callable[[], ModelProto | bytes]) -> Writer:
    def write(path: Path) -> None:
        made = make()
        path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())

    return write


FOLDERS: dict[str, Writer] = {
    "external: a link that leads outside": _linked_outside,
    "external: a link to itself": _linked_in_a_circle,
    "external: a pipe": _pipe_beside,
    "external: a folder": _folder_beside,
    "external: 2,000 tensors of one range": _overlapping,
}

MODELS: dict[str, Callable[[], ModelProto | bytes]] = {
    "bytes: none": lambda: b"",
    "bytes: zeros": lambda: bytes(1000),
    "bytes: text": lambda: b"this is no model\n" * 10,
    "bytes: noise": lambda: bytes((k * 197 + 31) % 256 for k in range(4000)),
    "bytes: cut in the middle": lambda: whole()[: len(whole()) // 2],
    "bytes: without its last": lambda: whole()[:-1],
    "bytes: a length beyond the end": lambda: b"\x3a\xff\xff\xff\xff\x07" + whole(),
    "bytes: a length of 2^63": lambda: b"\x3a" + b"\xff" * 8 + b"\x7f",
    "bytes: a number that doesn't end": lambda: b"\x08" + b"\xff" * 30,
    "bytes: groups": lambda: b"\x0b" * 2000,
    "bytes: a tensor's": _numpy_archive,
    "bytes: two graphs": _two_graphs,
    "bytes: a gzip": lambda: b"\x1f\x8b\x08\x00" + bytes(100),
    "model: no graph": lambda: ModelProto(ir_version=9),
    "model: an empty graph": lambda: ModelProto(ir_version=9, graph=GraphProto(name="g")),
    "model: IR version 2^31": lambda: _of(ir_version=2**31),
    "model: IR version below 0": lambda: _of(ir_version=-1),
    "model: opset 10^9": lambda: _opset(10**9),
    "model: opset 0": lambda: _opset(0),
    "model: opset below 0": lambda: _opset(-5),
    "graph: a cycle": _cycle,
    "graph: one value made twice": _two_writers,
    "graph: an operator that isn't there": lambda: _no_text("nowhere"),
    "graph: an axis of 2^62": _huge_attribute,
    "graph: a kernel of 2^80": _huge_kernel,
    "graph: one node with 5,000 inputs": lambda: _many_inputs(5000),
    "tensor: 2^62 elements, no data": lambda: _declared([1 << 62]),
    "tensor: 2^31 squared": lambda: _declared([1 << 31, 1 << 31]),
    "tensor: dimensions whose product wraps": lambda: _declared([1 << 32, 1 << 32, 1 << 32]),
    "tensor: dimensions below 0": lambda: _declared([-1, 4], raw_data=bytes(16)),
    "tensor: 100 dimensions": lambda: _declared([1] * 100, raw_data=bytes(4)),
    "tensor: 70 dimensions of 2": lambda: _declared([2] * 70),
    "tensor: less data than its shape": _raw_too_short,
    "tensor: a type that isn't": _wrong_kind,
    "tensor: strings without end": lambda: _declared([1 << 50], kind=TensorProto.STRING),
    "tensor: sparse, of 2^40 squared": lambda: _sparse([1 << 40, 1 << 40]),
    "input: 2^40 elements": lambda: input_of([1 << 40]),
    "input: 2^31 squared": lambda: input_of([1 << 31, 1 << 31]),
    "input: 2^63 - 1": lambda: input_of([2**63 - 1]),
    "input: 40 dimensions": lambda: input_of([2] * 40),
    "input: strings": lambda: input_of([1 << 40], TensorProto.STRING),
    "bomb: Concat doubled 40 times": lambda: _doubling("Concat", 40),
    "bomb: Tile a million times, thrice": lambda: _tiles(3),
    "bomb: ConstantOfShape": lambda: of_shape("ConstantOfShape", [1 << 40]),
    "bomb: ConstantOfShape of many small dimensions": lambda: of_shape(
        "ConstantOfShape", [1000] * 6
    ),
    "bomb: Expand": lambda: of_shape("Expand", [1 << 20, 1 << 20]),
    "bomb: Range": lambda: _range(1 << 45),
    "bomb: RandomNormal": lambda: _random([1 << 20, 1 << 20]),
    "bomb: a shape that is computed": _computed_shape,
    "bomb: a row and a column": _outer_product,
    "bomb: MatMul": _matmul,
    "bomb: OneHot": _one_hot,
    "bomb: Pad": _pad,
    "bomb: Resize": _resize,
    "bomb: Concat doubled in a function": _doubling_in_a_function,
    "functions: a billion of nodes": lambda: _laughs(10),
    "functions: 10^30 nodes": lambda: _laughs(31),
    "functions: a chain of 500": lambda: _laughs(500, 1),
    "functions: one that calls itself": lambda: _recursive(mutual=False),
    "functions: two that call each other": lambda: _recursive(mutual=True),
    "loop: 2^62 trips": lambda: loop(1 << 62),
    "loop: 10^9 trips, no condition": lambda: loop(10**9, given=False),
    "loop: without an end": lambda: loop(None),
    "loop: a condition that is always true": _always_true,
    "loop: 1,000 trips, five deep": lambda: _loop_in_loop(1000, 5),
    "depth: 40 branches": lambda: _deep_branches(40),
    "depth: 5,000 branches": lambda: _deep_branches(5000),
    "depth: 60 types": lambda: _nested_types(60),
    "depth: 5,000 types": lambda: _nested_types(5000),
    "name: a megabyte": lambda: _renamed("n" * 1_000_000),
    "name: not UTF-8": lambda: _renamed(b"\xff\xfe\xfa"),
    "name: an operator that isn't UTF-8": lambda: _renamed(b"\xc3\x28", "op"),
    "name: an escape sequence": lambda: _renamed(ESCAPE),
    "name: an operator of escape sequences": lambda: _renamed(ESCAPE, "op"),
    "name: an output of escape sequences": lambda: _renamed(ESCAPE, "output"),
    "name: an input of escape sequences": lambda: _renamed(ESCAPE, "input"),
    "name: a null byte": lambda: _renamed("a\0b", "output"),
    "name: a path": lambda: _renamed("../../../etc/passwd", "output"),
    "name: a tag": lambda: _renamed("<script>alert(1)</script>", "output"),
    "name: right to left": lambda: _renamed("\u202egnp.exe", "output"),
    "name: empty": lambda: _renamed("", "input"),
    "external: an absolute path": lambda: external("/etc/passwd"),
    "external: a path upwards": lambda: external("../../../../etc/passwd"),
    "external: /dev/zero": lambda: external("/dev/zero", 0, 1 << 40),
    "external: no such file": lambda: external("nowhere.bin"),
    "external: the model itself": lambda: external("m.onnx"),
    "external: the folder": lambda: external("."),
    "external: an offset of 2^62": lambda: external("m.onnx", 1 << 62),
    "external: a length of 2^62": lambda: external("m.onnx", 0, 1 << 62),
    "external: an offset that is no number": lambda: external_with(
        location="m.onnx", offset="1e9; rm -rf /"
    ),
    "external: an offset below 0": lambda: external_with(location="m.onnx", offset="-8"),
    "external: no location": lambda: external_with(offset="0"),
    "external: a null byte": lambda: external("m.onnx\0.bin"),
    "external: a long path": lambda: external("a/" * 5000 + "b"),
    "external: escape sequences": lambda: external(ESCAPE),
}
