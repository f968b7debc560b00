"""``onnx-harness selftest``: how far the verdicts can be trusted, measured."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from onnx_harness.cards import fetch
from onnx_harness.cards.card import Card
from onnx_harness.cli import DONE, NEGATIVE
from onnx_harness.cli.common import add_json
from onnx_harness.cli.show import console, error_console, indented, table, text, write_json
from onnx_harness.cli.zoo import default_folder, find_cards
from onnx_harness.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from onnx_harness.selftest.bench import Outcome
    from onnx_harness.selftest.table import Row

_QUICK_BYTES = 4_000_000
_MOST_WORDS = 20


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "rows", metavar="ROW", nargs="*", help="rows of the table (default: all); see below"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=20,
        metavar="N",
        help="seeds of the rows over seeds (default: 20)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="at most two seeds, the models of up to 4 MB, a part of the rest",
    )
    parser.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="so many steps of each row, as evenly over their kinds as can be (default: all)",
    )
    parser.add_argument(
        "--models",
        type=Path,
        nargs="+",
        default=[default_folder()],
        metavar="PATH",
        help="cards, folders",
    )
    parser.add_argument(
        "--defects",
        type=Path,
        default=Path("tests/data/defects"),
        metavar="DIR",
        help="their models",
    )
    parser.add_argument(
        "--autocast",
        type=Path,
        metavar="PYTHON",
        help="of an environment with nvidia-modelopt: mixed-beside compares its AutoCast as well",
    )
    parser.add_argument(
        "--log",
        type=Path,
        default=Path("reports/selftest.jsonl"),
        metavar="FILE",
        help="where an interrupted run goes on",
    )
    add_json(parser)
    parser.epilog = (
        "Rows: inputs, faults, defects, honest, fp16, half, quantized, mixed, mixed-beside,\n"
        "int8-beside, trees, vocabularies, causes, defect-causes, smallest, cause-cost,\n"
        "observer, slower (a quiet machine), cost. What was found stays in the log and isn't\n"
        "looked for again, until the code or a library changes. Exits with 1 when something\n"
        "isn't reached."
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure the rows and print the table."""
    from onnx_harness.selftest import autocast
    from onnx_harness.selftest.bench import Bench, own_cache
    from onnx_harness.selftest.log import Log
    from onnx_harness.selftest.rows import ROWS
    from onnx_harness.selftest.table import sampled

    chosen = args.rows or list(ROWS)
    for name in chosen:
        if name not in ROWS:
            raise UsageError(f"there is no row '{name}'. {did_you_mean(name, ROWS)}")
    if args.seeds < 1:
        raise UsageError(f"--seeds {args.seeds}: at least 1 is needed")
    if args.sample is not None and args.sample < 1:
        raise UsageError(f"--sample {args.sample}: at least 1 is needed")
    seeds = range(min(args.seeds, 2) if args.quick else args.seeds)
    if args.autocast is not None:
        autocast.check(args.autocast)
    bench = Bench(_models(args), seeds, args.defects, args.quick, args.autocast)
    log = Log(args.log)
    outcomes: dict[str, list[Outcome]] = {}
    with own_cache(), _progress(error_console()) as progress:
        try:
            for name in chosen:
                steps = sampled(list(ROWS[name].steps(bench)), args.sample)
                bar = progress.add_task(name, total=len(steps))
                outcomes[name] = []
                for step in steps:
                    outcome = log.get(name, step.key)
                    if outcome is None:
                        outcome = step.run()
                        log.put(name, step.key, outcome)
                    outcomes[name].append(outcome)
                    progress.advance(bar)
        finally:
            bench.close()
    rows = [ROWS[name] for name in chosen]
    reached = [row.reached(outcomes[row.name]) for row in rows]
    if args.json:
        records = []
        for row, good in zip(rows, reached, strict=True):
            records.append(_as_json(row, outcomes[row.name], good))
        write_json(records)
    else:
        _show(console(), rows, outcomes, reached)
    return DONE if all(reached) else NEGATIVE


def _models(args: argparse.Namespace) -> tuple[Card, ...]:
    from onnx_harness.selftest.bench import at_hand

    models = [at_hand(card, fetch.materialize(card)) for card in find_cards(args.models)]
    if args.quick:
        models = [
            card for card in models if fetch.materialize(card).stat().st_size <= _QUICK_BYTES
        ]
    return tuple(models)


def _as_json(row: Row, outcomes: Sequence[Outcome], good: bool) -> dict[str, object]:
    return {
        "row": row.name,
        "title": row.title,
        "goal": row.goal,
        "figure": row.figure(outcomes),
        "count": sum(outcome.count for outcome in outcomes),
        "bad": sum(outcome.bad for outcome in outcomes),
        "reached": good,
        "words": [word for outcome in outcomes for word in outcome.words],
    }


def _show(
    out: Console,
    rows: Sequence[Row],
    outcomes: dict[str, list[Outcome]],
    reached: Sequence[bool],
) -> None:
    for row in rows:
        words = []
        for outcome in outcomes[row.name]:
            for word in outcome.words:
                words.append(word)
        for word in words[:_MOST_WORDS]:
            out.print(text(f"{row.name}: {word}", "dim"), soft_wrap=True)
        if len(words) > _MOST_WORDS:
            out.print(
                text(f"{row.name}: and {len(words) - _MOST_WORDS} more, in the log", "dim")
            )
    cells = []
    for row, good in zip(rows, reached, strict=True):
        cells.append(
            (
                row.name,
                row.title,
                row.goal,
                text(row.figure(outcomes[row.name]), "green" if good else "bold red"),
            )
        )
    out.print()
    out.print(indented(table([("row", "whole"), "what", "to reach", "measured"], cells)))


@contextmanager
def _progress(out: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out) as progress:
        yield progress
