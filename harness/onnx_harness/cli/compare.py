"""``onnx-harness compare``: whether B still computes what A does."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from onnx_harness import providers
from onnx_harness.cell.comparison import Pair, PairOutcome, Side
from onnx_harness.cli import DONE, NEGATIVE, UNDONE
from onnx_harness.cli.common import (
    add_json,
    add_limits,
    add_model,
    add_settings,
    find_model,
    settings_of,
)
from onnx_harness.cli.show import (
    console,
    facts,
    figure,
    indented,
    labelled,
    size,
    table,
    text,
    write_json,
)
from onnx_harness.errors import UsageError
from onnx_harness.run.pair import compare_pair
from onnx_harness.transforms import Precision


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_model(parser, "a", "the model that is right: a .onnx file or a model card")
    add_model(parser, "b", "the model that should compute the same")
    inputs = parser.add_argument_group("inputs")
    inputs.add_argument(
        "--inputs", metavar="FILE.npz", type=Path, help="use these instead of generated ones"
    )
    add_settings(inputs, "input_sets", "seed")
    judging = parser.add_argument_group("judging")
    judging.add_argument(
        "--provider", metavar="NAME", default="cpu", help="where B runs (default: cpu)"
    )
    add_settings(judging, "rtol", "atol", "min_placement", "custom_ops")
    judging.add_argument(
        "--float16-io",
        action="store_true",
        help="B may take and give float16 where A has float32",
    )
    add_json(parser)
    add_limits(parser)
    parser.epilog = (
        "A runs on the CPU with graph optimizations disabled, B on the provider with ONNX "
        "Runtime's default ones,\n"
        "both in a worker process. A NAME.npz beside A is a recorded input set and is used first; "
        "A's card gives\n"
        "input ranges and tolerances. Without those the tolerance follows from B's arithmetic: "
        "rtol 1e-4 in float32,\n"
        "1e-2 when B holds float16 and A doesn't, a signal to noise ratio of 15 dB when B is "
        "quantized and A isn't.\n"
        f"\nIt exits with {NEGATIVE} when B departs from A, and with {UNDONE} when they can't be "
        f"compared: a file that "
        "can't be\nread, an A that doesn't run, a provider that can't be used."
    )
    parser.set_defaults(run=run, undone=UNDONE)


def run(args: argparse.Namespace) -> int:
    """Compare two models."""
    keys = ("input_sets", "seed", "rtol", "atol", "min_placement", "custom_ops")
    settings = settings_of(
        args, *keys, "cell_timeout", "cell_memory", "trust_models", "allow_read"
    )
    provider = providers.get(args.provider)
    if args.inputs is not None:
        if args.input_sets is not None or args.seed is not None:
            raise UsageError(
                "--inputs replaces generated inputs: --input-sets and --seed have no effect "
                "beside it"
            )
        if not args.inputs.is_file():
            raise UsageError(f"there is no file {args.inputs}")
    card, a = find_model(args.a)
    _, b = find_model(args.b)
    pair = Pair(a, b, card, provider.name, args.inputs, args.float16_io, settings)
    outcome = compare_pair(pair)
    if args.json:
        write_json(_as_json(outcome, pair))
    else:
        _show(console(), outcome, pair, args.a, args.b)
    return DONE if outcome.reason is None else NEGATIVE


def _as_json(outcome: PairOutcome, pair: Pair) -> dict[str, Any]:
    document = {
        "passed": outcome.reason is None,
        "provider": pair.provider,
        "seed": pair.settings.seed if pair.recorded is None else None,
    } | asdict(outcome)
    del document["lines"]  # the failures, once more
    document["a"] = document["a"] or {"path": pair.a}
    document["b"] = document["b"] or {"path": pair.b}
    return document


def _show(out: Console, outcome: PairOutcome, pair: Pair, a: Path, b: Path) -> None:
    out.print(
        facts(
            {
                "A": _told(a, outcome.a, "on cpu, graph optimizations disabled"),
                "B": _told(
                    b, outcome.b, f"on {pair.provider}, ONNX Runtime's default optimizations"
                ),
                "inputs": "\n".join(outcome.input_sets) or "none",
            }
        )
    )
    if outcome.accuracy is not None:
        out.print()
        out.print(indented(_table(outcome)))
    if outcome.precision is not Precision.FP32 and pair.settings.tolerance_override is None:
        what = {
            Precision.FP16: "float16",
            Precision.BF16: "bfloat16",
            Precision.INT8: "quantized",
        }[outcome.precision]
        out.print(
            text(f"note: judged as {what}, since B holds that and A doesn't", "yellow"),
            soft_wrap=True,
        )
    for change in outcome.interface:
        out.print(labelled("interface: ", "bold yellow", change), soft_wrap=True)
    for note in outcome.notes:
        out.print(text(f"note: {note}", "yellow"), soft_wrap=True)
    out.print()
    if outcome.reason is None:
        count = len(outcome.input_sets) - outcome.unusual_sets
        sets = f"{count} input set{'s' if count != 1 else ''}"
        sets += f" and {outcome.unusual_sets} unusual ones" if outcome.unusual_sets else ""
        out.print(
            text(f"B computes what A does, within the tolerance, on {sets}", "bold green"),
            soft_wrap=True,
        )
        return
    # The reason is the first failing output's, which the lines tell in full.
    why = _counted(outcome) if outcome.lines else outcome.reason
    out.print(labelled("B departs from A: ", "bold red", why), soft_wrap=True)
    for line in outcome.lines:
        out.print(text(f"  {line}"), soft_wrap=True)
    if outcome.a and outcome.b and outcome.a.sha256 == outcome.b.sha256:
        cause = "ONNX Runtime's optimizer" + (
            "" if pair.provider == "cpu" else f" or the provider {pair.provider}"
        )
        out.print(
            text(
                f"A and B are the same model: the difference is the work of {cause}", "dim"
            ),
            soft_wrap=True,
        )
    if not pair.float16_io and any(
        change.endswith("is tensor(float16)") for change in outcome.interface
    ):
        out.print(
            text("--float16-io allows float16 where A has float32", "dim"), soft_wrap=True
        )


def _counted(outcome: PairOutcome) -> str:
    failing = len({failure.output for failure in outcome.failures})
    return f"{failing} output{'s' if failing > 1 else ''} beyond the tolerance or not comparable"


def _told(path: Path, side: Side | None, how: str) -> str:
    if side is None:
        return f"{path}\n{how}"
    return f"{path} ({size(side.bytes)}, opset {side.opset or '?'})\n{how}"


def _table(outcome: PairOutcome) -> Any:
    assert outcome.accuracy is not None
    failing = {failure.output for failure in outcome.failures}
    rows = []
    for name, output in outcome.accuracy.outputs.items():
        fails = name in failing
        used = f"{figure(output.rtol)}, {figure(output.atol)}"
        needs = (
            "none"
            if output.minimum_tolerance is None and fails
            else figure(output.minimum_tolerance)
        )
        verdict = text("FAIL", "bold red") if fails else text("pass", "green")
        rows.append(
            [name, verdict, figure(output.max_abs), figure(output.sqnr_db), needs, used]
        )
    columns: list[str | tuple[str, str]] = [
        "output",
        ("", "whole"),
        ("max |B-A|", "right"),
        ("SQNR dB", "right"),
        ("needs rtol", "right"),
        ("rtol, atol used", "right"),
    ]
    return table(columns, rows)
