"""Two models compared in a worker process, which may die of either."""

from __future__ import annotations

from onnx_harness import providers
from onnx_harness.cell.comparison import RUNNING_B, Pair, PairOutcome, compare_models
from onnx_harness.errors import ModelError, ProviderError, WorkerDied
from onnx_harness.isolate import Worker
from onnx_harness.model.custom_ops import WithLibraries
from onnx_harness.providers.probe import probe, refusal


def compare_pair(pair: Pair) -> PairOutcome:
    """Compare in a worker. What kills it while B runs is B's failure; before that it's an error.

    Raises:
        ProviderError: the provider can't be used here.
        ModelError: a file can't be read, or A itself doesn't run.
        InputError: no inputs can be had.
    """
    provider = providers.get(pair.provider)
    worker = Worker(pair.settings.limits, provider.environment)
    try:
        if (
            provider.name != "cpu"
            and not (availability := worker.call(probe, provider.name)).usable
        ):
            raise ProviderError(refusal(availability))
        return worker.call(WithLibraries(pair.custom_ops, compare_models), pair)
    except WorkerDied as death:
        reason = f"{death.stage or 'starting'}: {death}"
        if death.stage != RUNNING_B:
            raise ModelError(
                f"{pair.a.name} and {pair.b.name} can't be compared. {reason}"
            ) from None
        return PairOutcome(reason=f"{reason}, and A ran on the same inputs")
    finally:
        worker.close()
