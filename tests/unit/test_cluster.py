"""Who judges what on a cluster: here the workers are threads, and lose contact when they are told to."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest

from onnx_harness.cell.content import content_key, machine_of, this_machine
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.errors import ResultsError, UsageError
from onnx_harness.isolate.answers import pack, unpack
from onnx_harness.names import parse_variant
from onnx_harness.providers.probe import Availability
from onnx_harness.results.cells import CellResult, Stage, Status, Symptom
from onnx_harness.results.verdicts import VerdictFiles
from onnx_harness.run.cluster import coordinator, worker
from onnx_harness.run.cluster.address import parse_address
from onnx_harness.run.cluster.coordinator import Cluster
from onnx_harness.run.cluster.messages import (
    DESCRIBED,
    REPLY,
    VERDICT,
    Described,
    RemoteVerdict,
    Reply,
    Request,
)
from onnx_harness.run.cluster.parcels import (
    Parcel,
    Part,
    Store,
    packed,
    pieces,
    sha256_of,
    unpacked,
)
from onnx_harness.run.cluster.workers import Load, Place, rank
from onnx_harness.run.fatal import FatalSet
from onnx_harness.run.past import Past
from onnx_harness.run.schedule import grouped
from onnx_harness.settings import Settings
from tests.models import linear, save, two_outputs, with_external_data
from tests.unit.results_examples import cell as result_of
from tests.unit.results_examples import full_latency

CLUSTER = Settings(cluster="tcp://nowhere:1", input_sets=1)
Judge = Callable[[str, Cell], CellResult]


def cells_of(path: Path, *variants: str, provider: str = "cpu") -> list[Cell]:
    card = card_for(path)
    return [Cell(card, parse_variant(variant), provider) for variant in variants]


def passed(_address: str, cell: Cell) -> CellResult:
    return replace(
        result_of(cell.variant.id, model=cell.card.name), id=cell.id, provider=cell.provider
    )


class Unfetched(Future[Any]):
    """An answer that is there, on a worker that is cut off before it's fetched."""

    def result(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "it would be waited for without end"
        raise TimeoutError


@dataclass
class Workers:
    """A scheduler and its workers, as far as the coordinator asks them."""

    judge: Judge = passed
    offers: dict[str, dict[str, float]] = field(default_factory=dict)
    boots: dict[str, str] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    refusing: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    unfetched: int = 0
    log: list[tuple[str, str, bool]] = field(default_factory=list)
    timing: list[tuple[float, float, str]] = field(default_factory=list)
    hear: Callable[[tuple[float, str]], None] = lambda _: None

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        assert n_workers == -1
        return {
            "workers": {
                address: {"host": "h", "nthreads": 1, "resources": tags, "status": "running"}
                for address, tags in self.offers.items()
                if address not in self.lost
            }
        }

    def subscribe_topic(
        self, _topic: str, handler: Callable[[tuple[float, str]], None]
    ) -> None:
        self.hear = handler

    def run(self, _function: object, workers: list[str]) -> dict[str, bytes]:
        boot = self.boots.get(workers[0], "one")
        host = replace(this_machine().host, cpu=f"processor of {boot}")
        limit = self.limits.get(workers[0], 0)
        return {workers[0]: DESCRIBED.dumps(Described(machine_of(host), boot, limit))}

    def submit(self, function: Any, *args: Any, workers: list[str], **_: Any) -> Future[Any]:
        [address] = workers
        future: Future[Any] = Future()
        if function is worker.judge_group and self.unfetched:
            self.unfetched -= 1
            future = Unfetched()

        def work() -> None:
            with contextlib.suppress(Exception):
                future.set_result(self._answer(function, address, *args))

        threading.Thread(target=work, daemon=True).start()
        return future

    def _answer(self, function: Any, address: str, *args: Any) -> Any:
        if function is worker.probe_provider:
            return pack(Availability(args[0], usable=True))
        if function is worker.receive:
            return Store().receive(*args)
        request = unpack(args[0])
        assert isinstance(request, Request)
        if address in self.refusing:
            self.log.append((address, "refused", False))
            return REPLY.dumps(Reply(refusal="the provider doesn't load"))
        store = Store()
        if missing := store.missing(request.parcel, request.inline):
            return REPLY.dumps(Reply(missing=missing))
        store.lay_out(request.parcel, request.inline)
        timed = function is worker.time_group
        verdicts = []
        described = DESCRIBED.loads(self.run(None, [address])[address])
        for cell in request.cells:
            self.log.append((address, cell.id, timed))
            started = time.monotonic()
            result = self.judge(address, cell)
            if timed:
                time.sleep(0.05)
                self.timing.append((started, time.monotonic(), described.boot))
                result = replace(result, latency=full_latency())
            found = RemoteVerdict(
                replace(result, machine=described.machine.host),
                described.machine,
                boot=described.boot,
                limit=described.limit if "--cell-memory" in (result.reason or "") else 0,
            )
            verdicts.append(VERDICT.dumps(found).decode())
            if address in self.lost:
                time.sleep(3600)
            self.hear((0.0, verdicts[-1]))
        return REPLY.dumps(Reply(tuple(verdicts)))


@pytest.fixture
def workers() -> Workers:
    return Workers(offers={"a": {"ep:cpu": 1}, "b": {"ep:cpu": 1}})


@pytest.fixture
def cluster(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Cluster]:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(coordinator, "connected", lambda *_: contextlib.nullcontext(workers))
    monkeypatch.setattr(coordinator, "_TICK_SECONDS", 0.02)
    made = Cluster(CLUSTER, 1)
    yield made
    made.close()


@pytest.fixture
def models(tmp_path: Path) -> list[list[Cell]]:
    paths = [save(linear(), tmp_path / "zoo" / f"m{number}.onnx") for number in range(4)]
    return [cells_of(path, "original", "simplify", "optimize") for path in paths]


def start(
    cluster: Cluster, groups: list[list[Cell]], timed: list[Cell] | None = None
) -> list[str]:
    said: list[str] = []
    cells = [cell for group in groups for cell in group]
    located = {cell.id: cell.card.path for cell in cells}
    cluster.start(
        grouped(cells, {}, by_provider=True),
        timed or [],
        lambda cell: located[cell.id],
        said.append,
    )
    return said


def test_every_cell_is_judged_once_and_a_model_by_one_worker(
    cluster: Cluster, workers: Workers, models: list[list[Cell]]
) -> None:
    start(cluster, models)
    for group in models:
        assert [cluster.verdict(cell).result.id for cell in group] == [
            cell.id for cell in group
        ]
        ids = {cell.id for cell in group}
        assert len({address for address, cell, _ in workers.log if cell in ids}) == 1
    assert len(workers.log) == len({cell for _, cell, _ in workers.log}) == 12


def test_a_lost_worker_costs_the_cell_in_hand_alone(
    cluster: Cluster, workers: Workers, models: list[list[Cell]]
) -> None:
    def judge(address: str, cell: Cell) -> CellResult:
        if cell.id == models[0][1].id and address not in workers.lost and not workers.lost:
            workers.lost.add(address)
        return passed(address, cell)

    workers.judge = judge
    said = start(cluster, models)
    assert all(
        cluster.verdict(cell).result.status is Status.PASS
        for group in models
        for cell in group
    )
    assert len(workers.log) == 13  # that cell alone was begun twice
    assert [cell for _, cell, _ in workers.log].count(models[0][1].id) == 2
    assert any("is lost: its cells go to another one" in line for line in said)


def test_an_answer_that_is_never_fetched_is_asked_for_elsewhere(
    cluster: Cluster,
    workers: Workers,
    models: list[list[Cell]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dask would wait for the worker that is lost; what it told of its cells on the way counts."""
    monkeypatch.setattr(workers, "hear", lambda _: None)
    monkeypatch.setattr(workers, "subscribe_topic", lambda *_: None)
    workers.unfetched = 1
    said = start(cluster, models[:2])
    for cell in [*models[0], *models[1]]:
        assert cluster.verdict(cell).result.status is Status.PASS
    assert any("TimeoutError" in line for line in said)


def test_the_first_verdict_of_a_cell_stands(
    cluster: Cluster, models: list[list[Cell]]
) -> None:
    """A worker that was cut off, and thought lost, tells its verdict after another one's."""
    start(cluster, models[:1])
    first = cluster.verdict(models[0][0])
    late = replace(first, result=replace(first.result, status=Status.FAIL))
    cluster._hear((0.0, VERDICT.dumps(late).decode()))
    assert cluster.verdict(models[0][0]) == first
    cluster._hear((0.0, "no verdict"))
    cluster._hear((0.0, VERDICT.dumps(replace(late, result=result_of())).decode()))


def test_a_cell_whose_workers_are_all_lost_is_an_error_of_the_environment(
    cluster: Cluster, workers: Workers, models: list[list[Cell]]
) -> None:
    workers.offers |= {name: {"ep:cpu": 1} for name in "cdef"}
    fatal = models[0][0].id

    def judge(address: str, cell: Cell) -> CellResult:
        if cell.id == fatal:
            workers.lost.add(address)
        return passed(address, cell)

    workers.judge = judge
    start(cluster, models[:2])
    ended = cluster.verdict(models[0][0]).result
    assert (ended.status, ended.symptom) == (Status.ERROR, Symptom.ENVIRONMENT)
    assert "3 workers were lost or failed with it" in (ended.reason or "")
    assert cluster.verdict(models[1][0]).result.status is Status.PASS


def full_disk(cell: Cell) -> CellResult:
    return replace(
        passed("", cell),
        status=Status.ERROR,
        stage=Stage.LOAD,
        reason="OSError: no space left",
        symptom=Symptom.ENVIRONMENT,
    )


def test_what_fails_for_a_machines_sake_is_judged_on_another_one(
    cluster: Cluster, workers: Workers, models: list[list[Cell]]
) -> None:
    troubled = models[0][1].id

    def judge(address: str, cell: Cell) -> CellResult:
        first = not any(cell_id == troubled for _, cell_id, _ in workers.log[:-1])
        return full_disk(cell) if cell.id == troubled and first else passed(address, cell)

    workers.judge = judge
    start(cluster, models[:1])
    assert all(cluster.verdict(cell).result.status is Status.PASS for cell in models[0])
    tries = [address for address, cell, _ in workers.log if cell == troubled]
    assert sorted(tries) == ["a", "b"]
    assert len(workers.log) == 4  # the others of its model were judged once


def test_what_fails_on_every_machine_is_tried_three_times_and_names_them(
    cluster: Cluster, workers: Workers, models: list[list[Cell]]
) -> None:
    workers.offers |= {name: {"ep:cpu": 1} for name in "cd"}
    troubled = models[0][1].id
    workers.judge = lambda address, cell: (
        full_disk(cell) if cell.id == troubled else passed(address, cell)
    )
    start(cluster, models[:1])
    ended = cluster.verdict(models[0][1]).result
    tries = [address for address, cell, _ in workers.log if cell == troubled]
    assert len(tries) == len(set(tries)) == 3
    assert (ended.status, ended.symptom) == (Status.ERROR, Symptom.ENVIRONMENT)
    assert ended.reason == f"tried 3 times, on {', '.join(tries)}: OSError: no space left"
    assert cluster.verdict(models[0][2]).result.status is Status.PASS


def test_a_cell_that_costs_workers_costs_its_neighbours_no_try(
    cluster: Cluster, workers: Workers, models: list[list[Cell]]
) -> None:
    """Two cells of a model that each cost workers: the third one is judged all the same."""
    workers.offers |= {name: {"ep:cpu": 1} for name in "cdefgh"}
    fatal = {models[0][0].id, models[0][1].id}

    def judge(address: str, cell: Cell) -> CellResult:
        if cell.id in fatal:
            workers.lost.add(address)
        return passed(address, cell)

    workers.judge = judge
    start(cluster, models[:1])
    ended = [cluster.verdict(cell).result.status for cell in models[0]]
    assert ended == [Status.ERROR, Status.ERROR, Status.PASS]
    assert len(workers.lost) == 6


def test_a_worker_that_cannot_use_the_provider_is_asked_once(
    cluster: Cluster, workers: Workers, models: list[list[Cell]]
) -> None:
    workers.refusing = {"a"}
    said = start(cluster, models)
    for group in models:
        for cell in group:
            assert cluster.verdict(cell).result.status is Status.PASS
    assert [address for address, cell, _ in workers.log if cell == "refused"] == ["a"]
    assert any("the provider doesn't load" in line for line in said)


def out_of_memory(address: str, cell: Cell) -> CellResult:
    reason = f"on {address}, used more memory than the limit (--cell-memory)"
    return replace(
        passed(address, cell),
        status=Status.FAIL,
        stage=Stage.RUN,
        reason=reason,
        symptom=Symptom.CRASH,
    )


def test_what_a_small_worker_has_no_memory_for_goes_to_a_larger_one(
    cluster: Cluster, workers: Workers, models: list[list[Cell]]
) -> None:
    large = CLUSTER.cell_memory
    workers.offers = {name: {"ep:cpu": 1} for name in ("a", "b", "z")}
    workers.limits = {"a": large // 4, "b": large // 4, "z": large}
    workers.judge = lambda address, cell: (passed if address == "z" else out_of_memory)(
        address, cell
    )
    start(cluster, models[:1])
    assert all(cluster.verdict(cell).result.status is Status.PASS for cell in models[0])
    assert [address for address, *_ in workers.log] == ["a"] * 3 + ["z"] * 3


def test_a_lack_of_memory_is_final_where_no_worker_has_more(
    cluster: Cluster, workers: Workers, models: list[list[Cell]]
) -> None:
    workers.limits = dict.fromkeys("ab", CLUSTER.cell_memory // 4)
    workers.judge = out_of_memory
    start(cluster, models[:1])
    told = cluster.verdict(models[0][0])
    assert (told.result.status, told.limit) == (Status.FAIL, CLUSTER.cell_memory // 4)
    assert len(workers.log) == 3


def test_a_verdict_is_found_again_under_the_limit_of_memory_that_it_hangs_on(
    tmp_path: Path,
) -> None:
    [cell] = cells_of(save(linear(), tmp_path / "m.onnx"), "original")
    large = Settings(report_dir=tmp_path / "reports", resume=True, cell_memory=64 << 30)
    small = replace(large, cell_memory=8 << 30)
    noted = Past(large)
    noted.judged_on(cell, this_machine(), small.cell_memory)
    noted.judged_on(cell, this_machine())  # times come later, and hang on nothing
    files = VerdictFiles(tmp_path / "reports")
    files.put(out_of_memory("a", cell), noted.entry(cell, reused=False).key)
    assert Past(large).verdict(cell) is None
    found = Past(small).verdict(cell)
    assert found is not None
    assert found.status is Status.FAIL


def test_a_provider_that_no_worker_has_tags_for_is_refused_before_anything_runs(
    cluster: Cluster, workers: Workers
) -> None:
    assert cluster.probe("cpu").usable
    refused = cluster.probe("cuda")
    assert not refused.usable
    assert "'ep:cuda'" in (refused.reason or "")
    assert '--resources "ep:cuda=1"' in (refused.mend or "")
    workers.offers["c"] = {"ep:cuda": 1}
    assert cluster.probe("cuda").usable


def test_each_provider_goes_to_a_worker_that_offers_it(
    cluster: Cluster, workers: Workers, tmp_path: Path
) -> None:
    workers.offers = {"a": {"ep:cpu": 1}, "g": {"ep:webgpu": 1}}
    path = save(linear(), tmp_path / "m.onnx")
    groups = [cells_of(path, "original"), cells_of(path, "original", provider="webgpu")]
    start(cluster, groups)
    for group in groups:
        cluster.verdict(group[0])
    assert {cell: address for address, cell, _ in workers.log} == {
        "m-original-cpu": "a",
        "m-original-webgpu": "g",
    }


def test_cells_of_a_worker_that_never_comes_end_as_an_error(
    cluster: Cluster,
    workers: Workers,
    models: list[list[Cell]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coordinator, "WORKERLESS_SECONDS", 0.1)
    workers.offers = {}
    start(cluster, models[:1])
    assert cluster.verdict(models[0][0]).result.symptom is Symptom.ENVIRONMENT


def test_times_are_taken_after_all_accuracy_and_one_share_at_a_time_on_a_machine(
    cluster: Cluster, workers: Workers, models: list[list[Cell]]
) -> None:
    workers.offers["c"] = {"ep:cpu": 1}
    workers.boots = {"a": "one", "b": "one", "c": "two"}
    timed = [cell for group in models for cell in group]
    start(cluster, models, timed)
    for cell in timed:
        told = cluster.timed(cell)
        assert told.result.latency is not None
        # baseline and variants where the accuracy was judged, or together elsewhere
        assert told.result.machine == told.machine.host
    order = [is_timed for _, _, is_timed in workers.log]
    assert order == sorted(order)
    for boot in ("one", "two"):
        spans = sorted(span[:2] for span in workers.timing if span[2] == boot)
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))


def test_what_did_not_pass_is_not_timed(
    cluster: Cluster, workers: Workers, models: list[list[Cell]]
) -> None:
    workers.judge = lambda address, cell: replace(
        passed(address, cell), status=Status.FAIL, stage=Stage.COMPARE
    )
    start(cluster, models[:1], models[0])
    cluster.verdict(models[0][0])
    cluster.close()
    assert not any(timed for *_, timed in workers.log)


def test_a_model_that_cannot_be_had_is_told_and_the_others_are_judged(
    cluster: Cluster, models: list[list[Cell]], tmp_path: Path
) -> None:
    gone = cells_of(tmp_path / "gone.onnx", "original")
    start(cluster, [gone, models[0]])
    ended = cluster.verdict(gone[0]).result
    assert ended.status is Status.ERROR
    assert "gone.onnx" in (ended.reason or "")
    assert cluster.verdict(models[0][0]).result.status is Status.PASS


def test_a_large_file_is_sent_once_in_pieces(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "INLINE_BYTES", 10)
    monkeypatch.setattr("onnx_harness.run.cluster.parcels.CHUNK_BYTES", 100)
    monkeypatch.setattr("onnx_harness.run.cluster.parcels.packed", packed)
    path = with_external_data(tmp_path / "ext.onnx", "weights.bin")
    cells = cells_of(path, "original")
    hidden = packed(cells, path, CLUSTER)
    parts = tuple(replace(part, origin="/nowhere/at/all") for part in hidden[2].parts)
    store = Store()
    parcel = Parcel(parts)
    assert len(store.missing(parcel, {})) == 2
    for part, shown in zip(parts, hidden[2].parts, strict=True):
        done = [
            store.receive(part.sha256, offset, data, part.size)
            for offset, data in pieces(Path(shown.origin))
            if data
        ]
        assert done[-1]
        assert len(done) > 1
    assert store.missing(parcel, {}) == ()
    folder = store.lay_out(parcel, {})
    assert (folder / "model/weights.bin").read_bytes() == (
        tmp_path / "weights.bin"
    ).read_bytes()
    start(cluster, [cells])
    assert cluster.verdict(cells[0]).result.status is Status.PASS


def test_files_are_what_their_digests_say(tmp_path: Path) -> None:
    store, file = Store(tmp_path / "store"), tmp_path / "file"
    file.write_bytes(b"content")
    part = Part("model/m.onnx", sha256_of(file), 7, str(file))
    folder = store.lay_out(Parcel((part,)), {})
    (folder / part.place).chmod(0o644)
    (folder / part.place).write_bytes(b"CONTENT")  # by a process that a model took over
    assert (store.lay_out(Parcel((part,)), {}) / part.place).read_bytes() == b"content"
    with pytest.raises(ResultsError, match="isn't the one of the digest"):
        store.receive(part.sha256, 0, b"another", 7)
    with pytest.raises(ResultsError, match="outside of it"):
        store.lay_out(Parcel((replace(part, place="../escaped"),)), {})


def test_a_parcel_has_what_the_key_is_made_of_and_the_worker_finds_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "zoo").mkdir()
    path = with_external_data(tmp_path / "zoo" / "ext.onnx", "weights.bin")
    (tmp_path / "zoo" / "ext.npz").write_bytes(b"recorded")
    (tmp_path / "zoo" / "ext.model.toml").write_text('[model]\nlicense = "MIT"\n')
    library = tmp_path / "ops.so"
    library.write_bytes(b"native")
    settings = Settings(custom_ops=(library,))
    cells = cells_of(path, "original", "simplify")
    moved, sent, parcel = packed(cells, path, settings)
    assert {part.place for part in parcel.parts} == {
        "model/ext.onnx",
        "model/weights.bin",
        "model/ext.npz",
        "model/ext.model.toml",
        "ops/run-0/ops.so",
    }
    folder = Store(tmp_path / "store").lay_out(parcel, {})
    travelled = unpack(pack(Request(moved, sent, parcel, {}, "", "")))
    laid, local = unpacked(travelled.cells, travelled.settings, folder)
    assert local.custom_ops == (folder / "ops/run-0/ops.so",)
    machine = this_machine()
    here = [content_key(cell, path, settings, machine) for cell in cells]
    there = [content_key(cell, folder / "model/ext.onnx", local, machine) for cell in laid]
    assert here == there


def test_a_worker_of_another_state_of_the_code_refuses() -> None:
    request = Request((), Settings(), Parcel(()), {}, "another", "topic")
    assert (
        "another state of the code" in REPLY.loads(worker.judge_group(pack(request))).refusal
    )
    assert REPLY.loads(worker.judge_group(pack(["no request"]))).refusal


def refuse_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process open no model: a cell process is another one, which imports anew."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was opened outside the cell process")

    for name in ("load", "load_model", "load_model_from_string", "ModelProto"):
        monkeypatch.setattr(onnx, name, refuse)
    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)


def test_a_worker_judges_and_times_in_a_cell_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    path = save(linear(), tmp_path / "m.onnx")
    settings = replace(CLUSTER, latency_budget=0.1)
    moved, sent, parcel = packed(cells_of(path, "original"), path, settings)
    request = Request(moved, sent, parcel, {}, this_machine().source, "topic")
    refuse_models(monkeypatch)
    reply = REPLY.loads(worker.judge_group(pack(request)))
    told = VERDICT.loads(reply.verdicts[0].encode())
    assert (told.result.status, told.result.machine) == (Status.PASS, this_machine().host)
    timed = REPLY.loads(worker.time_group(pack(replace(request, results=(told.result,)))))
    latency = VERDICT.loads(timed.verdicts[0].encode()).result.latency
    assert latency is not None
    assert latency.pairs > 0
    for _, runner in worker._idle:
        runner.close()
    worker._idle.clear()


def test_a_worker_judges_a_changed_model_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cell has the same id, and the runner that judged it may still be there."""
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    digests = set()
    for model in (linear(), two_outputs()):
        path = save(model, tmp_path / "m.onnx")
        moved, sent, parcel = packed(cells_of(path, "original"), path, CLUSTER)
        request = Request(moved, sent, parcel, {}, this_machine().source, "topic")
        [verdict] = REPLY.loads(worker.judge_group(pack(request))).verdicts
        digests.add(VERDICT.loads(verdict.encode()).result.model_sha256)
    assert len(digests) == 2
    [(_, runner)] = worker._idle
    runner.close()
    worker._idle.clear()


def test_a_worker_refuses_a_provider_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    path = save(linear(), tmp_path / "m.onnx")
    cells = cells_of(path, "original", provider="cuda")
    moved, sent, parcel = packed(cells, path, replace(CLUSTER, provider=("cuda",)))
    request = Request(moved, sent, parcel, {}, this_machine().source, "topic")
    refusal = REPLY.loads(worker.judge_group(pack(request))).refusal
    assert refusal.startswith("provider 'cuda' can't be used there: ")
    for _, runner in worker._idle:
        runner.close()
    worker._idle.clear()


def test_a_verdict_comes_back_as_it_was_sent() -> None:
    sent = RemoteVerdict(
        result_of(),
        this_machine(),
        "all",
        (1,),
        True,
        (FatalSet(3, "set", "died"),),
        "died",
        "boot",
        0,
        ("Going on without a cache.",),
    )
    received = VERDICT.loads(VERDICT.dumps(sent))
    assert received == sent
    assert received.judged.warnings == sent.warnings


def test_memory_and_threads_hold_shares_off() -> None:
    places = [
        Place("a", "h", 2, {"ep:cpu": 2, "mem_gb": 8}),
        Place("b", "h", 1, {"ep:cuda": 1, "gpu:h200": 1}),
        Place("c", "h", 1, {}),
    ]
    small, large = Load("cpu", (), 2), Load("cpu", (), 7)
    assert [place.address for place in rank(places, small, {}, ())] == ["a", "c"]
    assert [place.address for place in rank(places, small, {"a": [small]}, ())] == ["c", "a"]
    assert [place.address for place in rank(places, large, {"a": [small]}, ())] == ["c"]
    assert [place.address for place in rank(places, small, {"a": [small, small]}, ())] == [
        "c"
    ]
    assert [place.address for place in rank(places, Load("cuda", (), 0), {}, ())] == ["b"]
    assert rank(places, Load("cuda", ("gpu:a100",), 0), {}, ()) == []
    assert [place.address for place in rank(places, small, {}, {"a"})] == ["c"]
    assert [place.address for place in rank(places[:1], small, {}, {"a"})] == ["a"]
    beyond = Load("cpu", (), 50)  # it is begun alone where the most memory is
    assert beyond.resources(places[0])["mem_gb"] == 8


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "can't be read"),
        ("[other]\n", "names no scheduler"),
        ("[cluster]\n", "needs address"),
        ('[cluster]\naddress = "tcp://h:1"\nadress = 1\n', "has no key 'adress'"),
        ('[cluster]\naddress = "tls://h:1"\n', "TLS needs ca, cert, key"),
        ('[cluster]\naddress = "tls://h:1"\nca = "ca.pem"\n', "TLS needs ca, cert, key"),
    ],
)
def test_a_file_that_names_no_cluster_is_refused(
    text: str | None, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "cluster.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=words):
        parse_address(str(file))


def test_a_file_names_address_certificates_and_tags(tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(
        '[cluster]\naddress = "tls://h:8786"\nca = "ca.pem"\ncert = "c.pem"\nkey = "k.pem"\n'
        'requires = { cuda = ["gpu:h200"] }\n'
    )
    address = parse_address(str(file))
    assert address.url == "tls://h:8786"
    assert address.tls == {
        "ca": tmp_path / "ca.pem",
        "cert": tmp_path / "c.pem",
        "key": tmp_path / "k.pem",
    }
    assert address.requires == {"cuda": ("gpu:h200",)}
    scheduler = tmp_path / "scheduler.json"
    scheduler.write_text('{"address": "tcp://h:1"}')
    assert parse_address(str(scheduler)).url == "tcp://h:1"
    assert parse_address("local").url == ""
    with pytest.raises(UsageError, match=r"cluster\.toml"):
        parse_address("tls://h:1")
