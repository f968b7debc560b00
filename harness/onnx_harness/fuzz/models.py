"""Random valid models, small and nasty.

What a simplifier meets in real ones, in any order and combination.

Shapes are followed beside the graph for one size of its dynamic dimension. At another size a model
may be one that ONNX Runtime refuses: whoever runs it there has to see that the simplified one isn't
asked to do better.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnx_harness.fuzz import arithmetic, moves, products
from onnx_harness.fuzz.graph import BATCH, CODES, SPECIAL, Array, Graph, NoneFits, Value
from onnx_harness.model.walk import walk_node


def _if(g: Graph) -> None:
    if g.depth >= 2:
        return
    constant = g.random.random() < 0.5
    condition = g.constant(np.array(g.random.random() < 0.5)) if constant else "flag"
    before = g.counter[0]
    branches = [_body(g)]
    after = g.counter[0]
    if g.random.random() < 0.3:
        g.counter[0] = before  # the same names in both branches
    branches.append(_body(g))
    g.counter[0] = max(after, g.counter[0])
    results = [branch.pick("f") for branch in branches]
    if g.opset < 11 and results[0].shape != results[1].shape:
        return  # onnx's inference and ONNX Runtime's contradict themselves there
    graphs = []
    for branch, result in zip(branches, results, strict=True):
        if result not in branch.values or g.random.random() < 0.3:
            result = branch.add("Identity", [result.name], "f", result.shape)
        info = helper.make_tensor_value_info(
            result.name, TensorProto.FLOAT, [None] * len(result.shape)
        )
        graphs.append(
            helper.make_graph(branch.nodes, "branch", [], [info], branch.initializers)
        )
    y = g.add(
        "If",
        [condition],
        "f",
        results[0].shape,
        then_branch=graphs[0],
        else_branch=graphs[1],
    )
    if results[0].shape != results[1].shape:
        g.values.remove(y)  # what its shape is depends on the flag
        if len(results[0].shape) == len(results[1].shape):
            g.add("Shape", [y.name], "i", (len(y.shape),))


def _loop(g: Graph) -> None:
    if g.depth >= 2:
        return
    x = g.pick("f")
    body = _body(g, carried=x)
    same = []
    for value in body.values:
        if value.kind == "f" and value.shape == x.shape:
            same.append(value)
    state = g.random.choice(same) if same else body.values[-1]
    result = body.add("Identity", [state.name], "f", x.shape)
    go_on = body.add("Identity", [body.values[-1].name], "b", ())
    number, keep, carried = body.values[-2], body.values[-1], body.values[-3]
    graph = helper.make_graph(
        body.nodes,
        "body",
        [
            helper.make_tensor_value_info(number.name, TensorProto.INT64, []),
            helper.make_tensor_value_info(keep.name, TensorProto.BOOL, []),
            helper.make_tensor_value_info(
                carried.name, TensorProto.FLOAT, [None] * len(x.shape)
            ),
        ],
        [
            helper.make_tensor_value_info(go_on.name, TensorProto.BOOL, []),
            helper.make_tensor_value_info(
                result.name, TensorProto.FLOAT, [None] * len(x.shape)
            ),
        ],
        body.initializers,
    )
    times = g.constant(np.array(g.random.randint(0, 3), np.int64))
    condition = (
        g.constant(np.array(g.random.random() < 0.8)) if g.random.random() < 0.5 else ""
    )
    g.add("Loop", [times, condition, x.name], "f", x.shape, body=graph)


def _body(g: Graph, carried: Value | None = None) -> Graph:
    body = Graph(g.random, g.opset, outer=g, counter=g.counter, depth=g.depth + 1)
    if carried is not None:
        body.values = [
            Value(g.fresh(), "f", carried.shape),
            Value(g.fresh(), "i", ()),
            Value(g.fresh(), "b", ()),
        ]
    for _ in range(g.random.randint(1, 5)):
        grow(body)
    if not any(value.kind == "f" for value in body.values):
        x = g.pick("f")
        body.add("Neg", [x.name], "f", x.shape)
    return body


_MAKERS: tuple[Callable[[Graph], object], ...] = (
    *(
        arithmetic.unary,
        moves.identity,
        arithmetic.with_constant,
        arithmetic.with_constant,
        arithmetic.two,
        arithmetic.cast,
        moves.transpose,
        moves.transpose,
        moves.reshape,
        moves.reshape,
    ),
    *(
        moves.unsqueeze,
        moves.squeeze,
        moves.squeeze,
        moves.flatten,
        moves.slices,
        moves.slices,
        moves.concat,
        moves.shape,
        moves.size,
        moves.gather,
        moves.expand,
        arithmetic.where,
    ),
    *(
        arithmetic.reduce,
        products.pad,
        products.window,
        products.window,
        products.window,
        products.matmul,
        products.matmul,
        products.gemm,
        arithmetic.dropout,
        moves.split,
        moves.sequence,
        arithmetic.function,
    ),
    *(
        _if,
        _loop,
        arithmetic.clip,
        arithmetic.clamps,
        arithmetic.classes,
        arithmetic.quantized,
        arithmetic.einsum,
        arithmetic.reduce_and_back,
        moves.filled,
        moves.concat_empty,
    ),
)


def grow(g: Graph) -> None:
    """Add a few nodes, if any fit."""
    before = len(g.nodes), len(g.initializers), len(g.values)
    try:
        g.random.choice(_MAKERS)(g)
    except NoneFits:
        del g.nodes[before[0] :], g.initializers[before[1] :]
        del g.values[: len(g.values) - before[2]]


def _functions(opset: int) -> list[onnx.FunctionProto]:
    """Return the functions of the domain ``my``.

    Each does something else than the standard operator that it's called after.
    """
    imports = [helper.make_opsetid("", opset)]
    bodies = {
        "Add": ("ab", "Max"),
        "Identity": ("a", "Neg"),
        "Relu": ("a", "Abs"),
        "Neg": ("a", "Identity"),
    }
    functions: list[onnx.FunctionProto] = []
    for name, (inputs, op) in bodies.items():
        functions.append(
            helper.make_function(
                "my",
                name,
                list(inputs),
                ["r"],
                [helper.make_node(op, list(inputs), ["r"])],
                imports,
            )
        )
    return functions


def random_model(random: Random, size: int) -> onnx.ModelProto:
    """A valid model with the inputs ``x``, ``y`` (float32), ``n`` (int64) and ``flag`` (bool)."""
    opset = random.choice((7, 9, 11, 12, 13, 15, 17, 18, 19, 21))
    g = Graph(random, opset)
    dynamic = random.random() < 0.6
    first: int | str = "N" if dynamic else BATCH
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [first, 3, 5, 4]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [first, 6]),
        helper.make_tensor_value_info("n", TensorProto.INT64, [4]),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
    ]
    g.values = [
        Value("x", "f", (BATCH, 3, 5, 4)),
        Value("y", "f", (BATCH, 6)),
        Value("n", "i", (4,)),
    ]
    for _ in range(size):
        grow(g)
    computed = [value for value in g.values if value.name not in "xyn"]
    read = set()
    for node in _all_nodes(g):
        for name in node.input:
            read.add(name)
    leaves = [value for value in computed if value.name not in read]
    chosen = random.sample(leaves, min(len(leaves), 6)) + random.sample(
        computed, min(len(computed), random.randint(0, 2))
    )
    chosen = chosen or g.values[:1]
    if random.random() < 0.1 and g.initializers:
        tensor = random.choice(g.initializers)
        chosen.append(Value(tensor.name, "", tuple(tensor.dims)))
    codes = {tensor.name: tensor.data_type for tensor in g.initializers}
    outputs = []
    for value in {value.name: value for value in chosen}.values():
        outputs.append(
            helper.make_tensor_value_info(
                value.name,
                codes.get(value.name) or CODES[value.kind],
                [None] * len(value.shape),
            )
        )
    used = any(node.domain == "my" for node in _all_nodes(g))
    return helper.make_model(
        helper.make_graph(g.nodes, "random", inputs, outputs, g.initializers),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("my", 1)],
        functions=_functions(opset) if used and opset >= 8 else [],
        ir_version=8 if opset < 19 else 10,
    )


def _all_nodes(g: Graph) -> list[onnx.NodeProto]:
    nodes: list[onnx.NodeProto] = []
    for node in g.nodes:
        for inner in walk_node(node):
            nodes.append(inner)
    return nodes


def feeds(random: Random, batch: int) -> dict[str, Array]:
    """Inputs of a random model, special values among them."""
    generator = np.random.default_rng(random.randrange(1 << 30))
    x = generator.standard_normal((batch, 3, 5, 4)).astype(np.float32)
    y = generator.standard_normal((batch, 6)).astype(np.float32)
    for array in (x, y):
        if array.size and random.random() < 0.5:
            flat = array.reshape(-1)
            flat[generator.integers(0, flat.size, 3)] = [
                random.choice(SPECIAL) for _ in range(3)
            ]
        elif random.random() < 0.3:
            array[..., : array.shape[-1] // 2 + 1] = random.choice(
                (0.0, -0.0, np.inf, -np.inf)
            )
    return {
        "x": x,
        "y": y,
        "n": np.array([0, 1, -1, 7]),
        "flag": np.array(random.random() < 0.5),
    }
