"""What the accuracy stage of the default run costs beside another checkout of this repository, in
one paired run.

    python tests/performance/accuracy_cost.py OTHER/harness [NAME…]

Models are taken in turn, each by both checkouts, from cold caches: A, B, B, A. Processor seconds
are counted, of the worker too, since a busy machine doesn't make them more. The names are of cards
in models/; by default the 20 models that the zoo had before it grew to 46.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
FIRST_20 = (
    "bn_cnn",
    "densenet121",
    "external_data",
    "livekit_embedding",
    "livekit_melspectrogram",
    "loop",
    "magika",
    "minilm_int8",
    "ppocr_v2_cls",
    "ppocr_v4_det",
    "ppocr_v4_rec",
    "random_forest",
    "resnet50",
    "shufflenet",
    "silero_vad",
    "silero_vad_16k_op15",
    "silero_vad_op18_ifless",
    "squeezenet",
    "swift_f0",
    "transformer_block",
)
VARIANTS = (
    "original",
    "optimize",
    "simplify",
    "simplify+optimize",
    "fp16.io32",
    "simplify+fp16.io32",
)
# Runs in a process of each checkout: both have these names.
CODE = """
import json, os, sys
from pathlib import Path
from onnx_harness.cards.card import PathSource
from onnx_harness.cards.fetch import materialize
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.names import parse_variant
from onnx_harness.run.runner import Runner
from onnx_harness.settings import Settings
from dataclasses import replace

card, cold, *variants = sys.argv[1:]
card = card_for(Path(card))
card = replace(card, source=PathSource(materialize(card)))
os.environ["ONNX_HARNESS_CACHE"] = cold
try:  # else the worker is started again when it's told of the model's folder
    runner = Runner(Settings(), readable=[card.path, card.source.path])
except TypeError:  # a checkout whose worker may read all that its user may
    runner = Runner(Settings())
runner.warm()
before = os.times()
results = {name: str(runner.judge(Cell(card, parse_variant(name), "cpu")).status) for name in variants}
runner.close()
after = os.times()
print(json.dumps([sum(after[:4]) - sum(before[:4]), results]))
"""


def seconds(source: Path, name: str) -> tuple[float, dict[str, str]]:
    """Return the processor seconds of a model's default variants by one checkout, and the verdicts."""
    card = HERE / "models" / f"{name}.model.toml"
    with tempfile.TemporaryDirectory() as cold:
        run = subprocess.run(
            [sys.executable, "-c", CODE, str(card), cold, *VARIANTS],
            env={**os.environ, "PYTHONPATH": str(source)},
            capture_output=True,
            text=True,
            check=True,
        )
    spent, verdicts = json.loads(run.stdout.splitlines()[-1])
    return spent, verdicts


def main(other: Path, names: Sequence[str]) -> None:
    """Measure the models and print a line for each, then the sum."""
    total = {"here": 0.0, "there": 0.0}
    for name in names:
        spent = {"here": 0.0, "there": 0.0}
        for side in ("there", "here", "here", "there"):
            spent[side] += (
                seconds(HERE / "harness" if side == "here" else other, name)[0] / 2
            )
        for side, value in spent.items():
            total[side] += value
        ratio = spent["here"] / spent["there"]
        print(
            f"{name}: {spent['here']:.1f} s beside {spent['there']:.1f} s, {ratio:.2f}x",
            flush=True,
        )
    ratio = total["here"] / total["there"]
    print(
        f"{len(names)} models: {total['here']:.1f} s beside {total['there']:.1f} s, {ratio:.2f}x"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:] or FIRST_20)
