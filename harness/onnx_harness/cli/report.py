"""``onnx-harness report``: rebuild, compare, merge, export and judge again what runs have left."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx_harness.cli import DONE, NEGATIVE
from onnx_harness.cli.node_data import kept_models, write_of_kept
from onnx_harness.cli.report_headers import headers_of
from onnx_harness.cli.report_parts import parts_that_began
from onnx_harness.cli.show import console, error_console, labelled, text
from onnx_harness.diagnose.repro import FOLDER
from onnx_harness.errors import HarnessError, ResultsError, UsageError, did_you_mean
from onnx_harness.report import changes, comparison, export, figures
from onnx_harness.report.merge import differences, merge
from onnx_harness.report.rejudge import Bounds, rejudge
from onnx_harness.report.shards import Part, shards_amiss, shards_of_one_plan
from onnx_harness.report.write import REPORT, SUMMARY, write_reports
from onnx_harness.results import history
from onnx_harness.results.files import cannot_write, replace_text
from onnx_harness.results.shard_plan import read_plan
from onnx_harness.results.store import Results, ResultsWriter, read_results
from onnx_harness.results.union import unite_verdicts
from onnx_harness.results.verdicts import VerdictFiles
from onnx_harness.run.background import background
from onnx_harness.settings.project import nearest_settings

MOST_NAMED = 20
"""Cells that are named on the terminal; the report has all of them."""


_EPILOG = (
    "One RUN: its report.html and summary.md are written anew. Two: they are compared, the "
    "first being\n"
    "the one before. Three or more, or any number with --merge: shards, merged into one "
    "results.json with\n"
    "its reports; of a cell that several have, the graver verdict stays.\n"
    "\n"
    "Without --output a report goes where its results.json lies; a run of the history, a "
    "comparison, a\n"
    "merger and a run that is judged again go to a folder of their own inside the report "
    "folder.\n"
    "The exit code says whether the report could be written, and is 1 where shards are\n"
    "missing or of several plans. It doesn't say what is in it."
)


@dataclass(frozen=True, slots=True)
class Source:
    """Results that were named.

    Attributes:
        name: as it was typed.
        folder: where their own report lies; None for a run of the history.
    """

    name: str
    results: Results
    folder: Path | None


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="*",
        help="a folder with results.json, such a file, or the beginning of a run's id in the "
        "history "
        "(default: the report folder)",
    )
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, help="where to write (see below)"
    )
    parser.add_argument(
        "--report-dir", metavar="DIR", type=Path, help="with the history (default: reports)"
    )
    parser.add_argument(
        "--merge",
        action="store_true",
        help="merge the runs, be it one or more, where two are otherwise compared",
    )
    parser.add_argument(
        "--csv", metavar="FILE", help="write the cells as CSV too; - is standard output"
    )
    parser.add_argument(
        "--parquet",
        metavar="FILE",
        type=Path,
        help="write the cells as Parquet too; needs pip install 'onnx-harness[parquet]'",
    )
    parser.add_argument(
        "--node-data",
        action="store_true",
        help="write the figures of each failing cell's nodes for Model Explorer too, next to the "
        "models that the run has kept of it",
    )
    judging = parser.add_argument_group("judging again, without running a model")
    judging.add_argument(
        "--rtol", type=float, metavar="R", help="relative tolerance, with --atol"
    )
    judging.add_argument(
        "--atol", type=float, metavar="A", help="absolute tolerance, with --rtol"
    )
    judging.add_argument(
        "--sqnr", type=float, metavar="DB", help="least signal to noise ratio instead"
    )
    parser.epilog = _EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the reports that were asked for."""
    bounds = _bounds(args)
    if args.parquet is not None:
        export.parquet_library()  # before anything is written
    reports = args.report_dir or nearest_settings({}).report_dir or Path("reports")
    if args.merge and not args.runs:
        raise UsageError(
            "--merge: name the folders of the parts, as in: report --merge DIR…"
        )
    names = args.runs or [str(reports)]
    begun = parts_that_began(names) if args.merge or len(names) > 1 else names
    merging = args.merge or len(names) > 2 or len(begun) < len(names)
    sources = [_source(name, reports) for name in begun]
    all_results = [source.results for source in sources]
    pair = len(sources) == 2
    merged = merging or (pair and shards_of_one_plan(all_results))
    if pair and not merged:
        return _compare(args, sources, bounds, reports)
    results = sources[0].results
    folder = sources[0].folder or reports / results.run.id
    amiss: list[str] = []
    if merged:
        results = _merged(all_results)
        folder = reports / "merged"
        amiss = list(shards_amiss([_part(source) for source in sources]))
    if bounds is not None:
        results = _rejudged(results, bounds)
        folder = reports / "rejudged"
    folder = args.output or folder
    if merged or bounds is not None:
        _refuse_overwriting(folder, sources)
        _write_results(folder, results)
    if merged and bounds is None:
        _unite(folder, results, sources)
        if not amiss:
            _write_history(folder, results)
    past = background(sources[0].folder or reports, results.run, results.cells)
    write_reports(_made(folder), results.run, results.cells, headers_of(results), past)
    _say(
        f"{figures.sentence(results.cells)} · {folder / REPORT} · {folder / SUMMARY}",
        args.csv,
    )
    _export(args, results)
    if args.node_data:
        _write_node_data(sources[0].folder or reports, results)
    for sentence in amiss:
        error_console().print(labelled("error: ", "red", sentence), soft_wrap=True)
    return NEGATIVE if amiss else DONE


def _part(source: Source) -> Part:
    plan = None if source.folder is None else read_plan(source.folder)
    return Part(source.name, source.results, plan)


def _unite(folder: Path, results: Results, sources: Sequence[Source]) -> None:
    """Put the verdicts of the merged folders into that of their merger."""
    parts = []
    for source in sources:
        if source.folder is not None:
            parts.append((source.folder, source.results.run.id))
    unite_verdicts(folder, results, parts)


def _write_node_data(reports: Path, results: Results) -> None:
    """Write the figures of the nodes of each failing cell whose models were kept."""
    failures = [cell for cell in results.cells if cell.status in figures.BAD]
    missing = 0
    for cell in failures:
        models = kept_models(reports, cell.id)
        if models is None:
            missing += 1
            continue
        try:
            write_of_kept(cell.id, *models)
        except HarnessError as error:
            error_console().print(labelled("note: ", "yellow", f"{error}"), soft_wrap=True)
    if missing:
        words = f"of {_many(missing, 'a failure')} no models were kept in {reports / FOLDER}"
        error_console().print(labelled("note: ", "yellow", words), soft_wrap=True)


def _export(args: argparse.Namespace, results: Results) -> None:
    """Write the tables of cells that were asked for."""
    if args.csv is not None:
        _write_csv(args.csv, results)
    if args.parquet is not None:
        try:
            export.write_parquet(results.cells, args.parquet)
        except OSError as error:
            raise cannot_write("The table", args.parquet, error, "--parquet") from error


def _bounds(args: argparse.Namespace) -> Bounds | None:
    for name in ("rtol", "atol", "sqnr"):
        value = getattr(args, name)
        if value is not None and not math.isfinite(value):
            raise UsageError(f"--{name} is a finite number; {value:g} isn't")
    elementwise = args.rtol is not None or args.atol is not None
    if not elementwise:
        return None if args.sqnr is None else Bounds(sqnr_db=args.sqnr)
    if args.sqnr is not None:
        raise UsageError(
            "--sqnr takes the place of --rtol and --atol: name one kind of bound"
        )
    if args.rtol is None or args.atol is None:
        raise UsageError("--rtol and --atol go together: name both")
    if args.rtol < 0 or args.atol < 0:
        raise UsageError(f"--rtol and --atol aren't negative: {args.rtol:g}, {args.atol:g}")
    return Bounds(args.rtol, args.atol)


def _source(name: str, reports: Path) -> Source:
    """Return the results that were named.

    Raises:
        ResultsError: the file can't be read, or the history can't.
        UsageError: there is no such folder, file or run.
    """
    path = Path(name)
    if path.exists():
        return Source(name, _read(path), path if path.is_dir() else path.parent)
    database = reports / history.FILE_NAME
    if not database.is_file():
        raise UsageError(
            f"there is no run to report: no folder or file {name}, and no history of runs in "
            f"{reports}. Mend: name a folder that has a results.json; pytest with --report-dir DIR "
            f"writes one"
        )
    with history.History(database) as past:
        runs = past.runs()
        matching = [run for run in runs if run.id.startswith(name)]
        if len(matching) != 1:
            ids = [run.id for run in matching or runs]
            raise UsageError(
                f"{'several runs begin' if matching else 'no run of the history begins'} with "
                f"'{name}'. "
                f"{did_you_mean(name, ids[-MOST_NAMED:])}"
            )
        results = Results(matching[0], past.cells(matching[0].id))
        return Source(name, results, None)


def _read(path: Path) -> Results:
    """Return a run's results.

    Those of a folder whose results.json is lost come from the files of its verdicts.

    Raises:
        ResultsError: they can't be read either way.
    """
    try:
        return read_results(path)
    except ResultsError as error:
        files = VerdictFiles(path)
        run_ids = files.runs() if path.is_dir() else []
        if not run_ids:
            raise
        run, cells = files.read_run(run_ids[-1])
        words = (
            f"{error} Made again from the files of its verdicts: run {run.id}, "
            f"{figures.counted(len(cells), 'cell')}"
        )
        error_console().print(labelled("note: ", "yellow", words), soft_wrap=True)
        results = Results(run, cells)
        _write_results(path, results)
        return results


def _merged(parts: Sequence[Results]) -> Results:
    for remark in differences(parts):
        error_console().print(labelled("note: ", "yellow", remark), soft_wrap=True)
    return merge(parts)


def _rejudged(results: Results, bounds: Bounds) -> Results:
    """Return the results by other bounds; what changes and what can't be judged again is told."""
    again = rejudge(results.cells, bounds)
    errors = error_console()
    errors.print(
        text(f"judged again by {bounds}: {_many(len(again.changed), 'another verdict')}"),
        soft_wrap=True,
    )
    status = {cell.id: cell.status for cell in again.cells}
    for changed in again.changed[:MOST_NAMED]:
        errors.print(text(f"  {changed}: {status[changed]} now"), soft_wrap=True)
    if again.undecided:
        why = (
            "can't be judged again, and is as it was"
            if len(again.undecided) == 1
            else "can't, and are as they were"
        )
        errors.print(
            labelled(
                "note: ", "yellow", f"{figures.counted(len(again.undecided), 'cell')} {why}:"
            )
        )
    for undecided, reason in list(again.undecided.items())[:MOST_NAMED]:
        errors.print(text(f"  {undecided}: {reason}"), soft_wrap=True)
    if len(again.undecided) > MOST_NAMED:
        errors.print(
            text(f"  and {len(again.undecided) - MOST_NAMED:,} more"), soft_wrap=True
        )
    return Results(results.run, again.cells)


def _many(number: int, what: str) -> str:
    return f"{figures.counted(number, 'cell')} with {what}"


def _compare(
    args: argparse.Namespace, sources: Sequence[Source], bounds: Bounds | None, reports: Path
) -> int:
    before, after = (source.results for source in sources)
    if not {cell.id for cell in before.cells} & {cell.id for cell in after.cells}:
        raise UsageError(
            "the two runs have no cell in common: --merge makes one run of shards"
        )
    if bounds is not None:
        before, after = (_rejudged(results, bounds) for results in (before, after))
    folder = _made(args.output or reports / "compared")
    _refuse_overwriting(folder, sources)
    for name, page in ((SUMMARY, comparison.summary), (REPORT, comparison.page)):
        _write(folder / name, page(before, after))
    sentence = changes.sentence(changes.changes(before, after))
    _say(f"{sentence} · {folder / REPORT} · {folder / SUMMARY}", args.csv)
    _export(args, after)
    return DONE


def _refuse_overwriting(folder: Path, sources: Sequence[Source]) -> None:
    for source in sources:
        if source.folder is not None and source.folder.resolve() == folder.resolve():
            raise UsageError(
                f"{folder} holds one of the runs, and would be overwritten: name another --output"
            )


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(
            f"{folder} can't be made: {error.strerror}. Name another --output."
        ) from error
    return folder


def _write_results(folder: Path, results: Results) -> None:
    writer = ResultsWriter(folder, results.run)
    try:
        writer.put_all(results.cells)
        writer.finish()
    finally:
        writer.close()


def _write_history(folder: Path, results: Results) -> None:
    """Enter a merged run into the history of its folder, which the gate decides by."""
    with history.History(folder / history.FILE_NAME) as past:
        past.adopt(results.run, results.cells)


def _write_csv(name: str, results: Results) -> None:
    if name == "-":
        sys.stdout.write(export.as_csv(results.cells))
        sys.stdout.flush()
    else:
        _write(Path(name), export.as_csv(results.cells))


def _write(path: Path, page: str) -> None:
    try:
        replace_text(path, page)
    except OSError as error:
        raise cannot_write(path.name, path, error, "--output") from error


def _say(line: str, csv: str | None) -> None:
    """Tell what was written, and not into a CSV."""
    out = error_console() if csv == "-" else console()
    out.print(text(line), soft_wrap=True)
