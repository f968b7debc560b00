"""Judge one cell, stage by stage.

load -> transform -> check -> session -> placement -> run -> compare -> latency.

Everything up to ``compare`` happens in the worker process (:func:`judge`). Latency is taken in the
process that owns the pytest-benchmark fixture (:func:`time_cell`), from models that have passed.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from onnx_harness import providers
from onnx_harness.cell import artifacts
from onnx_harness.cell.checks import check_artifact
from onnx_harness.cell.generation import judge_decoding
from onnx_harness.cell.mends import may_be_mended, tried_early_mend
from onnx_harness.cell.outputs import compare, compare_simulated
from onnx_harness.cell.placement import cross_check, prove_placement
from onnx_harness.cell.repeats import run_sets
from onnx_harness.cell.session import NoKernel, open_cell, reopening
from onnx_harness.cell.state import Artifact, CellEnded, Findings, Judged, Subject, Task, Way
from onnx_harness.cell.subjects import load, read_subject, subject_of
from onnx_harness.providers.running import run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.cache import Cache
from onnx_harness.results.cells import Stage, Status
from onnx_harness.results.workbench import workbench


def judge(task: Task) -> Judged:
    """Take a cell from ``load`` to ``compare``.

    Meant to run in a worker: it may crash, hang or eat memory.
    """
    return _judged(task, mending=True)


def judge_alone(task: Task) -> Judged:
    """Judge a cell as :func:`judge` does, and look for no mend before its values are compared."""
    return _judged(task, mending=False)


def mend_after_death(task: Task, stage: Stage) -> str:
    """Return a line on a variant that passes where a worker died of a cell.

    See :func:`onnx_harness.cell.mends.tried_early_mend`. Meant for another worker.

    Args:
        task: the cell.
        stage: it died at.
    """
    way, cache = Way(task), workbench().cache
    subject = load(way, cache)
    way.stage = stage
    return tried_early_mend(way, subject, cache, judge_alone)


def _judged(task: Task, *, mending: bool) -> Judged:
    way = Way(task)
    bench = workbench()
    # A case is quicker made again than thousands are kept; its variants share what is made of it.
    cache = bench.passing_cache(task.model) if task.cell.card.suite else bench.cache
    with tempfile.TemporaryDirectory(
        prefix="onnx-harness-profile-", ignore_cleanup_errors=True
    ) as scratch:
        judged = _judge(way, cache, Path(scratch), mending=mending)
        return replace(judged, warnings=tuple(bench.cache.warnings))


def _judge(way: Way, cache: Cache, scratch: Path, *, mending: bool) -> Judged:
    subject: Subject | None = None
    try:
        with way.at(
            Stage.LOAD, fault=Status.ERROR
        ):  # what is wrong with the model itself is a ModelError
            subject = load(way, cache)
        with way.at(Stage.TRANSFORM):
            artifact = artifacts.transformed(way, subject, cache)
        with way.at(Stage.CHECK):
            check_artifact(way, subject, artifact)
        with way.at(Stage.SESSION):
            session = open_cell(way, subject, artifact, scratch)
        if isinstance(session, NoKernel):
            with way.at(Stage.COMPARE, fault=Status.ERROR):
                compare_simulated(way, subject, artifact, session, cache)
            # There is no model that could be timed here.
            return Judged(way.result(Status.PASS), None, artifact.level)
        with way.at(Stage.PLACEMENT):
            assigned = prove_placement(way, session)
        with way.at(Stage.RUN):
            again = reopening(way, subject, artifact, scratch)
            runs = run_sets(way, subject, session, again)
            if again is not None:
                del session  # the noise floor's sessions hold as much
        with way.at(Stage.PLACEMENT):
            cross_check(way, assigned, runs.profile, artifact)
        with way.at(Stage.COMPARE, fault=Status.ERROR):
            compare(way, subject, artifact, runs, cache)
            if way.task.cell.card.generate is not None:
                judged_standard = artifacts.judged_by(way, subject, cache)
                opened = again or (lambda: session)
                judge_decoding(way, subject, opened, judged_standard)
    except CellEnded as end:
        failing = tuple(way.task.place(place) for place in end.failing)
        detail = end.detail
        mending = mending and way.task.mending
        if mending and subject is not None and may_be_mended(way, end):
            mend = tried_early_mend(way, subject, cache, judge_alone)
            detail = (*detail, mend) if mend else detail
        result = way.result(end.status, end.reason, detail, end.symptom)
        return Judged(result, failing=failing, starved=end.starved)
    return Judged(way.result(Status.PASS), artifact.model.path, artifact.level)


def artifact_of(task: Task) -> Artifact:
    """Return what :func:`judge` judged.

    Meant to run in the worker: it comes from the cache, but a transform may run again.
    """
    cache = workbench().cache
    subject, graph = read_subject(task, cache)
    return artifacts.transformed(Way(task, found=Findings(graph=graph)), subject, cache)


def place_of_artifact(task: Task) -> tuple[Path, str]:
    """Return the file of what `judge` judged, and ONNX Runtime's level for it.

    What a worker can answer.
    """
    artifact = artifact_of(task)
    return artifact.model.path, artifact.level


def run_untouched(task: Task, place: int) -> None:
    """Run the untouched model on one of the reference's input sets.

    It runs on the cell's provider and at its level.

    Meant to run in the worker, after a worker died of that set with the transformed model: if this
    one dies too, the crash is ONNX Runtime's own and says nothing about the variant.

    Args:
        task: the cell.
        place: the set's position in the reference, from 0.
    """
    provider, level = providers.get(task.cell.provider), artifact_of(task).level
    session = open_session(task.model, provider, purpose=Purpose.ACCURACY, level=level)
    run(session, subject_of(replace(task, skipped=())).reference.sets[place].values)
