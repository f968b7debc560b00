"""A profile held against the record of assignments, and against what a card demands."""

from __future__ import annotations

from collections import Counter

from onnx_harness.providers import Provider
from onnx_harness.providers.profile import Profile


def contradiction(
    recorded: Counter[tuple[str, str]], profile: Profile, provider: Provider
) -> str | None:
    """Say in one sentence how a profile contradicts the record of assignments; None if it doesn't.

    Fusion renames nodes and a branch not taken doesn't run, so counts differ honestly. What has no
    honest explanation: of one operator more nodes ran elsewhere than were assigned there, and fewer
    on the provider.
    """
    return _moved_nodes(recorded, profile, provider) or _idle_provider(
        recorded, profile, provider
    )


def _moved_nodes(
    recorded: Counter[tuple[str, str]], profile: Profile, provider: Provider
) -> str | None:
    """Name nodes that were assigned to the provider and ran elsewhere."""
    moved: Counter[str] = Counter()
    owners: set[str] = set()
    assigned: Counter[tuple[str, str]] = Counter()
    for (owner, op), count in recorded.items():
        _, _, op_type = op.rpartition(":")  # the profile names no domain
        assigned[owner, op_type] += count
    for (owner, op), executed in profile.nodes.items():
        if owner == provider.ort_name:
            continue
        here = (provider.ort_name, op)
        excess = executed - assigned[owner, op]
        missing = assigned[here] - profile.nodes[here]
        count = min(excess, missing)
        if count > 0:
            moved[op] += count
            owners.add(owner)
    if not moved:
        return None
    listed = ", ".join(f"{op} x{count}" for op, count in moved.most_common(6))
    return (
        f"the record of assignments puts {_nodes(moved.total())} on {provider.ort_name} that "
        f"ran on {' and '.join(sorted(owners))}: {listed}"
    )


def _idle_provider(
    recorded: Counter[tuple[str, str]], profile: Profile, provider: Provider
) -> str | None:
    """Say that none of the nodes that were assigned to the provider ran there."""
    executed = profile.executed()
    assigned = []
    for (owner, _), count in recorded.items():
        if owner == provider.ort_name:
            assigned.append(count)
    promised = sum(assigned)
    if not promised or not executed or provider.ort_name in executed:
        return None
    instead = ", ".join(f"{name} {count}" for name, count in executed.items())
    return (
        f"the record of assignments puts {_nodes(promised)} on {provider.ort_name}, and none ran "
        f"there ({instead})"
    )


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def breach(
    profile: Profile,
    provider: Provider,
    *,
    min_time_share: float | None = None,
    max_copies: int | None = None,
) -> str | None:
    """Say in one sentence which of a card's demands a profile doesn't meet; None if it meets them.

    Args:
        profile: of the cell's session.
        provider: the one asked for.
        min_time_share: of the time in kernels, the share it must have, in [0, 1].
        max_copies: how many nodes may copy between its memory and the host's.
    """
    if min_time_share is not None:
        share = profile.time_share(provider)
        if share is not None and share < min_time_share:
            return _little_time(profile, provider, share, min_time_share)
    if max_copies is not None and profile.copies > max_copies:
        return _many_copies(profile, provider, max_copies)
    return None


def _little_time(
    profile: Profile, provider: Provider, share: float, min_share: float
) -> str:
    times = profile.microseconds.most_common()
    listed = ", ".join(f"{name} {spent_us / 1000:.3g} ms" for name, spent_us in times)
    return (
        f"{provider.ort_name} has {share:.0%} of the time in kernels, and the card requires at "
        f"least {min_share:.0%} (time by provider: {listed})"
    )


def _many_copies(profile: Profile, provider: Provider, max_copies: int) -> str:
    ops = []
    for (owner, op), _ in profile.nodes.most_common():
        if owner != provider.ort_name:
            ops.append(op)
    elsewhere = f"; op types elsewhere: {', '.join(ops[:6])}" if ops else ""
    verb = "copies" if profile.copies == 1 else "copy"
    return (
        f"{_nodes(profile.copies)} {verb} between the memory of {provider.ort_name} and the host's "
        f"(Memcpy), and the card allows {max_copies}{elsewhere}"
    )
