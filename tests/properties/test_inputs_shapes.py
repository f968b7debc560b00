"""The shapes that inputs are chosen by, held against those of ONNX's own cases of every operator."""

import warnings

import onnx

from onnx_harness.errors import InputError
from onnx_harness.inputs.graph import terms
from onnx_harness.inputs.graph.follow import read
from onnx_harness.inputs.graph.scopes import view
from onnx_harness.inputs.graph.shapes import Shapes, Sort
from onnx_harness.inputs.graph.signature import read_inputs
from onnx_harness.inputs.plan.fitting import holds


def _named(model: onnx.ModelProto) -> dict[str, int]:
    """The sizes of the inputs' dimensions, which lose their numbers and get names."""
    sizes = {}
    for info in model.graph.input:
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            name = f"{info.name}#{axis}"
            sizes[name] = dim.dim_value
            dim.dim_param = name
    return sizes


def _wrong(found: Shapes, sizes: dict[str, int], outputs: dict[str, list[int]]) -> list[str]:
    wrong = []
    stretched = False
    for relation in found.relations:
        if not holds(relation, sizes):
            ends = {
                int(terms.value(side, sizes)) for side in (relation.left, relation.right)
            }
            # Where an operator stretches a 1, sizes that are equal would have done as well.
            stretched |= relation.sort is Sort.EQUAL and 1 in ends
            wrong += [] if stretched else [f"not true: {relation.why}"]
    for name, real in outputs.items():
        told = found.dims.get(name)
        if told is None or stretched:
            continue
        made = [None if dim is None else int(terms.value(dim, sizes)) for dim in told]
        if len(made) != len(real) or any(
            one not in (None, other) for one, other in zip(made, real, strict=True)
        ):
            wrong.append(f"{name} is {real}, not {made}")
    return wrong


def test_the_shapes_of_every_official_case_are_told_right() -> None:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases' own arithmetic
        cases = load_model_tests(kind="node")
    known = 0
    wrong: dict[str, list[str]] = {}
    for case in cases:
        # A function's body: the same shapes by more nodes.
        if case.name.endswith("_expanded"):
            continue
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        outputs = {}
        for info in model.graph.output:
            dims = info.type.tensor_type.shape.dim
            if info.type.HasField("tensor_type") and all(
                dim.HasField("dim_value") for dim in dims
            ):
                outputs[info.name] = [dim.dim_value for dim in dims]
                info.type.tensor_type.ClearField("shape")
        sizes = _named(model)
        try:
            inputs = read_inputs(model)
        except InputError:
            continue
        found = read(view(model).main, inputs)
        known += sum(name in found.dims for name in outputs)
        if each := _wrong(found, sizes, outputs):
            wrong[case.name] = each
    assert known > 900
    assert not wrong
