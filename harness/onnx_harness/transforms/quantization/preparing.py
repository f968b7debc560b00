"""Bring a model into the form in which onnxruntime.quantization takes it, and refuse others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from onnx_harness.errors import NotApplicable
from onnx_harness.model.file import FREE_INITIALIZERS
from onnx_harness.model.ops import imports_standard, is_standard, opset_of
from onnx_harness.transforms import remark
from onnx_harness.transforms.optimize import MAX_BYTES
from onnx_harness.transforms.sparse import refuse_sparse

if TYPE_CHECKING:
    import onnx


# In dynamic quantization these hand quantized values on under other names.
_HANDING_ON = ("EmbedLayerNormalization", "Gather", "Transpose")


def refuse(model: onnx.ModelProto, types: Sequence[str], float16_since: int | None) -> None:
    """Raise NotApplicable for what the library can't quantize, or would break.

    Args:
        model: the model.
        types: the operators chosen.
        float16_since: the opset from which on values may be float16; None where they never may.
    """
    import onnx

    from onnx_harness.model.size import byte_size
    from onnx_harness.model.walk import walk
    from onnx_harness.transforms.quantization.nodes import is_of_its_domain, is_quantized

    size = byte_size(model)
    if size > MAX_BYTES:
        raise NotApplicable(
            f"onnxruntime.quantization takes models up to 2 GB and this one has "
            f"{size / 2**30:.1f} GB"
        )
    refuse_sparse(model, "onnxruntime.quantization", "Mend: make them dense first")
    before = next((node.op_type for node in walk(model.graph) if is_quantized(node)), None)
    if before is not None:
        raise NotApplicable(f"the model is quantized already: it holds {before}")
    kinds = {*types, "Gemm"} if "MatMul" in types else set(types)
    if not any(
        node.op_type in kinds and is_of_its_domain(node) for node in model.graph.node
    ):
        raise NotApplicable(nothing_to_quantize(types))
    opset = opset_of(model)
    if float16_since is None or opset < float16_since:
        halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
        if any(tensor.data_type in halves for tensor in model.graph.initializer):
            where = (
                "from float16 at all"
                if float16_since is None
                else f"from float16 below opset {float16_since}"
            )
            raise NotApplicable(
                f"the model holds float16 tensors, and nothing is quantized {where}"
            )


def present_nodes(
    model: onnx.ModelProto,
    included: Sequence[str],
    excluded: Sequence[str],
    allow_missing: bool,
) -> tuple[list[str], list[str]]:
    """Return the names that nodes have, of two lists; one without is named by its first output.

    Args:
        model: nodes of its main graph without a name get one.
        included: ``nodes_to_quantize``.
        excluded: ``nodes_to_exclude``.
        allow_missing: a name that no node has is left out, with a remark.

    Raises:
        ValueError: no node has a name, and none may be missing.
        NotApplicable: no node has a name of ``included``.
    """
    from onnx_harness.transforms.quantization.nodes import name_by_output, nodes_that_exist

    name_by_output(model.graph)
    chosen = nodes_that_exist(model.graph, "nodes_to_quantize", included, allow_missing)
    if included and not chosen:  # the library would take an empty list for all of them
        raise NotApplicable("the model has none of the nodes that nodes_to_quantize names")
    return chosen, nodes_that_exist(model.graph, "nodes_to_exclude", excluded, allow_missing)


def left_alone(model: onnx.ModelProto, dynamic: bool) -> list[str]:
    """The names of nodes that are never quantized; those without one get one."""
    from onnx_harness.transforms.quantization.nodes import (
        captured,
        name_nodes,
        never_quantized,
    )

    outputs = set(never_quantized(model, static=not dynamic))
    if dynamic:  # the library gives what these hand on another name, and looks into no body
        inside = captured(model.graph)
        names = set()
        for node in model.graph.node:
            if node.op_type in _HANDING_ON:
                for name in node.output:
                    if name in inside:
                        names.add(name)
        outputs |= names
    return name_nodes(model.graph, outputs)


def refuse_stacked_weights(
    model: onnx.ModelProto,
    types: Sequence[str],
    excluded: Sequence[str],
    included: Sequence[str],
) -> None:
    """Raise ValueError for a MatMul whose weight has more than two dimensions.

    ONNX Runtime has one scale for it.
    """
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node if "MatMul" in types else ():
        chosen = node.name not in excluded and (not included or node.name in included)
        if node.op_type == "MatMul" and chosen and ranks.get(node.input[1], 0) > 2:
            mend = (
                f"nodes_to_exclude=['{node.name}'], or"
                if node.name
                else "give it a name to exclude it by, or"
            )
            raise ValueError(
                f"per_channel: MatMul '{node.name or node.output[0]}' has a weight of "
                f"{ranks[node.input[1]]} "
                "dimensions, and ONNX Runtime's MatMulInteger takes a scale for each channel of "
                "two. "
                f"Mend: {mend} no per_channel"
            )


def untie(model: onnx.ModelProto) -> None:
    """Give Gathers tables of their own where they share them with products.

    A product would have a scale for each channel of the same matrix.
    """
    from onnx_harness.transforms.quantization.nodes import tied_tables, untie

    untie(model.graph, tied_tables(model.graph))


def remark_tied(tied: Mapping[str, Sequence[str]]) -> None:
    """Remark on tables of embeddings that are factors of products too."""
    for name, products in tied.items():
        remark(
            f"'{name}' is the table of a Gather and a factor of "
            f"{' and '.join(sorted(set(products)))}: both read "
            "the same levels of 8 bits"
        )


def nothing_to_quantize(
    types: Sequence[str], graph: onnx.GraphProto | None = None, excluded: Sequence[str] = ()
) -> str:
    """Return why nothing of ``types`` is quantized in a model, the nodes ``excluded`` aside.

    The graph is given where it has such operators: their weights may be what the reason is.
    """
    named = (
        f"{', '.join(types[:6])} or {len(types) - 6} more"
        if len(types) > 7
        else ", ".join(types)
    )
    weights = "" if graph is None else _because_of_defaults(graph)
    aside = ""
    if excluded and not weights:
        more = f" and {len(excluded) - 3} more" if len(excluded) > 3 else ""
        aside = (
            f", but for {', '.join(excluded[:3])}{more}: excluded, or in them sizes, positions, "
            f"indices, masks or features of a tree or a table are computed, for which 8 bits are "
            f"too few"
        )
    return (
        f"there is nothing to quantize: outside the bodies of If, Loop and Scan no {named} "
        f"works on float tensors{weights}{aside}"
    )


def _because_of_defaults(graph: onnx.GraphProto) -> str:
    """Return the remark on weights that are inputs too; empty where there are none."""
    inputs = {info.name for info in graph.input}
    defaults = [tensor.name for tensor in graph.initializer if tensor.name in inputs]
    if not defaults:
        return ""
    return (
        f" that are constant: {len(defaults)} of {len(graph.initializer)} initializers "
        f"('{defaults[0]}', ...) are inputs too, which a caller may override; export the model "
        "without keep_initializers_as_inputs"
    )


def prepare(model: onnx.ModelProto, opset: int) -> None:
    """Bring a model into the form in which the library finds its weights."""
    from onnx_harness.model.label_keys import with_key_types
    from onnx_harness.model.rewrite import (
        bypass_identities,
        lift_constants,
        unlist_constants,
    )

    # Constants there, but defaults of inputs in any later version. The converter finds none of
    # those that aren't listed as inputs before it.
    if model.ir_version < FREE_INITIALIZERS:
        unlist_constants(model.graph)
        model.ir_version = FREE_INITIALIZERS
    _convert(model, opset)
    graph = model.graph  # another one where the model was converted
    lift_constants(graph)
    bypass_identities(graph)
    _multiply_biases(graph)
    # The library infers types too.
    model.CopyFrom(with_key_types(model))


def _multiply_biases(graph: onnx.GraphProto) -> None:
    """Multiply constant biases of Gemms by their beta, which onnxruntime 1.32 loses."""
    from onnx import helper, numpy_helper

    from onnx_harness.model.rewrite import fresh_name, value_names

    constants = {tensor.name: tensor for tensor in graph.initializer}
    listed = {info.name for info in graph.input}
    taken = value_names(graph)
    for node in graph.node:
        beta = next((entry for entry in node.attribute if entry.name == "beta"), None)
        bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else ""
        if beta is None or beta.f == 1.0 or bias not in constants or bias in listed:
            continue
        values = numpy_helper.to_array(constants[bias])
        node.input[2] = fresh_name(f"{bias}_times_beta", taken)
        tensor = numpy_helper.from_array(values * values.dtype.type(beta.f), node.input[2])
        graph.initializer.append(tensor)
        beta.CopyFrom(helper.make_attribute("beta", 1.0))


def inline(model: onnx.ModelProto) -> None:
    """Put the nodes of local functions in place of their calls: the library leaves them out."""
    from onnx_harness.model.inlining import inline_functions

    if model.functions:
        model.CopyFrom(inline_functions(model))


def _convert(model: onnx.ModelProto, opset: int) -> None:
    import onnx

    before = opset_of(model)
    if not imports_standard(model) or before >= opset:
        return
    _forget_unused_fillings(model)
    converted = onnx.version_converter.convert_version(model, opset)
    try:
        onnx.checker.check_model(converted)
    except onnx.checker.ValidationError as error:
        # Graphs inside nodes stay as they were, of the older opset.
        reason = str(error).strip().splitlines()[0]
        raise NotApplicable(
            f"onnx's version converter doesn't bring the model from opset {before} to {opset}: "
            f"{reason}"
        ) from None
    model.CopyFrom(converted)


def _forget_unused_fillings(model: onnx.ModelProto) -> None:
    """Remove the value of a Pad that copies elements, which the converter would keep."""
    for node in model.graph.node:
        if node.op_type != "Pad" or not is_standard(node):
            continue
        copies = any(
            each.name == "mode" and each.s != b"constant" for each in node.attribute
        )
        for index in reversed(range(len(node.attribute))):
            if copies and node.attribute[index].name == "value":
                del node.attribute[index]
