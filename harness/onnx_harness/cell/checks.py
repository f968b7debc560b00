"""Check a transformed model: it's valid, and its callers notice no difference."""

from __future__ import annotations

from onnx_harness.cell import artifacts
from onnx_harness.cell.state import Artifact, CellEnded, Subject, Way
from onnx_harness.inputs.values.sets import shapes_of
from onnx_harness.model.interface import interface_changes
from onnx_harness.results.cells import Status, Symptom


def check_artifact(way: Way, subject: Subject, artifact: Artifact) -> None:
    """Check that the transformed model is valid ONNX.

    Its callers must notice no difference in what it takes and gives.
    """
    if not artifact.transformed:
        return
    if artifact.check is not None:
        original = artifacts.checker_says(subject.model.path)
        if original is None:
            reason = f"the ONNX checker rejects the transformed model: {artifact.check}"
            raise CellEnded(Status.FAIL, reason, symptom=Symptom.INVALID)
        way.notes.append(f"the ONNX checker rejects the original too: {original}")
    fixed = way.bound.fixed_shapes
    for input_set in subject.reference.sets:
        for name, shape in fixed.items():
            if name in input_set.values and shapes_of(input_set)[name] != [shape]:
                raise CellEnded(
                    Status.NOT_APPLICABLE,
                    f"the variant fixes the shape of input '{name}' at {list(shape)}, and the "
                    f"input sets have others. "
                    f"Mend: shapes = [{list(shape)}] under [inputs.{name}] of the model's card",
                )
    differences = interface_changes(
        subject.model.signature, artifact.model.signature, way.bound.float_io, fixed
    )
    if differences:
        reason = f"the model's interface changed: {differences[0]}"
        raise CellEnded(Status.FAIL, reason, tuple(differences[1:]), Symptom.CHANGED_TYPES)
