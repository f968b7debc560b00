"""``int8.static`` with one scale for each weight and with one for each of its output channels.

``python -m tests.performance.int8_channels`` quantizes every model of the zoo both ways, on the
input sets that a cell is calibrated on, and prints the least ratio of signal to quantization noise
of its float outputs, over the input sets that a cell is judged on: what the default of
``per_channel`` is chosen by. Models that can't be quantized are counted.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnx_harness import transforms
from onnx_harness.cards import fetch
from onnx_harness.cards.card import Card
from onnx_harness.cell.matrix import card_for
from onnx_harness.errors import first_line
from onnx_harness.judging.mixed.quantized import sqnr_db
from onnx_harness.judging.reference import calibration_sets, reference
from onnx_harness.judging.runs import open_cpu
from onnx_harness.model.file import Model
from onnx_harness.names import parse_variant
from onnx_harness.providers.running import run
from onnx_harness.results.workbench import workbench
from onnx_harness.settings import Settings

MODELS = Path(__file__).parents[2] / "models"
STEPS = {
    "tensor": "int8.static",
    "channel": "int8.static(per_channel=True)",
}
# Below this, a difference is the calibration's own chance.
CLEAR_DB = 1.0
GOAL_DB = 15.0


def main() -> int:
    """Print a row for each model that can be quantized, and the totals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of models; all without")
    names = parser.parse_args().names
    warnings.simplefilter("ignore")
    print(f"{'least dB of a float output':36}" + "".join(f"{way:>10}" for way in STEPS))
    rows: list[Mapping[str, float]] = []
    skipped = 0
    for card in _cards(names):
        try:
            row = ratios(card)
        except Exception as error:  # whatever a library raises
            print(f"{card.name:36}  {first_line(error, 100)}", flush=True)
            skipped += 1
            continue
        rows.append(row)
        print(
            f"{card.name:36}" + "".join(f"{value:10.1f}" for value in row.values()),
            flush=True,
        )
    print(summary(rows, skipped))
    return 0


def ratios(card: Card) -> dict[str, float]:
    """Return the least ratio of a float output in dB, by what a scale is for.

    Raises:
        Exception: the model isn't quantized, or its outputs aren't floats.
    """
    settings, cache = Settings(), workbench().cache
    model = Model(fetch.materialize(card), card.name)
    answers = reference(model, card, settings, cache, unusual=False)
    samples = [each.values for each in calibration_sets(model, card, settings, cache)]
    found = {}
    for way, spelling in STEPS.items():
        step = transforms.bind(parse_variant(spelling).steps[0])
        with transforms.remarks():
            session = open_cpu(step(model.load(), samples), "all")
        worst = math.inf
        for place in answers.usual:
            expected = answers.outputs[place]
            outputs = run(session, answers.sets[place].values)
            worst = min(worst, *_ratios(expected, outputs))
        found[way] = worst
    if not all(map(math.isfinite, found.values())):
        raise ValueError(f"no float output is changed by it, or one isn't finite: {found}")
    return found


def _ratios(expected: Mapping[str, Any], outputs: Mapping[str, Any]) -> Iterator[float]:
    yield math.inf
    for name, value in expected.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.any():
            yield sqnr_db(value, outputs[name])


def summary(rows: Sequence[Mapping[str, float]], skipped: int) -> str:
    """Return the totals in a sentence."""
    gains = [row["channel"] - row["tensor"] for row in rows]
    better = sum(gain > CLEAR_DB for gain in gains)
    worse = sum(gain < -CLEAR_DB for gain in gains)
    reached = {way: sum(row[way] >= GOAL_DB for row in rows) for way in STEPS}
    return (
        f"a scale for each channel: more than {CLEAR_DB:g} dB better on {better}, worse on {worse} "
        f"of {len(rows)} models, by {np.median(gains) if gains else 0:.1f} dB in the median; "
        f"{GOAL_DB:g} dB are reached by {reached['tensor']} with one for each weight and by "
        f"{reached['channel']} with one for each channel; {skipped} aren't quantized"
    )


def _cards(names: Sequence[str]) -> Iterator[Card]:
    for path in sorted(MODELS.glob("*.model.toml")):
        if not names or path.name.removesuffix(".model.toml") in names:
            yield card_for(path)


if __name__ == "__main__":
    raise SystemExit(main())
