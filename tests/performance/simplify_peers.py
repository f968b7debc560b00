"""``simplify`` compared with onnxsim, onnxslim and onnxscript by the nodes that they leave, on any
models: the zoo, the official operator cases of onnx, or paths.

``python -m tests.performance.simplify_peers zoo`` prints a row for each model on which a library
leaves fewer nodes than ``simplify`` and is right, and the totals of all. Only a library that leaves
fewer is judged, by the harness itself: it is right where the verdict passes and the file grew by no
more than ``simplify`` allows by default.
"""

from __future__ import annotations

import argparse
import json
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnx_harness.cards import fetch
from onnx_harness.cards.backend_suite import Selection, cards
from onnx_harness.cell.matrix import card_for
from onnx_harness.model.file import node_count
from onnx_harness.transforms.simplify import MAX_GROWTH_BYTES

MODELS = Path(__file__).parents[2] / "models"
OURS = "simplify"
PEERS = ("onnxsim", "onnxslim", "onnxscript")
COLUMNS = (OURS, *PEERS)
# A library that takes longer than this on one model counts as failing on it.
SECONDS = 120.0
WRONG, RIGHT, TOO_LARGE = range(3)


@dataclass(frozen=True, slots=True)
class Model:
    """One model to simplify.

    Attributes:
        name: what its row is called.
        path: its file.
        card: where its inputs are described; the file itself without a card.
    """

    name: str
    path: Path
    card: Path


def main() -> int:
    """Print the comparison; 1 where a right library leaves fewer nodes than ``simplify``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", metavar="zoo|operators|PATH")
    parser.add_argument("--all", action="store_true", help="a row for each model")
    parser.add_argument(
        "--least", type=int, default=2, metavar="N", help="leave out models of fewer nodes"
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return _work(args.models[0])
    behind, wrong, large = 0, Counter[str](), Counter[str]()
    fewer, more = Counter[str](), Counter[str]()
    count = 0
    print(f"{'nodes left':44}" + "".join(f"{name:>12}" for name in ("before", *COLUMNS)))
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(Path(folder))
        for model in _models(args.models):
            before = node_total(onnx.load(model.path, load_external_data=False))
            if before < args.least:
                continue
            count += 1
            nodes = {column: worker.nodes_left(model, column) for column in COLUMNS}
            ours = nodes[OURS]
            better = [peer for peer in PEERS if _is_fewer(nodes[peer], ours)]
            outcomes = {peer: worker.judge(model, peer) for peer in better}
            right = [peer for peer in better if outcomes[peer] == RIGHT]
            wrong.update(peer for peer in better if outcomes[peer] == WRONG)
            large.update(peer for peer in better if outcomes[peer] == TOO_LARGE)
            more.update(right)
            fewer.update(peer for peer in PEERS if _is_fewer(ours, nodes[peer]))
            behind += bool(right)
            if right or args.all:
                cells = (before, *nodes.values())
                row = "".join(f"{'fails' if cell is None else cell:>12}" for cell in cells)
                print(f"{model.name:44}{row}  {', '.join(right)}", flush=True)
        worker.close()
    for peer in PEERS:
        print(
            f"{peer}: more nodes than simplify on {fewer[peer]:,} of {count:,} models, fewer and "
            f"right on {more[peer]:,}, fewer and wrong on {wrong[peer]:,}, "
            f"fewer in a file that grew beyond the limit on {large[peer]:,}"
        )
    print(f"behind the best right library on {behind:,} of {count:,} models")
    return 1 if behind else 0


def node_total(model: onnx.ModelProto) -> int:
    """Return the nodes of a model: those of its graphs, and of its functions' bodies, once."""
    bodies = [onnx.GraphProto(node=function.node) for function in model.functions]
    return node_count(model.graph) + sum(map(node_count, bodies))


def _is_fewer(nodes: int | None, others: int | None) -> bool:
    return nodes is not None and (others is None or nodes < others)


def _models(words: Sequence[str]) -> Iterator[Model]:
    for word in words:
        if word == "zoo":
            for card in sorted(MODELS.glob("*.model.toml")):
                name = card.name.removesuffix(".model.toml")
                yield Model(name, fetch.materialize(card_for(card)), card)
        elif word == "operators":
            for case in cards([Selection("all")]):
                path = fetch.materialize(case)
                yield Model(case.name, path, path)
        else:
            place = Path(word)
            for path in sorted(place.rglob("*.onnx")) if place.is_dir() else [place]:
                yield Model(path.stem, path, path)


class Worker:
    """A process that simplifies, begun anew where a library ends it.

    Args:
        folder: where results are written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def nodes_left(self, model: Model, column: str) -> int | None:
        """Return the nodes that are left; None where the simplifier fails."""
        return self._ask({"do": column, "model": str(model.path)})

    def judge(self, model: Model, column: str) -> int:
        """Judge what ``column`` made of the model, which it was asked for before."""
        paths = {"model": str(model.card), "original": str(model.path)}
        return self._ask({"do": "judge", "column": column, **paths}) or WRONG

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _ask(self, question: Mapping[str, str]) -> int | None:
        if self._process is None:
            command = [sys.executable, "-m", __spec__.name, "--worker", str(self._folder)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answer = ""
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], SECONDS)
        if ready:
            answer = self._process.stdout.readline()
        if not answer:
            self.close()
            return None
        number: int | None = json.loads(answer)
        return number


def _work(folder: str) -> int:
    """Answer questions, one a line: how many nodes are left, or what a result is worth."""
    import os
    import warnings

    warnings.simplefilter("ignore")
    # Libraries print what they do: nothing but answers may reach the pipe.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = _answer(question, Path(folder))
        except Exception:  # whatever a library raises
            answer = None
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


def _answer(question: Mapping[str, str], folder: Path) -> int:
    do = question["do"]
    if do == "judge":
        from onnx_harness.api import verify

        candidate = folder / f"{question['column']}.onnx"
        growth = candidate.stat().st_size - onnx.load(question["original"]).ByteSize()
        if growth > MAX_GROWTH_BYTES:
            return TOO_LARGE
        return RIGHT if verify(question["model"], candidate=str(candidate)) else WRONG
    result = _simplifiers()[do](onnx.load(question["model"]))
    (folder / f"{do}.onnx").write_bytes(result.SerializeToString())
    return node_total(result)


def _simplifiers() -> Mapping[str, Callable[[onnx.ModelProto], onnx.ModelProto]]:
    from onnx_harness.transforms import peers
    from onnx_harness.transforms.simplify import simplify

    return {
        OURS: simplify,
        "onnxsim": peers.simplify_as_documented,
        "onnxslim": peers.slim_as_documented,
        "onnxscript": peers.optimize_by_script,
    }


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    if "--worker" not in sys.argv:
        print(f"{time.monotonic() - started:.0f} s")
    sys.exit(code)
