"""Two models compared in a worker process, which may die of either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from onnx_harness import providers
from onnx_harness.cell.comparison import (
    RUNNING_B,
    Pair,
    PairOutcome,
    compare_models,
    excuse_for,
)
from onnx_harness.cell.state import RunNote
from onnx_harness.cell.workers import cell_worker
from onnx_harness.errors import ModelError, ProviderError, WorkerCrashed, WorkerDied
from onnx_harness.isolate import RISK
from onnx_harness.model.custom_ops import WithLibraries
from onnx_harness.providers.probe import probe, refusal
from onnx_harness.run.fatal import FatalSet

_MOST_DEATHS = 8  # each of another unusual input set


def compare_pair(pair: Pair) -> PairOutcome:
    """Compare in a worker. What kills it while B runs is B's failure; before that it's an error.

    An unusual input set that A dies of as well is left out, with a note.

    Raises:
        ProviderError: the provider can't be used here.
        ModelError: a file can't be read, or A itself doesn't run.
        InputError: no inputs can be had.
    """
    provider = providers.get(pair.provider)
    worker = cell_worker(pair.settings, provider.environment, readable=pair.files)
    try:
        if (
            provider.name != "cpu"
            and not (availability := worker.call(probe, provider.name)).usable
        ):
            raise ProviderError(refusal(availability))
        return compared_by(worker.call, pair)
    finally:
        worker.close()


def compared_by(call: Callable[..., Any], pair: Pair) -> PairOutcome:
    """Compare by calls in a worker, which starts anew after each set that ONNX Runtime dies of.

    Raises:
        ModelError: something else than B killed it.
    """
    notes: tuple[str, ...] = ()
    deaths = 0
    while True:
        try:
            outcome: PairOutcome = call(WithLibraries(pair.custom_ops, compare_models), pair)
        except WorkerDied as death:
            deaths += 1
            may_go_on = isinstance(death, WorkerCrashed) and deaths <= _MOST_DEATHS
            if may_go_on and death.stage.startswith(RISK):
                continue  # the worker remembers what it died of, and leaves that out
            note = RunNote.read(death.stage)
            if may_go_on and note is not None and note.unusual:
                excuse = _excuse(pair, note, call)
                if excuse:
                    fatal = FatalSet(note.place, note.name, death.what)
                    notes += (f"judged without an unusual input set: {fatal}; {excuse}",)
                    pair = replace(pair, skipped=(*pair.skipped, note.place))
                    continue
            return _died(pair, death, note)
        return replace(outcome, notes=(*outcome.notes, *notes))


def _excuse(pair: Pair, note: RunNote, call: Callable[..., Any]) -> str:
    """Return why B isn't to blame that the worker died of an unusual set; empty: it is."""
    try:
        return str(call(WithLibraries(pair.custom_ops, excuse_for), pair, note.place))
    except WorkerDied:
        return "A dies of it too, at the same optimization level"
    except Exception:  # A refuses that set in so many words: nothing died
        return ""


def _died(pair: Pair, death: WorkerDied, note: RunNote | None) -> PairOutcome:
    """The outcome where B killed the worker; an error where something else did."""
    where = death.stage or "starting" if note is None else f"running B on {note.name}"
    if note is None and death.stage != RUNNING_B:
        raise ModelError(
            f"{pair.a.name} and {pair.b.name} can't be compared. {where}: {death}"
        ) from None
    return PairOutcome(reason=f"{where}: {death}, and A ran on the same inputs")
