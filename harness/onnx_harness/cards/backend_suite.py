"""The operators' official test cases, from the installed onnx package: ``onnx.backend.test``.

Those of trained and exported graphs lie in the package as files. Those of single operators are
written by the package's own code, once per version, into the cache. Neither needs onnx in the
process that lists them.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from onnx_harness.cards.card import Card, PathSource
from onnx_harness.cards.suite_options import ALL as ALL
from onnx_harness.cards.suite_options import KINDS as KINDS
from onnx_harness.cards.suite_options import NAME as NAME
from onnx_harness.errors import FetchError, UsageError, did_you_mean
from onnx_harness.names import slug
from onnx_harness.results.cache import Cache
from onnx_harness.results.workbench import workbench

_WRITE_SECONDS = 600.0
_MODEL = "model.onnx"

# Runs in a process of its own: the package's code imports everything, and warns of what it does
# with numpy.
_WRITE_CASES = """
import pathlib, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

def message(value, info):
    if isinstance(value, TensorProto):
        return value
    kind = info.type.WhichOneof("value")
    if kind == "sequence_type":
        return numpy_helper.from_list(value, info.name)
    if kind == "optional_type":
        return numpy_helper.from_optional(value, info.name)
    if kind == "map_type":
        return numpy_helper.from_dict(value, info.name)
    return numpy_helper.from_array(np.asarray(value), info.name)

for case in load_model_tests(kind="node"):
    folder = pathlib.Path(sys.argv[1]) / case.name
    for number, (inputs, outputs) in enumerate(case.data_sets):
        data = folder / f"test_data_set_{number}"
        data.mkdir(parents=True)
        for what, values, infos in (
            ("input", inputs, case.model.graph.input), ("output", outputs, case.model.graph.output)
        ):
            for index, (value, info) in enumerate(zip(values, infos)):
                (data / f"{what}_{index}.pb").write_bytes(message(value, info).SerializeToString())
    (folder / "model.onnx").write_bytes(case.model.SerializeToString())
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """The request: a kind of cases, or one case of it."""

    kind: str
    case: str | None = None


def choose(words: Iterable[str]) -> tuple[Selection, ...]:
    """Read ``node``, ``all``, ``simple,node`` or ``node/test_abs``.

    Ids call the last ``node.test_abs``.

    Raises:
        UsageError: there is no such kind.
    """
    chosen: dict[Selection, None] = {}
    spellings = []
    for text in words:
        for part in text.split(","):
            spellings.append(part.strip())
    for word in spellings:
        kind, slash, case = (word if "/" in word else word.replace(".", "/", 1)).partition(
            "/"
        )
        kind = next((name for name in KINDS if slug(name) == kind), kind)
        if kind not in (*KINDS, ALL) or (slash and (kind == ALL or not case)):
            raise UsageError(
                f"there are no cases of the kind '{word}' in the suite of ONNX's operators. "
                f"{did_you_mean(kind, (*KINDS, ALL))} One case is written KIND/CASE, such as "
                f"node/test_abs; "
                "a path after the option needs it written as --onnx-backend-suite=KIND."
            )
        selections = []
        for name in KINDS if kind == ALL else (kind,):
            selections.append((Selection(name, case or None), None))
        chosen.update(selections)
    return tuple(chosen)


def cards(selections: Sequence[Selection]) -> list[Card]:
    """A card for each case that was asked for, kind by kind, in alphabetical order.

    Raises:
        UsageError: there's no such case, or onnx isn't installed.
        FetchError: the cases of single operators can't be written.
    """
    cards_by_path: dict[Path, Card] = {}
    for selection in selections:
        cases = _cases(selection.kind)
        chosen = []
        for case, (path, name) in cases.items():
            if selection.case in (None, case, name.partition(".")[2]):
                chosen.append((path, name))
        if not chosen:
            raise UsageError(
                f"there is no case '{selection.case}' of the kind '{selection.kind}'. "
                f"{did_you_mean(selection.case or '', cases)}"
            )
        for path, name in chosen:
            cards_by_path[path] = Card(
                path=path,
                name=name,
                source=PathSource(path),
                license="Apache-2.0",
                suite=NAME,
            )
    return list(cards_by_path.values())


def case_of(card: Card) -> str:
    """``node/test_abs``: what chooses the case of ``card``."""
    plain = card.name.partition(".")[0]
    return f"{next(kind for kind in KINDS if slug(kind) == plain)}/{card.path.parent.name}"


@cache
def _cases(kind: str) -> dict[str, tuple[Path, str]]:
    """Name of each case as its folder spells it -> its model, and the name that ids show."""
    folder = _folder(kind)
    paths = []
    for path in folder.iterdir():
        if (path / _MODEL).is_file():
            paths.append(path.name)
    names = sorted(paths)
    same: dict[str, list[str]] = {}
    for name in names:
        same.setdefault(slug(name), []).append(name)
    # Ids are lower case: where that makes one name of several, each carries its place in the
    # alphabet.
    ids = {}
    for plain, these in same.items():
        for place, name in enumerate(these):
            ids[name] = plain if len(these) == 1 else f"{plain}.{place}"
    return {name: (folder / name / _MODEL, f"{slug(kind)}.{ids[name]}") for name in names}


def _folder(kind: str) -> Path:
    spec = importlib.util.find_spec("onnx")
    if spec is None or spec.origin is None:
        raise UsageError(
            "onnx isn't installed, whose test cases were asked for. Mend: pip install onnx"
        )
    folder = Path(spec.origin).parent / "backend" / "test" / "data" / kind
    return folder if folder.is_dir() else _written(kind)


def _written(kind: str) -> Path:
    try:
        versions = [version("onnx"), version("numpy")]
    except PackageNotFoundError as error:
        raise UsageError(
            f"the suite of ONNX's operators needs {error.name}, which isn't installed"
        ) from None

    def write(folder: Path) -> None:
        try:
            ended = subprocess.run(
                [sys.executable, "-c", _WRITE_CASES, str(folder)],
                capture_output=True,
                text=True,
                timeout=_WRITE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise FetchError(
                f"writing the cases of onnx {versions[0]} didn't end in {_WRITE_SECONDS:g} s"
            ) from None
        if ended.returncode:
            said = ended.stderr.strip().splitlines() or ["it said nothing"]
            raise FetchError(f"the cases of onnx {versions[0]} can't be written: {said[-1]}")

    return workbench().cache.get_or_put(
        "backend_suite", Cache.key(kind, versions, _WRITE_CASES), write
    )
