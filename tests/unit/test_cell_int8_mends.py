"""A mend of a quantization is judged as the cell is, on the same sets and on the same provider."""

from __future__ import annotations

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
from tests.models import linear, save
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
