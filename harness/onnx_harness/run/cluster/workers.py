"""The workers of a cluster, what they offer, and which of them can take what."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PROVIDER, MEMORY = "ep:", "mem_gb"


@dataclass(frozen=True, slots=True)
class Place:
    """A worker.

    Attributes:
        address: its own, which a worker that starts again hasn't any more.
        host: of the address.
        threads: tasks that it runs at once.
        offers: resources by tag: ``ep:cuda``, ``gpu:h200``, ``mem_gb``.
    """

    address: str
    host: str
    threads: int
    offers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Load:
    """The needs of a share of work.

    Attributes:
        provider: the execution provider.
        further: tags beside that of the provider.
        memory_gb: that its cell process is expected to hold; 0 where that isn't known.
    """

    provider: str
    further: tuple[str, ...]
    memory_gb: float

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that a worker has to have."""
        return (f"{PROVIDER}{self.provider}", *self.further)

    def fits(self, place: Place) -> bool:
        """Return whether a worker has the tags.

        One without any for providers is taken for a CPU's.
        """
        untagged = not any(tag.startswith(PROVIDER) for tag in place.offers)
        needed = self.further if untagged and self.provider == "cpu" else self.tags
        return all(place.offers.get(tag, 0) > 0 for tag in needed)

    def resources(self, place: Place) -> dict[str, float]:
        """Return what Dask is told that it takes of a worker: never more than that has."""
        resources = {tag: 1.0 for tag in self.tags if tag in place.offers}
        if MEMORY in place.offers and self.memory_gb:
            resources[MEMORY] = min(self.memory_gb, place.offers[MEMORY])
        return resources


def places_in(info: Mapping[str, Any]) -> list[Place]:
    """Read the workers from what a scheduler of Dask says about itself."""
    places: list[Place] = []
    for address, worker in sorted(info["workers"].items()):
        if worker.get("status") in (None, "running"):
            places.append(
                Place(
                    address,
                    str(worker.get("host", "")),
                    int(worker.get("nthreads", 1)),
                    dict(worker.get("resources", {})),
                )
            )
    return places


def rank(
    places: Sequence[Place],
    load: Load,
    used: Mapping[str, Sequence[Load]],
    avoided: Collection[str],
) -> list[Place]:
    """The workers that can take a share now, the best one first.

    Args:
        places: all of them.
        load: what it needs.
        used: what runs on which worker, by address.
        avoided: addresses that failed with it; taken only where no other fits at all.
    """
    fitting = [place for place in places if load.fits(place)]
    others = [place for place in fitting if place.address not in avoided]
    able = [
        place
        for place in others or fitting
        if _has_room(place, load, used.get(place.address, ()))
    ]
    return sorted(able, key=lambda place: len(used.get(place.address, ())))


def _has_room(place: Place, load: Load, running: Sequence[Load]) -> bool:
    if len(running) >= place.threads:
        return False
    loads = [other.resources(place) for other in running]
    for tag, amount in load.resources(place).items():
        if not (sum(other.get(tag, 0.0) for other in loads) + amount <= place.offers[tag]):
            return False
    return True
