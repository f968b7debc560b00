"""Prove that a cell's nodes ran where they were asked to."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness import providers
from onnx_harness.cards.card import PlacementSpec
from onnx_harness.cell.state import Artifact, CellEnded, Way
from onnx_harness.judging.half_range import computes_in_half
from onnx_harness.providers import Provider
from onnx_harness.providers.contradiction import breach, contradiction
from onnx_harness.providers.placement import assignments, keeps_record, shortfall
from onnx_harness.providers.placement import judge as judge_placement
from onnx_harness.providers.profile import precision, read_profile
from onnx_harness.results.cells import PlacementRecord, Status

if TYPE_CHECKING:
    import onnxruntime as ort


def prove_placement(way: Way, session: ort.InferenceSession) -> Counter[tuple[str, str]]:
    """The nodes are assigned where they were asked to be.

    ONNX Runtime falls back to the CPU without an error.

    Where it hangs on what may be arithmetic on shapes, the profile of a run will tell: see
    :func:`cross_check`.
    """
    provider, _ = _contract(way)
    if way.task.unproven_placement and not keeps_record(session):
        assigned: Counter[tuple[str, str]] = Counter()
    else:
        assigned = assignments(session, provider)
    at_best = _judge_placement(way, assigned, assigned if provider.fallback else Counter())
    short = _judge_placement(way, assigned, Counter())
    if at_best is not None:
        raise CellEnded(Status.FAIL, short or at_best)
    return assigned


def cross_check(
    way: Way, assigned: Counter[tuple[str, str]], file: Path | None, artifact: Artifact
) -> None:
    """The nodes ran where they are assigned, and as the card asks.

    ``file`` is the profile of a run.
    """
    provider, demands = _contract(way)
    if file is None:
        return
    profile = read_profile(file, provider)
    short = _judge_placement(way, assigned, profile.sizes)
    assert way.found.placement is not None
    ran = replace(
        way.found.placement,
        executed=profile.executed(),
        time_share=profile.time_share(provider),
        memcpy=profile.copies,
        inserted_casts=profile.inserted_casts,
        arithmetic=dict(profile.arithmetic.most_common()),
        precision=precision(
            profile, provider, wants_half=computes_in_half(artifact.model.skeleton)
        ),
    )
    way.found = replace(way.found, placement=ran)
    reason = (
        short
        or contradiction(assigned, profile, provider)
        or breach(
            profile,
            provider,
            min_time_share=demands.min_time_share,
            max_copies=demands.max_memcpy,
        )
    )
    if reason is not None:
        raise CellEnded(Status.FAIL, reason)


def _judge_placement(
    way: Way, assigned: Counter[tuple[str, str]], sizes: Counter[tuple[str, str]]
) -> str | None:
    """Why too many nodes are assigned elsewhere, or None.

    ``sizes`` are those that compute nothing but shapes.
    """
    provider, demands = _contract(way)
    judged = judge_placement(assigned, provider, sizes)
    operators: dict[str, dict[str, int]] = {}
    for (owner, op), count in assigned.most_common():
        operators.setdefault(owner, {})[op] = count
    record = PlacementRecord(
        judged.requested,
        dict(judged.nodes),
        dict(judged.off_provider_ops),
        judged.share,
        operators=operators,
    )
    way.found = replace(way.found, placement=record)
    demanded = way.task.settings.min_placement
    return shortfall(judged, provider, demands.min_share if demanded is None else demanded)


def _contract(way: Way) -> tuple[Provider, PlacementSpec]:
    """Return the provider, with what the card allows it to leave to the CPU.

    The second item is what the card asks of it.
    """
    provider = providers.get(way.task.cell.provider)
    demands = way.task.cell.card.placement.of(provider.name)
    if (
        not provider.fallback
    ):  # nothing stands behind the CPU: a card can't ask less of it than everything
        return provider, PlacementSpec()
    return replace(
        provider, cpu_ops=provider.cpu_ops.union(demands.allowed_cpu_ops)
    ), demands
