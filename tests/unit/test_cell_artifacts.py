"""What a variant's steps make of a model: made once for all that it depends on, and what is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest

import onnx_harness
from onnx_harness import transforms
from onnx_harness.cell import artifacts
from onnx_harness.cell.state import Artifact, Way
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.standard import Standard
from onnx_harness.model import saving
from onnx_harness.model.file import Model
from onnx_harness.model.unchanged import Unchanged
from onnx_harness.results.cache import Cache
from onnx_harness.results.cells import GraphChange
from onnx_harness.transforms import Transform
from tests.models import linear, model, save, with_external_data
from tests.unit.test_cell_parts import noting, task_of

GRAPH = GraphChange(2, 2, 300, 300, 0.0, {"MatMul": 1, "Add": 1}, {}, ("before",))


class Bench:
    """Applies chains of planted steps to a model, and notes what each is applied with."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = save(linear(), folder / "net.onnx")
        self.cache = Cache(folder / "cache")
        self.applied: list[tuple[str, Mapping[str, Any]]] = []
        self.versions = {"library": "1", "onnx": "1"}
        self.samples = [InputSet("sample", {"x": np.zeros((2, 4), np.float32)})]
        self.standard: Any = SimpleNamespace(
            provider="cpu",
            reference=SimpleNamespace(usual=(), sets=()),
            card=SimpleNamespace(tolerance={}),
            override=None,
            explained=True,
            level="all",
        )
        self._registry = cast("dict[str, Transform]", transforms.registry())
        self._patch = monkeypatch
        self.plant("one", options={"word": str}, requires=("library",))
        self.plant("two")
        self.plant("calibrated", calibrated=True)
        self.plant("chosen", chosen=True)
        monkeypatch.setattr(artifacts, "version", lambda name: self.versions[name])
        monkeypatch.setattr(artifacts, "calibration_sets", lambda *_: self.samples)
        monkeypatch.setattr(artifacts, "standard", lambda *_: None)
        monkeypatch.setattr(artifacts, "judged_by", lambda *_: self.standard)
        monkeypatch.setattr(artifacts, "chooser", lambda *words: words)

    def plant(self, name: str, **more: Any) -> None:
        def apply(made: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
            self.applied.append((name, options))
            transforms.remark(f"a remark of {name}")
            transforms.detail(f"{name} was applied")
            node = made.graph.node.add(op_type="Identity")
            node.input.append(made.graph.output[0].name)
            node.output.append(f"{name}{len(made.graph.node)}")
            return made

        self._patch.setitem(self._registry, name, Transform(name, apply, {name: {}}, **more))

    def make(self, chain: str, **task: Any) -> tuple[Artifact, Way]:
        way = Way(replace(task_of(self.path, chain), **task))
        way.found = replace(way.found, graph=GRAPH)
        way.notes.append("before")
        sets = (InputSet("set", {"x": np.ones((1, 4), np.float32)}),)
        reference = Reference(sets, ({},), frozenset())
        subject: Any = SimpleNamespace(model=Model(self.path, "net"), reference=reference)
        return artifacts.transformed(way, subject, self.cache), way

    def steps(self, chain: str, **task: Any) -> list[str]:
        """The steps that have to be applied for a chain, what is kept aside."""
        self.applied.clear()
        self.make(chain, **task)
        return [name for name, _ in self.applied]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_what_nothing_changes_is_the_model_itself(bench: Bench) -> None:
    artifact, way = bench.make("ort.basic")
    assert (artifact.model.path, artifact.level) == (bench.path, "basic")
    assert (artifact.check, artifact.transformed) == (None, False)
    assert (way.found.graph, way.notes) == (GRAPH, ["before"])


def test_a_chain_is_made_step_by_step_and_described(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 2.0, 10.0, 13.0])
    checks = iter([None, "the checker's word"])
    monkeypatch.setattr(artifacts.time, "perf_counter", lambda: next(clock))  # type: ignore[attr-defined]
    monkeypatch.setattr(artifacts, "checker_says", lambda _: next(checks))
    for _ in range(2):  # and from the cache
        artifact, way = bench.make("one(word='w')+two+ort.extended")
        made = artifact.model
        assert (made.name, made.path.name) == ("net", "model.onnx")
        assert made.load().graph.node[-1].output[0] == "two4"
        assert (artifact.check, artifact.transformed) == ("the checker's word", True)
        assert artifact.level == "extended"
        assert way.notes == ["before", "a remark of one", "a remark of two"]
        assert way.found.graph == replace(
            GRAPH,
            nodes_after=4,
            bytes_after=made.size_bytes,
            transform_seconds=5.0,
            operators_after={"Identity": 2, "MatMul": 1, "Add": 1},
            changes=("before", "one was applied", "two was applied"),
        )
    assert bench.applied == [("one", {"word": "w"}), ("two", {})]
    assert made.path.parent.parent.parent.name == "transformed"


def test_variants_share_their_beginnings(bench: Bench) -> None:
    assert bench.steps("one") == ["one"]
    assert bench.steps("one+two") == ["two"]
    assert bench.steps("one+ort.basic") == []
    assert bench.steps("two") == ["two"]
    assert bench.steps("one(word='a')+two") == ["one", "two"]
    assert bench.steps("two+one+two") == ["one", "two"]


def test_what_a_step_makes_depends_on_what_is_installed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.steps("one") == ["one"]
    changes: list[Callable[[], object]] = [
        lambda: bench.versions.update(library="2"),
        lambda: bench.versions.update(onnx="2"),
        lambda: monkeypatch.setattr(onnx_harness, "__version__", "9"),
        lambda: monkeypatch.setattr(artifacts, "runtime_key", lambda: "another runtime"),
        lambda: monkeypatch.setattr(artifacts, "source_digest", lambda: "another source"),
        lambda: monkeypatch.setattr(artifacts, "_source_of", lambda _: "another file"),
        lambda: save(model("(float[n,4] x) => (float[n,4] y) { y = Neg(x) }"), bench.path),
    ]
    for change in changes:
        assert bench.steps("one") == []
        change()
        assert bench.steps("one") == ["one"]


def test_a_calibrated_step_depends_on_what_it_is_calibrated_on(bench: Bench) -> None:
    assert bench.steps("calibrated+two") == ["calibrated", "two"]
    [(_, options), _] = bench.applied
    assert options == {"samples": [bench.samples[0].values]}
    assert bench.steps("calibrated+two") == []
    assert bench.steps("one") == ["one"]
    bench.samples.append(InputSet("other", {"x": np.ones((1, 4), np.float32)}))
    assert bench.steps("calibrated+two") == ["calibrated", "two"]
    assert bench.steps("one") == []
    # One of the sets judges the cell as well.
    _, way = bench.make("calibrated")
    assert way.notes == [
        "before",
        "calibrated was calibrated on 1 of the 1 input sets that judge it",
        "a remark of calibrated",
    ]


def test_a_step_that_chooses_depends_on_what_its_choice_is_judged_by(bench: Bench) -> None:
    assert bench.steps("chosen") == ["chosen"]
    assert bench.applied == [("chosen", {"choose": (bench.standard, transforms.remark)})]
    assert bench.steps("chosen") == []
    bench.standard.override = (0.1, 0.2)
    assert bench.steps("chosen") == ["chosen"]
    assert bench.steps("one") == ["one"]
    bench.standard.override = None
    assert bench.steps("one") == []


def test_weights_outside_stay_outside_where_the_model_s_are(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[dict[str, Any]] = []
    saves = saving.save

    def spy(made: onnx.ModelProto, file: Path, **more: Any) -> bool:
        saved.append(more)
        return saves(made, file, **more)

    monkeypatch.setattr(saving, "save", spy)
    outside = with_external_data(tmp_path / "outside.onnx", "weights.bin")
    shared: list[Any] = []
    init = Unchanged.__init__

    def looked(self: Unchanged, source: Model, folder: Path) -> None:
        shared.append((source.path, folder))
        init(self, source, folder)

    monkeypatch.setattr(Unchanged, "__init__", looked)
    for path in (bench.path, outside):
        bench.path = path
        bench.make("two")
        before = Model(path)
        assert saved[-1].keys() == {"inline_bytes", "unchanged"}
        assert saved[-1]["inline_bytes"] == before.inline_bytes
        source, folder = shared[-1]
        assert source == path
        assert folder.name != path.parent.name
    assert saved[0]["inline_bytes"] != saved[1]["inline_bytes"]


def test_the_file_of_a_transform_is_that_of_the_function_inside() -> None:
    def function(made: onnx.ModelProto) -> onnx.ModelProto:
        return made

    @wraps(function)
    def wrapped(made: onnx.ModelProto) -> onnx.ModelProto:
        return made

    own = artifacts.hashlib.sha256(Path(__file__).read_bytes()).hexdigest()  # type: ignore[attr-defined]
    assert artifacts._source_of(function) == artifacts._source_of(wrapped) == own
    namespace: dict[str, Any] = {}
    exec(compile("def lost(): ...", "/nowhere/gone.py", "exec"), namespace)
    assert artifacts._source_of(namespace["lost"]) is None
    for nobodys in (len, partial(function)):
        assert artifacts._source_of(cast("Any", nobodys)) is None


def test_a_cell_is_judged_by_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    calibrated: list[Any] = []
    way = Way(replace(task_of(tmp_path / "net.onnx", "simplify"), explained=False))
    subject: Any = SimpleNamespace(model="model", reference="reference")
    cache: Any = "cache"
    fields: Any = dict.fromkeys(Standard.__dataclass_fields__)
    made: Any = Standard(**{**fields, "explained": True})
    monkeypatch.setattr(artifacts, "standard", noting(asked, made))
    monkeypatch.setattr(artifacts, "calibration_sets", noting(calibrated, ["a set"]))
    judged = artifacts.judged_by(way, subject, cache)
    task = way.task
    assert asked == [
        ("model", "reference", task.cell.card, way.bound, "cpu", task.settings, cache)
    ]
    assert judged == replace(made, explained=False, calibration=())
    assert calibrated == []
    quantizing = Way(
        replace(task_of(tmp_path / "net.onnx", "int8.static"), recorded=tmp_path)
    )
    judged = artifacts.judged_by(quantizing, subject, cache)
    assert judged == replace(made, explained=True, calibration=("a set",))
    task = quantizing.task
    assert calibrated == [("model", task.cell.card, task.settings, cache, tmp_path)]


def sets_of(*values: float) -> Sequence[InputSet]:
    return [InputSet("set", {"x": np.full((1, 4), value)}) for value in values]


@pytest.mark.parametrize(
    ("calibration", "judged", "shared"), [((1, 2, 3), (2, 3, 4, 5), 2), ((1,), (2,), 0)]
)
def test_what_a_step_was_calibrated_on_and_is_judged_on_is_counted(
    calibration: Sequence[float], judged: Sequence[float], shared: int
) -> None:
    step: Any = SimpleNamespace(name="int8.static")
    told = artifacts._judged_too(step, sets_of(*calibration), sets_of(*judged))
    words = f"int8.static was calibrated on {shared} of the {len(judged)} input sets that"
    assert told == ([f"{words} judge it"] if shared else [])
