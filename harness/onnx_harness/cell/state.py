"""The state of a cell on its way.

It's the task, what was made of it, and what has been found out so far.
"""

from __future__ import annotations

import contextlib
import errno
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx_harness
from onnx_harness import transforms
from onnx_harness.accuracy.compare import Comparison
from onnx_harness.cell.matrix import Cell
from onnx_harness.errors import (
    HarnessError,
    InputError,
    MachineError,
    ModelError,
    ModelTooLarge,
    NotApplicable,
    ResultsError,
    first_line,
    named,
)
from onnx_harness.isolate import note_stage
from onnx_harness.judging.card_options import with_card
from onnx_harness.judging.reference import Reference
from onnx_harness.model.file import Model
from onnx_harness.results.cells import (
    AccuracyRecord,
    CellResult,
    GraphChange,
    PlacementRecord,
    Stage,
    Status,
    Symptom,
)
from onnx_harness.results.coverage import CoverageRecord
from onnx_harness.results.generation import GenerationRecord
from onnx_harness.settings import Settings
from onnx_harness.transforms.variant import BoundVariant, bind_variant


@dataclass(frozen=True, slots=True)
class Task:
    """A cell to judge.

    Attributes:
        model: the ``.onnx`` that the cell's card stands for, on this machine.
        unusual: whether the model is fed unusual inputs as well.
        skipped: positions, in the reference, of unusual input sets that it isn't run on: a worker
            died of them.
        explained: whether a departure has to be explained, beside being within the bounds, and a
            run on the CPU is profiled and its emulated float16 held to the type's range.
        recorded: a ``.npz`` whose input sets are used instead of all others; None: they are found
            as usual.
        mending: whether another variant that passes is looked for where it fails.
        unproven_placement: judge the outputs where ONNX Runtime keeps no record of placements, as
            releases before 1.24 don't. For a search over releases: a verdict has the proof.
    """

    cell: Cell
    model: Path
    settings: Settings
    unusual: bool = True
    explained: bool = True
    skipped: tuple[int, ...] = ()
    recorded: Path | None = None
    mending: bool = True
    unproven_placement: bool = False

    @property
    def custom_ops(self) -> tuple[Path, ...]:
        """Libraries of custom operators that its sessions need: the card's, then the run's."""
        return (*self.cell.card.custom_ops, *self.settings.custom_ops)

    def place(self, index: int) -> int:
        """Return the position in the whole reference of a set that isn't skipped.

        ``index`` counts among those.
        """
        for skipped in sorted(self.skipped):
            index += skipped <= index
        return index


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is ready to be judged.

    Attributes:
        missed: how the reference departs from the outputs that were recorded beside the inputs;
            None: it doesn't.
    """

    model: Model
    reference: Reference
    missed: Comparison | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """The product of the transforms.

    Attributes:
        model: the transformed model; the original when nothing changes it.
        check: what the ONNX checker says against it, or None.
        transformed: whether a transform touched it.
        level: ONNX Runtime's optimization level for its sessions.
    """

    model: Model
    check: str | None
    transformed: bool
    level: str


@dataclass(frozen=True, slots=True)
class Judged:
    """The outcome of :func:`judge`, and what is needed to time a cell that passed.

    Attributes:
        artifact: the model file that was judged.
        level: ONNX Runtime's optimization level for it.
        failing: positions of the reference's input sets on which an output is worst, where outputs
            fail, or that the worker died of.
        crashed: the worker died of it, by itself.
        starved: it hangs on the limit of memory: with more, it might be another one.
        warnings: what the worker's cache couldn't do; they're about the machine, and no part of the
            result.
    """

    result: CellResult
    artifact: Path | None = None
    level: str = "all"
    failing: tuple[int, ...] = ()
    crashed: bool = False
    starved: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunNote:
    """The worker's note while it runs a cell on one input set, so that a crash names the set.

    Attributes:
        place: the set's position in the reference, from 0.
        unusual: whether the set is an unusual one.
        name: of the set.
    """

    place: int
    unusual: bool
    name: str

    def __str__(self) -> str:
        """Return the note; the worker cuts it where it is too long, so the name comes last."""
        return f"{_RUN_NOTE}{self.place}:{int(self.unusual)}:{self.name}"

    @classmethod
    def read(cls, stage: str) -> RunNote | None:
        """Return what a worker's last note says; None for any other note."""
        if not stage.startswith(_RUN_NOTE):
            return None
        place, unusual, name = stage.removeprefix(_RUN_NOTE).split(":", 2)
        return cls(int(place), unusual == "1", name)


def stage_of(note: str) -> tuple[Stage, str]:
    """Return the stage that a worker's last note belongs to, and the note in words.

    What a stage notes of its parts begins with its name; inputs are looked for while it loads.
    """
    name, _, part = note.partition(": ")
    if name in set(Stage):
        return Stage(name), f"{name} ({part})" if part else name
    return Stage.LOAD, f"{Stage.LOAD} ({note})" if note else Stage.LOAD


class CellEnded(Exception):
    """The cell's way ends here."""

    def __init__(
        self,
        status: Status,
        reason: str,
        detail: tuple[str, ...] = (),
        symptom: Symptom | None = None,
        failing: tuple[int, ...] = (),
        *,
        starved: bool = False,
    ) -> None:
        super().__init__(reason)
        self.status, self.reason, self.detail, self.symptom = status, reason, detail, symptom
        self.failing, self.starved = failing, starved


_RUN_NOTE = "run on "

# Of the machine: full, out of memory, out of processes or open files.
_MACHINE_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOMEM,
    errno.EAGAIN,
    errno.EMFILE,
    errno.ENFILE,
    errno.EIO,
}


def is_of_the_machine(error: BaseException) -> bool:
    """Return whether an error says nothing about a cell: another machine may have the room."""
    return isinstance(error, OSError) and error.errno in _MACHINE_ERRORS


# What an exception at a stage is a symptom of.
_SYMPTOMS = {
    Stage.TRANSFORM: Symptom.EXCEPTION,
    Stage.SESSION: Symptom.DOES_NOT_RUN,
    Stage.RUN: Symptom.DOES_NOT_RUN,
}


@dataclass(frozen=True, slots=True)
class Findings:
    """Facts about a cell, which its stages find out one after another.

    Those of a later stage are None until then.

    The fields are those of `CellResult`, which says what they are.
    """

    model_sha256: str = ""
    opset: int | None = None
    graph: GraphChange | None = None
    inputs_sha256: str = ""
    coverage: CoverageRecord | None = None
    placement: PlacementRecord | None = None
    accuracy: AccuracyRecord | None = None
    accuracy_emulated: AccuracyRecord | None = None
    accuracy_simulated: AccuracyRecord | None = None
    generation: GenerationRecord | None = None


@dataclass(slots=True)
class Way:
    """A cell on its way: the stage that it is at, and what has been found out so far.

    Attributes:
        found: replaced by a record that knows more.
    """

    task: Task
    stage: Stage = Stage.LOAD
    found: Findings = Findings()
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _bound: BoundVariant | None = None

    @property
    def bound(self) -> BoundVariant:
        """The variant with its steps looked up and the card's options, once.

        UsageError is then a stage's fault.
        """
        if self._bound is None:
            self._bound = with_card(
                bind_variant(self.task.cell.variant), self.task.cell.card
            )
        return self._bound

    @contextlib.contextmanager
    def at(self, stage: Stage, *, fault: Status = Status.FAIL) -> Iterator[None]:
        """Be at ``stage``: what goes wrong in it ends the cell with the status ``fault``."""
        self.stage = stage
        note_stage(stage)
        started = time.perf_counter()
        try:
            yield
        except CellEnded:
            raise
        except NotApplicable as error:
            raise CellEnded(Status.NOT_APPLICABLE, str(error)) from error
        except InputError as error:
            raise CellEnded(Status.ERROR, first_line(error), further_lines(error)) from error
        except Exception as error:
            words = first_line(error) if isinstance(error, HarnessError) else named(error)
            if isinstance(error, MachineError | ResultsError) or is_of_the_machine(error):
                raise CellEnded(
                    Status.ERROR, words, further_lines(error), Symptom.ENVIRONMENT
                ) from error
            status = Status.FAIL if isinstance(error, ModelError) else fault
            detail = (*further_lines(error), *own_frames(error))
            starved = isinstance(error, ModelTooLarge)
            raise CellEnded(
                status,
                words,
                detail,
                _SYMPTOMS.get(stage),
                starved=starved,
            ) from error
        finally:
            self.seconds[stage] = (
                self.seconds.get(stage, 0.0) + time.perf_counter() - started
            )

    def result(
        self,
        status: Status,
        reason: str | None = None,
        detail: tuple[str, ...] = (),
        symptom: Symptom | None = None,
    ) -> CellResult:
        """The record of the cell as it stands."""
        cell = self.task.cell
        return CellResult(
            id=cell.id,
            model=cell.card.name,
            variant=cell.variant.id,
            provider=cell.provider,
            status=status,
            stage=Stage.DONE if status is Status.PASS else self.stage,
            reason=reason,
            detail=detail,
            notes=tuple(self.notes),
            seconds=self.seconds,
            symptom=symptom,
            card_sha256=cell.card.digest(),
            model_sha256=self.found.model_sha256,
            opset=self.found.opset,
            graph=self.found.graph,
            inputs_sha256=self.found.inputs_sha256,
            coverage=self.found.coverage,
            placement=self.found.placement,
            accuracy=self.found.accuracy,
            accuracy_emulated=self.found.accuracy_emulated,
            accuracy_simulated=self.found.accuracy_simulated,
            generation=self.found.generation,
        )


def further_lines(error: Exception) -> tuple[str, ...]:
    """The lines after it."""
    lines = []
    for line in str(error).strip().splitlines()[1:]:
        if line.strip():
            lines.append(line)
    return tuple(lines)


def own_frames(error: Exception) -> tuple[str, ...]:
    """Return the frames in which a transform of a user raised an error.

    They read as Python's tracebacks write them.

    They are those below the call of a step, where what was called isn't this package's; none for
    its own transforms.
    """
    frames = traceback.extract_tb(error.__traceback__)
    calls = []
    for place, frame in enumerate(frames):
        if frame.filename == transforms.__file__:
            calls.append(place)
    below = frames[calls[-1] + 1 :] if calls else []
    package = str(Path(onnx_harness.__file__).parent)
    if not below or below[0].filename.startswith(package):
        return ()
    entries = []
    for frame in below[:_MOST_FRAMES]:
        entries.append(
            f'File "{frame.filename}", line {frame.lineno}, in {frame.name}: {frame.line}'
        )
    return tuple(entries)


_MOST_FRAMES = 6


def never_loaded(cell: Cell) -> CellResult:
    """Return the record of a cell that failed for no fault of its own, before it was loaded."""
    return CellResult(
        id=cell.id,
        model=cell.card.name,
        model_sha256="",
        variant=cell.variant.id,
        provider=cell.provider,
        status=Status.ERROR,
        stage=Stage.LOAD,
        card_sha256=cell.card.digest(),
    )
