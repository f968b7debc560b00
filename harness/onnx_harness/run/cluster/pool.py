"""The workers of a cluster: which there are, on which machines, and what they are asked to do."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Any

from onnx_harness.cell.content import Machine, this_machine
from onnx_harness.errors import first_line
from onnx_harness.isolate.answers import unpack
from onnx_harness.providers.probe import Availability
from onnx_harness.run.cluster import worker
from onnx_harness.run.cluster.address import CONNECT_SECONDS, Address
from onnx_harness.run.cluster.messages import DESCRIBED, Described
from onnx_harness.run.cluster.workers import Load, Place, places_in, rank

ANSWER_SECONDS = 180.0
"""So long is a worker waited for that tries a provider or takes a piece of a file."""

FETCH_SECONDS = 30.0
"""So long is an answer waited for that is there.

It lies on its worker until it's fetched: where that is cut off just then, Dask waits for another
worker to give it, which none may.
"""

_MOST_ASKED = 3
_TICK_SECONDS = 0.5
_OFFER_SECONDS = 10.0


class Pool:
    """The workers that a scheduler knows."""

    def __init__(self, client: Any, address: Address) -> None:
        """Wait for the first worker.

        Args:
            client: Dask's.
            address: of the scheduler, with the tags that a provider requires of a worker.
        """
        self._client = client
        self._address = address
        self._machines: dict[str, Described | None] = {}
        self._name = f"onnx-harness-{secrets.token_hex(8)}"
        self._wait_for_workers()

    def machines(self) -> list[Machine]:
        """The machines of the workers, each once."""
        by_fingerprint = {}
        for place in self.places():
            if (described := self._describe(place)) is not None:
                by_fingerprint[described.machine.fingerprint] = described.machine
        return list(by_fingerprint.values())

    def differing(self) -> list[str]:
        """Return how what is installed on workers differs from here: a sentence each."""
        here, remarks = this_machine().versions, set()
        for machine in self.machines():
            for name in sorted(here.keys() & machine.versions.keys()):
                if machine.versions[name] != here[name]:
                    version = machine.versions[name]
                    remarks.add(f"{name} is {here[name]} here and {version} on a worker")
        return sorted(remarks)

    def probe(self, provider: str) -> Availability:
        """Return whether a worker can use the provider, found out by using it there."""
        load = Load(provider, self._address.requires.get(provider, ()), 0)
        able = self._able(load)
        if not able:
            tags = " and ".join(f"'{tag}'" for tag in load.tags)
            mend = f'start workers with --resources "{load.tags[0]}=1"'
            return Availability(
                provider, False, f"no worker of the cluster has {tags}", mend
            )
        availability = Availability(provider, False, "no worker answered", None)
        for place in able[:_MOST_ASKED]:
            future = self.submit(worker.probe_provider, place, provider)
            try:
                answer = unpack(future.result(timeout=ANSWER_SECONDS))
            except Exception as error:
                # Dask's own have no common class; another worker is asked.
                availability = Availability(
                    provider, False, f"on {place.address}, {first_line(error)}", None
                )
                continue
            if isinstance(answer, Availability):
                availability = answer
            if availability.usable:
                break
        return availability

    def _able(self, load: Load) -> list[Place]:
        """The workers that can take a share, the best one first.

        A worker of a loaded machine may be known some moments before what it offers is.
        """
        ends = time.monotonic() + _OFFER_SECONDS
        while not (able := rank(self.places(), load, {}, ())) and time.monotonic() < ends:
            time.sleep(_TICK_SECONDS)
        return able

    def _wait_for_workers(self) -> None:
        """Wait for the first worker: it may have been started with the scheduler a moment ago."""
        ends = time.monotonic() + CONNECT_SECONDS
        while not self.places() and time.monotonic() < ends:
            time.sleep(_TICK_SECONDS)

    def places(self) -> list[Place]:
        """The workers that the scheduler knows at this moment."""
        try:
            return places_in(self._client.scheduler_info(n_workers=-1))
        except Exception:  # the scheduler doesn't answer: nothing is decided before it does
            return []

    def _describe(self, place: Place) -> Described | None:
        """Return what a worker says of itself, asked beside its tasks; None where it doesn't."""
        if place.address not in self._machines:
            self._machines[place.address] = None
            with contextlib.suppress(Exception):  # of Dask: a worker that leaves
                described = self._client.run(worker.describe, workers=[place.address])
                self._machines[place.address] = DESCRIBED.loads(described[place.address])
        return self._machines[place.address]

    def host(self, place: Place) -> str:
        """Return what names the machine of a worker."""
        machine = self._describe(place)
        return machine.boot if machine is not None else place.host

    def limit(self, place: Place) -> int:
        """Return how many bytes a cell process may hold at most on a worker; 0: it isn't known."""
        machine = self._describe(place)
        return machine.limit if machine is not None else 0

    def submit(
        self,
        function: Callable[..., Any],
        place: Place,
        *args: Any,
        load: Load | None = None,
    ) -> Any:
        """Have one worker call a function; the answer is Dask's future.

        Args:
            function: importable by the worker.
            place: the worker.
            args: of the function.
            load: what it takes of the worker meanwhile.
        """
        return self._client.submit(
            function,
            *args,
            key=f"{self._name}-{secrets.token_hex(8)}",
            workers=[place.address],
            allow_other_workers=False,
            resources=None if load is None else load.resources(place),
            pure=False,
        )
