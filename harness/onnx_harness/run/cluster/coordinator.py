"""Decides which worker of a cluster judges what, and hears what they find.

The unit of work is a model on a provider: its variants share the reference, and its baseline is
timed where its variants are. Each share of work is bound to one worker that is free, so that
nothing waits behind a busy one, and a worker that is lost costs the cell in hand: the others'
verdicts came as events. Accuracy comes first; latency afterwards, one share at a time on a machine.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from onnx_harness.cell.content import Machine
from onnx_harness.cell.matrix import Cell
from onnx_harness.errors import HarnessError, first_line
from onnx_harness.isolate.answers import pack
from onnx_harness.providers.probe import Availability
from onnx_harness.results.cache import source_digest
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.run.cluster import worker
from onnx_harness.run.cluster.address import connected, parse_address
from onnx_harness.run.cluster.messages import REPLY, VERDICT, RemoteVerdict, Reply, Request
from onnx_harness.run.cluster.parcels import INLINE_BYTES, pieces
from onnx_harness.run.cluster.pool import ANSWER_SECONDS, FETCH_SECONDS, Pool
from onnx_harness.run.cluster.shares import (
    Parcels,
    Running,
    Share,
    ended,
    settle,
    unjudged,
    untimed,
)
from onnx_harness.run.cluster.workers import Load, Place, rank
from onnx_harness.run.schedule import Group
from onnx_harness.settings import Settings

WORKERLESS_SECONDS = 120.0
"""So long is a worker waited for where none is left that offers what a cell needs."""

_TICK_SECONDS = 0.5
_LAST_SECONDS = 10.0


class Cluster:
    """Judges cells on other machines; whoever wants a verdict waits for it."""

    def __init__(self, settings: Settings, processes: int) -> None:
        """Connect.

        Args:
            settings: of the run.
            processes: of a cluster on this machine.

        Raises:
            UsageError: there is no scheduler, or Dask isn't installed.
        """
        self._settings = settings
        self._address = parse_address(settings.cluster)
        self._open = contextlib.ExitStack()
        self._client = self._open.enter_context(
            connected(self._address, processes, settings.provider)
        )
        self._pool = Pool(self._client, self._address)
        self._verdicts: dict[str, Future[RemoteVerdict]] = {}
        self._times: dict[str, Future[RemoteVerdict]] = {}
        self._doubtful: dict[str, RemoteVerdict] = {}
        self._refusing: dict[str, set[str]] = {}  # workers that can't use a provider
        self._parcels = Parcels(settings, lambda cell: cell.card.path)
        self._topic = f"onnx-harness-{secrets.token_hex(8)}"
        self._ended = threading.Event()
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None

    def __contains__(self, cell: Cell) -> bool:
        """Return whether the cell is judged here."""
        return cell.id in self._verdicts

    def times(self, cell: Cell) -> bool:
        """Return whether the cell is timed here, too."""
        return cell.id in self._times

    def verdict(self, cell: Cell) -> RemoteVerdict:
        """The verdict on a cell, as soon as there is one.

        Raises:
            CancelledError: the cluster was closed before that.
        """
        return self._verdicts[cell.id].result()

    def timed(self, cell: Cell) -> RemoteVerdict:
        """The verdict on a cell with its latency, as soon as there is one."""
        return self._times[cell.id].result()

    def machines(self) -> list[Machine]:
        """The machines of the workers, each once."""
        return self._pool.machines()

    def differing(self) -> list[str]:
        """Return how what is installed on workers differs from here: a sentence each."""
        return self._pool.differing()

    def probe(self, provider: str) -> Availability:
        """Return whether a worker can use the provider, found out by using it there."""
        return self._pool.probe(provider)

    def start(
        self,
        groups: Iterable[Group],
        timed: Sequence[Cell],
        locate: Callable[[Cell], Path],
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Begin to judge in the background.

        Args:
            groups: models on a provider, in the order in which they are to be begun.
            timed: cells that are timed afterwards, where they pass.
            locate: the ``.onnx`` of a cell on this machine.
            progress: takes a sentence about what went wrong on the way.
        """
        shares = []
        for group in groups:
            self._verdicts |= {cell.id: Future() for cell in group.cells}
            load = self._load(group.cells[0].provider, group.peak_bytes)
            shares.append(Share(list(group.cells), load))
        self._times = {cell.id: Future() for cell in timed}
        self._parcels = Parcels(self._settings, locate)
        self._client.subscribe_topic(self._topic, self._hear)
        self._thread = threading.Thread(
            target=self._work,
            args=(shares, list(timed), progress),
            name="onnx-harness-cluster",
            daemon=True,
        )
        self._thread.start()

    def close(self) -> None:
        """Give up what isn't judged, and leave; workers of this machine end."""
        self._ended.set()
        self._changed.set()
        for future in (*self._verdicts.values(), *self._times.values()):
            future.cancel()
        if self._thread is not None:
            self._thread.join(_LAST_SECONDS)
        with contextlib.suppress(Exception):  # a scheduler that is gone needs no farewell
            self._open.close()

    def _work(
        self, shares: list[Share], timed: list[Cell], progress: Callable[[str], None]
    ) -> None:
        try:
            self._drive(shares, progress)
            if not self._ended.is_set():
                self._drive(self._shares_to_time(timed), progress)
        except BaseException as error:  # whoever waits for a verdict has to hear of it
            for future in (*self._verdicts.values(), *self._times.values()):
                if not future.done():
                    future.set_exception(error)

    def _drive(self, shares: list[Share], progress: Callable[[str], None]) -> None:
        """Give each share to a worker that is free, until none is left."""
        waiting = deque(share for share in shares if share.cells)
        running: list[Running] = []
        while (waiting or running) and not self._ended.is_set():
            places = self._pool.places()
            for work in [work for work in running if work.future.done()]:
                running.remove(work)
                waiting.extendleft(self._end(work, progress))
            present = {place.address for place in places}
            for work in [work for work in running if work.place.address not in present]:
                running.remove(work)
                work.future.cancel()
                progress(
                    f"the worker {work.place.address} is lost: its cells go to another one"
                )
                waiting.extendleft(self._again(work))
            self._begin(waiting, running, places)
            self._changed.wait(_TICK_SECONDS if running or waiting else 0)
            self._changed.clear()
        for work in running:
            work.future.cancel()

    def _begin(
        self, waiting: deque[Share], running: list[Running], places: Sequence[Place]
    ) -> None:
        for share in list(waiting):
            used = {work.place.address: [] for work in running}  # type: dict[str, list[Load]]
            for work in running:
                used[work.place.address].append(work.share.load)
            hosts = {self._pool.host(work.place) for work in running}
            avoided = share.avoided | self._refusing.get(share.load.provider, set())
            able = rank(places, share.load, used, avoided)
            # Alone on its machine, the one that judged it where that is there.
            if share.timed:
                able = [place for place in able if self._pool.host(place) not in hosts]
                able.sort(key=lambda place: self._pool.host(place) != share.host)
            if able:
                waiting.remove(share)
                share.since = 0.0
                future = self._send(share, able[0], places)
                if future is not None:
                    running.append(Running(share, able[0], future))
            elif not rank(places, share.load, {}, ()):
                share.since = share.since or time.monotonic()
                if time.monotonic() - share.since > WORKERLESS_SECONDS:
                    waiting.remove(share)
                    tags = " and ".join(share.load.tags)
                    self._give_up(share, f"the cluster has had no worker with {tags}")

    def _end(self, work: Running, progress: Callable[[str], None]) -> list[Share]:
        """Take what a worker answered; return what is left to do of the share."""
        try:
            reply = REPLY.loads(work.future.result(timeout=FETCH_SECONDS))
        except Exception as error:  # Dask's own have no common class: a lost worker, for one
            work.future.cancel()
            progress(f"on {work.place.address}: {first_line(error)}")
            return self._again(work)
        if reply.refusal:
            progress(f"{work.place.address} judges nothing: {reply.refusal}")
            refusing = self._refusing.setdefault(work.share.load.provider, set())
            refusing.add(work.place.address)
            return self._again(work, nothing_begun=reply.refusal)
        if reply.missing:
            try:
                self._deliver(work, reply)
            except Exception as error:
                # Of Dask, the disk or the network: the next try may do.
                progress(f"to {work.place.address}: {first_line(error)}")
                return self._again(work, nothing_begun=first_line(error))
            return [work.share]
        for verdict in reply.verdicts:
            self._take(verdict)
        return self._again(work) if self._left(work.share) else []

    def _again(self, work: Running, *, nothing_begun: str = "") -> list[Share]:
        """Return what is left of a share whose worker is lost, or failed for its machine's sake.

        A try is counted of the cells that the worker told a failure of, and of the one in hand.

        Args:
            work: that has ended.
            nothing_begun: why the worker judged none of the cells, which all count as tried then.
        """
        share, address = work.share, work.place.address
        share.avoided.add(address)
        left = self._left(share)
        told = {cell.id: self._doubtful.pop(cell.id, None) for cell in left}
        untold = [cell for cell in left if told[cell.id] is None]
        begun = untold if nothing_begun else untold[:1]
        for cell in left:
            verdict = told[cell.id]
            if verdict is not None or cell in begun:
                share.charge(cell, address, verdict)
            if (
                verdict is not None
                and verdict.limit
                and not self._leave_to_larger(share, verdict)
            ):
                settle(self._futures(share)[cell.id], verdict)
            elif share.is_tried_enough(cell):
                self._settle_tried(share, cell, nothing_begun)
        share.cells = self._left(share)
        return [share] if share.cells else []

    def _leave_to_larger(self, share: Share, verdict: RemoteVerdict) -> bool:
        """Have a share go to workers with more memory than a verdict hangs on, if there are any."""
        is_larger_one_there = False
        for place in self._pool.places():
            if not share.load.fits(place):
                continue
            if self._pool.limit(place) > verdict.limit:
                is_larger_one_there = True
            else:
                share.avoided.add(place.address)
        return is_larger_one_there

    def _settle_tried(self, share: Share, cell: Cell, nothing_begun: str) -> None:
        """End a cell that was tried often enough, as its last worker said, or as lost."""
        outcome = share.outcome(cell)
        if outcome is None:
            tries, workers = len(share.tries[cell.id]), share.workers(cell)
            why = f"{tries} workers were lost or failed with it, {workers}"
            if nothing_begun:
                why = f"{why}: {nothing_begun}"
            outcome = self._unfinished(share, cell, why)
        settle(self._futures(share)[cell.id], outcome)

    def _futures(self, share: Share) -> dict[str, Future[RemoteVerdict]]:
        return self._times if share.timed else self._verdicts

    def _left(self, share: Share) -> list[Cell]:
        futures = self._futures(share)
        return [cell for cell in share.cells if not futures[cell.id].done()]

    def _give_up(self, share: Share, why: str) -> None:
        for cell in self._left(share):
            settle(self._futures(share)[cell.id], self._unfinished(share, cell, why))

    def _unfinished(self, share: Share, cell: Cell, why: str) -> RemoteVerdict:
        accurate = self._verdicts[cell.id].result() if share.timed and cell in self else None
        return untimed(cell, why, accurate) if share.timed else unjudged(cell, why)

    def _hear(self, event: tuple[float, Any]) -> None:
        """Take a verdict that a worker tells before its share is done."""
        with contextlib.suppress(ValueError, KeyError, TypeError, HarnessError):
            self._take(event[1])
        self._changed.set()

    def _take(self, text: str) -> None:
        """Take a verdict, the first one of a cell.

        A worker that was thought lost may tell another. One that says more of the machine than of
        the cell waits until the worker is done: the cell goes elsewhere then.
        """
        verdict = VERDICT.loads(text.encode())
        timed = verdict.result.latency is not None or verdict.result.stage is Stage.LATENCY
        future = (self._times if timed else self._verdicts).get(verdict.result.id)
        if future is None or future.done():
            return
        if verdict.is_of_the_machine(self._settings):
            self._doubtful[verdict.result.id] = verdict
        else:
            settle(future, verdict)

    def _send(self, share: Share, place: Place, places: Sequence[Place]) -> Any:
        """Give a share to a worker; None where its model can't be had, which is its verdict."""
        try:
            cells, settings, parcel = self._parcels.of(share.cells)
        except (HarnessError, OSError) as error:
            for cell in share.cells:
                settle(self._verdicts[cell.id], ended(cell, str(error)))
            return None
        by_id = {cell.id: cell for cell in cells}
        boot = self._pool.host(place)
        neighbours = [near for near in places if self._pool.host(near) == boot]
        small = [part for part in parcel.parts if part.size <= INLINE_BYTES]
        inline = {part.sha256: Path(part.origin).read_bytes() for part in small}
        results = tuple(map(self._accurate, share.cells)) if share.timed else ()
        request = Request(
            tuple(by_id[cell.id] for cell in share.cells),
            settings,
            parcel,
            inline,
            source_digest(),
            self._topic,
            sharing=sum(neighbour.threads for neighbour in neighbours),
            results=results,
        )
        function = worker.time_group if share.timed else worker.judge_group
        future = self._pool.submit(function, place, pack(request), load=share.load)
        future.add_done_callback(lambda _: self._changed.set())
        return future

    def _deliver(self, work: Running, reply: Reply) -> None:
        """Send a worker the files that it lacks."""
        *_, parcel = self._parcels.of(work.share.cells)
        for part in parcel.parts:
            if part.sha256 not in reply.missing:
                continue
            for offset, data in pieces(Path(part.origin)):
                # A piece goes as an argument of its own call: what is scattered stays in memory.
                piece = (part.sha256, offset, data, part.size)
                sent = self._pool.submit(worker.receive, work.place, *piece)
                if sent.result(timeout=ANSWER_SECONDS):
                    break

    def _accurate(self, cell: Cell) -> CellResult:
        return self._verdicts[cell.id].result().result

    def _shares_to_time(self, timed: Sequence[Cell]) -> list[Share]:
        """Group what passed by model and provider, for the machine that judged it."""
        groups: dict[tuple[Path, str], list[Cell]] = {}
        for cell in timed:
            passed = self._accurate(cell).status is Status.PASS if cell in self else False
            if passed and self._accurate(cell).placement is not None:
                groups.setdefault((cell.card.path, cell.provider), []).append(cell)
            else:  # nothing to time: nobody asks for it
                self._times[cell.id].cancel()
        shares = []
        for cells in groups.values():
            host = self._verdicts[cells[0].id].result().boot
            load = self._load(cells[0].provider)
            shares.append(Share(cells, load, timed=True, host=host))
        return shares

    def _load(self, provider: str, peak_bytes: int = 0) -> Load:
        tags = self._address.requires.get(provider, ())
        return Load(provider, tags, peak_bytes / 1e9)
