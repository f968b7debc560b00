"""How far the harness scales, one line a figure: ``make scale`` prints the table, ``--quick`` a
small form of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from onnx_harness.cards.card import Card, PathSource
from onnx_harness.cell.content import content_key
from onnx_harness.cell.matrix import Cell, card_for, expand_variants
from onnx_harness.errors import ModelError
from onnx_harness.model.bounds import check_bounds
from onnx_harness.names import parse_variant
from onnx_harness.report.background import NOTHING
from onnx_harness.report.merge import merge
from onnx_harness.report.table import lines
from onnx_harness.report.write import write_reports
from onnx_harness.results.cells import CellResult
from onnx_harness.results.codec import encode
from onnx_harness.results.history_rows import Measured
from onnx_harness.results.run import RunInfo
from onnx_harness.results.store import Results, ResultsWriter
from onnx_harness.results.union import unite_verdicts
from onnx_harness.results.verdicts import VerdictFiles, run_list
from onnx_harness.run.jobs import Jobs
from onnx_harness.run.runner import Runner
from onnx_harness.run.schedule import grouped, shards
from onnx_harness.settings import Settings
from tests.hostile_kinds import kinds
from tests.models import linear, save
from tests.performance import scale_runs
from tests.performance.big_models import rows as big_models
from tests.performance.scale_runs import beside_others, kills, lost_processes, lost_workers
from tests.unit.results_examples import RUN, cell

Row = tuple[str, str, str]
VARIANTS = ("default", "passes")


def main() -> int:
    """Print the table; ``--only`` takes the beginnings of rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the cells and of the kills"
    )
    parser.add_argument(
        "--zoo",
        type=Path,
        help="models for --jobs 2 beside 1, such as models; ours are timed beside ONNX Runtime "
        "and polygraphy too",
    )
    parser.add_argument(
        "--cluster",
        type=int,
        metavar="N",
        help="workers of Dask to lose, half a minute each, such as 50",
    )
    parser.add_argument(
        "--big",
        type=float,
        metavar="GB",
        help="peak memory of what is done with a model of that size, such as 2.5 or 8",
    )
    parser.add_argument(
        "--only",
        nargs="*",
        default=[],
        metavar="ROW",
        help="rows whose function begins like this",
    )
    args = parser.parse_args()
    count = 1000 if args.quick else 10_000
    rows: list[Callable[[], Iterator[Row]]] = [
        lambda: hostile_files(),
        lambda: judged_hostile_files(10 if args.quick else 1),
        lambda: sleeping_cells(),
        lambda: shards_of(count),
        lambda: merged(count),
        lambda: collected_and_resumed(count),
        lambda: scale_runs.nights(count),
        lambda: kills(20 if args.quick else 200, 2 if args.quick else 20),
        lambda: lost_workers(10 if args.quick else 50),
    ]
    names = ["hostile", "judged", "sleeping", "shards", "merged", "resumed"]
    names += ["nights", "kills", "lost"]
    if args.cluster is not None:
        rows.append(lambda: lost_processes(args.cluster))
        names.append("cluster")
    if args.zoo is not None:
        rows += [lambda: jobs_beside_one(args.zoo), beside_others]
        names += ["jobs", "beside"]
    if args.big is not None:
        rows.append(lambda: big_models(args.big))
        names.append("big")
    print(f"{'what':58} {'measured':>34}   to reach")
    for name, row in zip(names, rows, strict=True):
        if args.only and not name.startswith(tuple(args.only)):
            continue
        for what, measured, wanted in row():
            print(f"{what:58} {measured:>34}   {wanted}", flush=True)
    return 0


def hostile_files() -> Iterator[Row]:
    """How long the scan takes for each kind of hostile file."""
    slowest, refused, count = (0.0, ""), 0, 0
    for kind, write in kinds():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "models", "m.onnx")
            path.parent.mkdir()
            write(path)
            started = time.perf_counter()
            try:
                check_bounds(path, 1 << 30)
            except ModelError:
                refused += 1
            slowest = max(slowest, (time.perf_counter() - started, kind))
            count += 1
    yield (
        f"hostile files: {count} kinds, scanned",
        f"{slowest[0] * 1000:.0f} ms ({slowest[1][:20]})",
        "5 s",
    )
    yield "  refused by their bytes", f"{refused}", ""


def judged_hostile_files(every: int) -> Iterator[Row]:
    """The verdicts on hostile files, by the worker.

    Args:
        every: so many kinds are passed over for one that is judged.
    """
    slowest, peak, unclear, count = 0.0, 0, 0, 0
    results: list[CellResult] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ONNX_HARNESS_CACHE"] = f"{folder}/cache"
        settings = Settings(input_sets=1, cell_timeout=60, cell_memory=1 << 30)
        runner = Runner(settings, readable=[Path(folder)])
        runner.warm()
        for number, (_, write) in enumerate(list(kinds())[::every]):
            path = Path(folder, f"models{number}", f"m{number}.onnx")
            path.parent.mkdir()
            write(path)
            started = time.perf_counter()
            result = runner.judge(Cell(card_for(path), parse_variant("original"), "cpu"))
            slowest = max(slowest, time.perf_counter() - started)
            peak = max(peak, result.peak_bytes or 0)
            unclear += "the harness itself failed" in (result.reason or "")
            results.append(result)
            count += 1
        runner.close()
        leaks, escapes = shown_of_hostile(results, Path(folder, "reports"))
    measured = f"{slowest:.1f} s, {peak / 2**20:.0f} MB, {unclear} unclear"
    yield f"hostile files: {count} kinds, judged", measured, "5 s, 1 GB, all clear"
    shown = f"{leaks} read outside, {escapes} escapes"
    yield "  in the verdicts, the table and the reports", shown, "0, 0"


def shown_of_hostile(results: Sequence[CellResult], folder: Path) -> tuple[int, int]:
    """Count verdicts with a line of /etc/passwd, and outputs with a character that steers."""
    folder.mkdir()
    outputs = [line.text for line in lines(RUN, results, width=120, models={})]
    write_reports(folder, RUN, results, {}, NOTHING)
    outputs += [file.read_text("utf-8") for file in folder.iterdir() if file.is_file()]
    leaks = sum("root:" in repr(result) for result in results)
    escapes = sum(any(sign in text for sign in "\x1b\x07\x00\u202e") for text in outputs)
    return leaks, escapes


def sleeping_cells() -> Iterator[Row]:
    """Four processes on cells that only sleep."""

    class Sleeper:
        def __init__(self) -> None:
            self._ended = threading.Event()

        def judge(self, _cell: Cell) -> CellResult:
            self._ended.wait(0.1)
            return cell()

        def close(self) -> None:
            self._ended.set()

    cells = made_up_cells(20)
    started = time.monotonic()
    Jobs(grouped(cells, {}), 4, Sleeper).join()
    efficiency = len(cells) * 0.1 / 4 / (time.monotonic() - started)
    yield f"4 processes, {len(cells)} sleeping cells: efficiency", f"{efficiency:.2f}", "0.9"


def shards_of(count: int) -> Iterator[Row]:
    """How even eight shards are."""
    cells = made_up_cells(count // 5)
    past = {
        each.id: Measured(1 + (number * 7919 % 100) / 10, None)
        for number, each in enumerate(cells)
    }
    started = time.perf_counter()
    parts = shards(cells, past, 8)
    seconds = time.perf_counter() - started
    loads = [sum(past[each.id].seconds for each in part) for part in parts]
    spread = f"{max(loads) / min(loads) - 1:.1%} in {seconds:.2f} s"
    yield f"8 shards of {len(cells):,} cells: times apart", spread, "10%"


def merged(count: int) -> Iterator[Row]:
    """Results and verdicts of 100 shards, in two orders."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = []
        for shard in range(100):
            own = tuple(cell(model=f"m{number}") for number in range(shard, count, 100))
            run: RunInfo = replace(
                RUN, id=f"{RUN.id}{shard:03}", shards=(f"{shard + 1}/100 plan",)
            )
            left_by_run(folder / f"shard{shard}", run, own)
            parts.append((folder / f"shard{shard}", Results(run, own)))
        written = []
        seconds = 0.0
        for number, order in enumerate((parts, parts[::-1])):
            target = folder / f"merged{number}"
            started = time.perf_counter()
            whole = merge([results for _, results in order])
            writer = ResultsWriter(target, whole.run)
            writer.put_all(whole.cells)
            writer.finish()
            unite_verdicts(target, whole, [(place, part.run.id) for place, part in order])
            seconds = max(seconds, time.perf_counter() - started)
            files = [file for file in sorted(target.rglob("*")) if file.is_file()]
            written.append([(file.relative_to(target), file.read_bytes()) for file in files])
    same = "byte-identical" if written[0] == written[1] else "DIFFERENT"
    yield f"merge of 100 shards, {count:,} cells", f"{seconds:.1f} s, {same}", "5 s"


def left_by_run(folder: Path, run: RunInfo, cells: Sequence[CellResult]) -> None:
    """Write the files of a run's verdicts, without bringing each to the disk."""
    entries = []
    for one in cells:
        key = hashlib.sha256(one.id.encode()).hexdigest()
        document = {"schema": 1, "key": key, "timing": "", "cell": encode(one)}
        file = folder / "verdicts" / key[:2] / f"{key}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(document))
        entries.append((one, key))
    (folder / "runs").mkdir()
    (folder / "runs" / f"{run.id}.jsonl").write_text(run_list(run, entries))


def collected_and_resumed(count: int) -> Iterator[Row]:
    """Collection alone, and a run whose every verdict is there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        variants = expand_variants(VARIANTS, {})[:20]  # of a group there may be more one day
        settings = replace(Settings(), report_dir=folder / "reports")
        files = VerdictFiles(folder / "reports")
        for number in range(count // len(variants)):
            path = save(linear(), folder / "zoo" / f"m{number}.onnx")
            card = card_for(path)
            for variant in variants:
                judged = Cell(card, variant, "cpu")
                files.put(
                    cell(variant.id, model=card.name), content_key(judged, path, settings)
                )
        command = [
            sys.executable,
            "-m",
            "pytest",
            "zoo",
            "-q",
            "-p",
            "no:hypothesispytest",
            "-p",
            "no:cacheprovider",
        ]
        (folder / "pytest.ini").write_text("[pytest]\nonnx_model_paths = zoo\n")
        for variant in variants:
            command += ["--variant", variant.spelling]
        total = count // len(variants) * len(variants)
        chosen = [*command, "-k", "accuracy"]
        used = processor_seconds(folder, [*chosen, "--collect-only"])
        yield f"{total:,} cells: collected, of the processor", f"{used:.1f} s", "2 s"
        empty = processor_seconds(empty_tests(folder, total, len(variants)), EMPTY)
        yield "  pytest itself, as many tests that do nothing", f"{empty:.1f} s", ""
        before = processor_time()
        seconds, last = timed(folder, [*chosen, "--resume", "--report-dir", "reports"])
        used = processor_time() - before
        told = f"{seconds:.1f} s, {used:.1f} s of the processor"
        yield f"{total:,} cells: resumed, nothing to do", told, "5 s"
        empty = processor_seconds(folder, EMPTY[:-2] + EMPTY[-1:])
        told = f"{empty:.1f} s, {used / empty:.2f}x of it"
        yield "  pytest itself runs as many tests that do nothing", told, ""
        yield "  pytest said", last[:34], ""


EMPTY = [
    *(sys.executable, "-m", "pytest", "-q", "-p", "no:hypothesispytest"),
    *("-p", "no:cacheprovider", "-k", "accuracy", "--collect-only", "empty"),
]


def empty_tests(folder: Path, count: int, of_a_model: int) -> Path:
    """Write modules of tests that do nothing, named as those of models are."""
    (folder / "empty").mkdir()
    lines = ["import pytest"]
    for test in ("accuracy", "latency"):
        lines += [f"@pytest.mark.parametrize('cell', range({of_a_model}))"]
        lines += [f"def test_{test}(cell):", "    pass"]
    for number in range(count // of_a_model):
        (folder / "empty" / f"test_m{number}.py").write_text("\n".join(lines))
    # Compiled once: a model's module is no file that would be compiled.
    subprocess.run(
        [sys.executable, *EMPTY[1:]], cwd=folder, capture_output=True, check=False
    )
    return folder


def processor_seconds(folder: Path, command: list[str]) -> float:
    """The time of the processor that a command takes, which others' work hardly changes."""
    before = processor_time()
    subprocess.run(command, cwd=folder, capture_output=True, check=False)
    return processor_time() - before


def processor_time() -> float:
    """The seconds that processes begun here have taken of the processor, if they have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def jobs_beside_one(zoo: Path) -> Iterator[Row]:
    """The accuracy of the default matrix, in one process and in two.

    The large operators of one process use both cores as well: that bounds what two can gain.
    """
    seconds, cores = [], []
    for jobs in ("1", "2"):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["ONNX_HARNESS_CACHE"] = folder
            command = [
                sys.executable,
                "-m",
                "pytest",
                str(zoo),
                "--benchmark-skip",
                "-q",
                "--jobs",
                jobs,
            ]
            before = processor_time()
            seconds.append(
                timed(Path.cwd(), [*command, "--report-dir", f"{folder}/reports"])[0]
            )
            cores.append((processor_time() - before) / seconds[-1])
    yield (
        f"{zoo}: accuracy, --jobs 2 beside 1",
        f"{seconds[0] / seconds[1]:.2f}x ({seconds[0]:.0f} s)",
        "1.8x",
    )
    yield "  cores in use, on average", f"{cores[0]:.2f}, {cores[1]:.2f}", ""


def made_up_cells(models: int) -> list[Cell]:
    """Cells of models that aren't there."""
    variants = [
        parse_variant(word)
        for word in ("original", "optimize", "simplify", "fp16", "fp16.io32")
    ]
    cards = [
        Card(Path(f"m{number}.onnx"), f"m{number}", PathSource(Path("m.onnx")))
        for number in range(models)
    ]
    return [Cell(card, variant, "cpu") for card in cards for variant in variants]


def timed(folder: Path, command: list[str]) -> tuple[float, str]:
    """The seconds that a command takes, and the last line that it prints."""
    started = time.perf_counter()
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    lines = (ended.stdout + ended.stderr).strip().splitlines()
    return time.perf_counter() - started, lines[-1].strip("= ") if lines else ""


if __name__ == "__main__":
    sys.exit(main())
