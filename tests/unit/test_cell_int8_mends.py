"""A mend of a quantization is judged as the cell is, on the same sets and on the same provider."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest

from onnx_harness import providers, transforms
from onnx_harness.cell import artifacts, int8_mends
from onnx_harness.cell.state import Way
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging.mixed.account import Effort, Mix
from onnx_harness.judging.reference import Reference
from onnx_harness.model.file import Model
from onnx_harness.names import parse_variant
from onnx_harness.providers.sessions import Purpose
from onnx_harness.transforms import Precision, Transform
from tests.models import linear, model, save
from tests.unit.test_cell_pairs import spied
from tests.unit.test_cell_parts import task_of

MIX = Mix(("a", "b"), 2, 9, None, True, True, 0, 1, 1, 1.0, kind="float")


class Planted:
    """Two steps that name the graph: the second one is calibrated and chooses nodes."""

    def __init__(self) -> None:
        self.samples: list[Any] = []

    def first(self, model: onnx.ModelProto) -> onnx.ModelProto:
        transforms.remark("it was told when the cell's own model was made")
        model.graph.name += " first"
        return model

    def second(
        self,
        model: onnx.ModelProto,
        samples: Sequence[Mapping[str, Any]],
        choose: Callable[..., object],
    ) -> onnx.ModelProto:
        self.samples.append(samples)
        model.graph.name += f" {choose('a conversion')}"
        return model


@pytest.mark.parametrize(
    ("passed", "mixes", "words"),
    [
        (True, [], ""),
        (True, [MIX], "keeps 2 of 9 nodes in float: 'a', 'b'"),
        (False, [MIX], None),
    ],
)
def test_a_mend_is_made_and_judged_as_the_cell_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    passed: bool,
    mixes: list[Mix],
    words: str | None,
) -> None:
    planted = Planted()
    registry = cast("dict[str, Transform]", transforms.registry())
    monkeypatch.setitem(registry, "one", Transform("one", planted.first, {"one": {}}))
    two = Transform(
        "two",
        planted.second,
        {"two": {}},
        precision=Precision.INT8,
        calibrated=True,
        chosen=True,
    )
    monkeypatch.setitem(registry, "two", two)
    task = replace(
        task_of(save(linear(), tmp_path / "net.onnx"), "int8.static"),
        recorded=tmp_path / "given.npz",
    )
    way = Way(task)
    sets = [InputSet("set", {"x": np.full((1, 4), place, np.float32)}) for place in (0, 1)]
    reference = Reference(tuple(sets), ({}, {}), frozenset())
    subject: Any = SimpleNamespace(model=Model(task.model, "net"), reference=reference)
    asked: dict[str, list[Any]] = {}

    def stand_in(place: Any, name: str, answer: Callable[..., object]) -> None:
        def answers(*given: object, **more: object) -> object:
            asked.setdefault(name, []).append((given, more))
            return answer(*given, **more)

        monkeypatch.setattr(place, name, answers)

    def chooses(
        _: object, say: Callable[[str], None], chosen: list[Mix], *__: object
    ) -> Any:
        say("nothing is told of it")
        chosen += mixes
        return lambda conversion: f"second of {conversion}"

    samples = [InputSet("s", {"x": np.zeros(place)}) for place in (3, 5)]
    stand_in(artifacts, "judged_by", lambda *_: "the standard")
    stand_in(int8_mends, "calibration_sets", lambda *_: samples)
    stand_in(int8_mends, "chooser", chooses)
    stand_in(int8_mends, "session_config", lambda *_: {"a": "configuration"})
    stand_in(int8_mends, "open_session", lambda *_, **__: "session")
    stand_in(int8_mends, "feeds_for", lambda session, values: ("fed", session, values))
    stand_in(int8_mends, "run", lambda session, values: ("ran", session, values))
    stand_in(int8_mends, "judge_outputs", lambda *_, **__: SimpleNamespace(passed=passed))
    variant = parse_variant("one+two+ort.basic")
    cache: Any = "the cache"

    folders = spied(monkeypatch, tempfile, "TemporaryDirectory")
    with transforms.remarks() as told:
        assert int8_mends._passes(way, subject, cache, variant) == words

    assert told == []
    [((trial, *rest), _)] = asked["judged_by"]
    assert rest == [subject, cache]
    assert trial.task == replace(task, cell=replace(task.cell, variant=variant))
    card, settings = task.cell.card, task.settings
    assert asked["calibration_sets"] == [
        ((subject.model, card, settings, cache, task.recorded), {})
    ]
    [((standard, _, _, effort), _)] = asked["chooser"]
    assert (standard, effort) == ("the standard", Effort(20.0, known_to_fail=True))
    [given] = planted.samples
    assert [values["x"].size for values in given] == [3, 5]
    [((file, provider), options)] = asked["open_session"]
    assert provider is providers.get("cpu")
    assert not file.parent.exists()  # any more
    # On Windows a file that is still mapped can't be removed: that costs no verdict.
    assert [more["ignore_cleanup_errors"] for _, more in folders] == [True]
    [((judged, outputs, candidate), judging)] = asked["judge_outputs"]
    assert (judged, judging) == ("the standard", {"emulated": False})
    assert (candidate.path, candidate.name) == (file, "net")
    assert [(word, session) for word, session, _ in outputs] == [("ran", "session")] * 2
    assert [fed for _, _, fed in outputs] == [
        ("fed", "session", input_set.values) for input_set in sets
    ]
    [((model, bound, skeleton), _)] = asked["session_config"]
    assert (model, bound.variant) == (subject.model, variant)
    assert skeleton is candidate.skeleton
    assert skeleton.graph.name == "small first second of a conversion"
    assert options == {
        "purpose": Purpose.ACCURACY,
        "level": "basic",
        "config": {"a": "configuration"},
    }


def chain_of(
    tmp_path: Path, products: int, variant: str, timeout: float = 80
) -> tuple[Way, Any]:
    nodes = [f"h{place + 1} = MatMul(h{place}, w)" for place in range(products)]
    text = f"{{ h0 = Neg(x)  {'  '.join(nodes)}  y = Relu(h{products}) }}"
    made = model(f"(float[n,4] x, float[4,4] w) => (float[n,4] y) {text}")
    task = task_of(save(made, tmp_path / "net.onnx"), variant)
    task = replace(task, settings=replace(task.settings, cell_timeout=timeout))
    return Way(task), SimpleNamespace(model=Model(task.model))


def test_no_more_than_twelve_nodes_are_left_out_one_by_one(tmp_path: Path) -> None:
    for products, count in ((12, 12), (14, 12)):
        way, subject = chain_of(tmp_path, products, "int8.dynamic")
        nodes = [each.node for each in int8_mends._candidates(way, subject)]
        assert nodes == ["", "", *(f"h{place + 1}" for place in range(count))]
    # of those that are left out already none is tried again
    listed = "int8.dynamic(nodes_to_exclude=['h1', 'h12'])"
    way, subject = chain_of(tmp_path, 14, listed)
    nodes = [each.node for each in int8_mends._candidates(way, subject) if each.node]
    assert nodes == [f"h{place}" for place in range(2, 12)]


@pytest.mark.parametrize(
    ("timeout", "clock", "tried"),
    [
        (80, [0, 20.0, 20.0, 20.0, 20.1], 3),
        (80, [0, 20.1], 0),
        (40, [0, 20.0, 20.1], 1),
        # A quarter of the cell's time, but no longer than twenty seconds for the nodes.
        (160, [0, 40.0, 40.0, 20.1], 2),
        (160, [0, 40.1], 0),
    ],
)
def test_no_mend_is_begun_after_its_time(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    timeout: float,
    clock: list[float],
    tried: int,
) -> None:
    way, subject = chain_of(tmp_path, 3, "int8.dynamic", timeout)
    asked: list[str] = []
    seconds = iter([100 + second for second in clock])
    monkeypatch.setattr(int8_mends.time, "monotonic", lambda: next(seconds))  # type: ignore[attr-defined]
    monkeypatch.setattr(
        int8_mends, "_passes", lambda *words: asked.append(words[3].spelling)
    )
    cache: Any = None
    found, words = int8_mends.int8_mend_of(way, subject, cache)
    assert (found, len(asked), words == "") == (None, tried, tried == 0)
    assert next(seconds, None) is None


def test_a_model_of_the_most_bytes_is_not_too_large(tmp_path: Path) -> None:
    way, _ = chain_of(tmp_path, 1, "simplify")
    cache: Any = None
    for more, words in (
        (0, ""),
        (1, "No mend is offered: the model is too large to try one"),
    ):
        size = int8_mends._MOST_BYTES + more
        subject: Any = SimpleNamespace(model=SimpleNamespace(size_bytes=size))
        assert int8_mends.int8_mend_of(way, subject, cache) == (None, words)


@pytest.mark.parametrize(
    ("tried", "reason", "words"),
    [
        ("", "unused", ""),
        ("ab", "", "none of a, b passes"),
        ("a", "no kernel", "none of a passes (no kernel)"),
        ("aN", "", "none of a passes, nor what leaves out one node (1 tried)"),
        ("abNN", "why", "none of a, b passes, nor what leaves out one node (2 tried) (why)"),
    ],
)
def test_what_was_tried_in_vain_is_listed(tried: str, reason: str, words: str) -> None:
    candidates = [
        int8_mends._Candidate(parse_variant(name.lower()), node="n" if name == "N" else "")
        for name in tried
    ]
    told = int8_mends._not_found(candidates, reason)
    assert told == (words and f"No mend was found: {words}")
