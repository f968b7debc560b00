"""Unusual input sets that ONNX Runtime dies of.

What they say about a cell beside the verdict of the other sets.

A crash ends the process before the other sets have been judged. So the cell is judged again without
the set, and the set is named:

- A variant of a narrower type isn't judged by its values on unusual sets, nor by this: the crash is
  a remark.
- If the untouched model dies of the set too, on the same provider and at the same optimization
  level, the variant has changed nothing: a remark as well.
- Otherwise the variant made a model that crashes where the untouched one ran: the cell fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnx_harness.cell.state import Judged
from onnx_harness.names import Variant
from onnx_harness.results.cells import CellResult, Stage, Status, Symptom
from onnx_harness.transforms import Precision
from onnx_harness.transforms.variant import bind_variant


@dataclass(frozen=True, slots=True)
class FatalSet:
    """An unusual input set that the worker died of.

    Attributes:
        place: its position in the reference, from 0.
        name: of the set.
        death: the manner, such as ``the worker process was killed by SIGSEGV (signal 11)``.
    """

    place: int
    name: str
    death: str

    def __str__(self) -> str:
        """Return ``on input set 17 (unusual: …), the worker process was killed by …``."""
        return f"on input set {self.place + 1} ({self.name}), {self.death}"


def counts_against(variant: Variant) -> bool:
    """Return whether a crash on an unusual set can be the variant's failure.

    Its values are judged there too.
    """
    return bind_variant(variant).precision is Precision.FP32


def with_remarks(judged: Judged, fatal: Sequence[FatalSet], why: str) -> Judged:
    """Return the verdict of the other sets, with a note for each fatal one.

    The note says ``why`` it doesn't count.
    """
    result: CellResult = judged.result
    remarks = [
        f"judged without an unusual input set: {fatal_set}; {why}" for fatal_set in fatal
    ]
    return replace(judged, result=replace(result, notes=(*result.notes, *remarks)))


def with_crash(judged: Judged, fatal: Sequence[FatalSet]) -> Judged:
    """Return the verdict of the other sets where it is worse than a crash.

    Else the crash, and what they say.
    """
    result = judged.result
    if result.status is not Status.PASS:
        judged = with_remarks(
            judged, fatal, "the untouched model survives it: that is a failure too"
        )
        places = tuple(fatal_set.place for fatal_set in fatal)
        return replace(judged, failing=(*judged.failing[:1], *places, *judged.failing[1:]))
    first, *others = fatal
    reason = (
        f"during run, on unusual inputs alone, {first}; the untouched model survives it, and on "
        f"all other input sets "
        "the outputs are right"
    )
    crash = replace(
        result,
        status=Status.FAIL,
        stage=Stage.RUN,
        reason=reason,
        detail=tuple(f"also {fatal_set}" for fatal_set in others),
        symptom=Symptom.CRASH,
    )
    return Judged(crash, failing=tuple(fatal_set.place for fatal_set in fatal))
