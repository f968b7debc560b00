"""What a cell says of outputs: simulated ones, recorded ones, mends that are tried, decoding."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from onnx_harness.cell import artifacts, generation, int8_mends, outputs
from onnx_harness.cell.state import CellEnded, Way
from onnx_harness.errors import InputError, NotApplicable
from onnx_harness.inputs.values.sets import InputSet
from onnx_harness.judging.mends import quoted
from onnx_harness.judging.reference import Reference
from onnx_harness.judging.verdict import Verdict
from onnx_harness.model.file import Model
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import BF16_SIMULATED, Status, Symptom
from tests.models import model, save
from tests.unit.test_cell_parts import noting, task_of

LACKING: Any = SimpleNamespace(on=lambda provider: f"{provider} has no kernel")
SUBJECT: Any = SimpleNamespace(missed=None)
ARTIFACT: Any = SimpleNamespace(model="the model")
COMPARED: Any = SimpleNamespace(
    record="a record", failures=(SimpleNamespace(at=2),), only_values_or_shapes=False
)
BAD = Verdict(
    Status.FAIL, COMPARED, "output y departs", ("a line",), ("a note",), Symptom.WRONG_VALUES
)


@pytest.mark.parametrize(
    ("outcome", "reason", "detail"),
    [
        (Verdict(Status.PASS, COMPARED, notes=("a note",)), None, ()),
        (
            BAD,
            "bfloat16 as hardware computes it departs: output y departs",
            ("a line", "a mend"),
        ),
        (
            replace(BAD, reason=None, symptom=Symptom.CHANGED_TYPES),
            "bfloat16 as hardware computes it departs: the outputs differ",
            ("a line",),
        ),
        (
            replace(BAD, comparison=None),
            "bfloat16 as hardware computes it departs: output y departs",
            None,
        ),
    ],
)
def test_a_model_without_kernels_is_judged_as_bfloat16_would_compute_it(
    monkeypatch: pytest.MonkeyPatch,
    outcome: Verdict,
    reason: str | None,
    detail: tuple[str, ...] | None,
) -> None:
    way = Way(task_of(Path("net.onnx")))
    asked: list[Any] = []
    monkeypatch.setattr(artifacts, "judged_by", lambda *words: words)
    monkeypatch.setattr(outputs, "judge_simulated", noting(asked, outcome))
    monkeypatch.setattr(outputs, "tried_mend", noting(asked, "a mend"))
    given: tuple[Any, ...] = (way, SUBJECT, ARTIFACT, LACKING, "the cache")
    if reason is None:
        outputs.compare_simulated(*given)
    else:
        with pytest.raises(CellEnded) as ended:
            outputs.compare_simulated(*given)
        assert (ended.value.status, ended.value.reason) == (Status.FAIL, reason)
        assert ended.value.symptom is outcome.symptom
        if detail is not None:
            assert ended.value.detail == detail
        assert ended.value.failing == outcome.worst_sets
    standard = (way, SUBJECT, "the cache")
    assert asked[0] == (standard, "the model")
    assert asked[1:] in ([], [(standard, way.bound, "the model")])
    assert list(way.notes) == ["a note", f"{BF16_SIMULATED}: cpu has no kernel"]
    record: Any = None if outcome.comparison is None else "a record"
    assert (way.found.accuracy, way.found.accuracy_simulated) == (record, record)


def test_what_cannot_be_simulated_either_has_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(*_: object) -> Verdict:
        raise NotApplicable("it could not be simulated: why")

    monkeypatch.setattr(artifacts, "judged_by", lambda *words: words)
    monkeypatch.setattr(outputs, "judge_simulated", refuses)
    way = Way(task_of(Path("net.onnx")))
    plain = Way(replace(way.task, explained=False))
    for each, reason in (
        (way, "cpu has no kernel, and it could not be simulated: why"),
        (plain, "cpu has no kernel"),
    ):
        with pytest.raises(CellEnded) as ended:
            outputs.compare_simulated(each, SUBJECT, ARTIFACT, LACKING, None)  # type: ignore[arg-type]
        found = ended.value
        assert (found.status, found.reason) == (Status.NOT_APPLICABLE, reason)
        assert (found.symptom, each.found.accuracy) == (Symptom.NOT_RUN, None)


MISSED: Any = SimpleNamespace(
    reason=lambda: "y departs", lines=lambda: ["a line"], failures=(), only_values=True
)


@pytest.mark.parametrize(
    ("variant", "accepted", "only_values"),
    [
        ("original", "fail", True),
        ("original", "fail", False),
        ("original", "note", True),
        ("simplify", "fail", True),
    ],
)
def test_missed_recorded_outputs_fail_the_untouched_model_s_own_cell(
    variant: str, accepted: str, only_values: bool
) -> None:
    way = Way(task_of(Path("net.onnx"), variant, recorded_outputs=accepted))
    failures = (SimpleNamespace(at=3), SimpleNamespace(at=None))
    missed = SimpleNamespace(
        **{**vars(MISSED), "only_values": only_values, "failures": failures}
    )
    subject: Any = SimpleNamespace(missed=missed)
    words = "the untouched model misses the outputs recorded beside it: y departs"
    if variant != "original" or accepted == "note":
        outputs._judge_recorded(way, subject)
        assert list(way.notes) == [words]
        return
    with pytest.raises(CellEnded) as ended:
        outputs._judge_recorded(way, subject)
    found = ended.value
    assert (found.status, found.reason, found.failing) == (Status.FAIL, words, (3,))
    assert found.detail[0] == "a line"
    assert found.detail[1].endswith('[recorded] outputs = "note"')
    assert found.symptom is (Symptom.WRONG_VALUES if only_values else Symptom.CHANGED_TYPES)
    assert list(way.notes) == []


def test_a_model_that_cannot_be_decoded_is_told_with_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("no such id\nmore")

    monkeypatch.setattr(generation, "open_cpu", lambda path: path)
    monkeypatch.setattr(generation, "decode", fails)
    for place, words in (("card.toml", "card.toml: generate: "), ("", "generate: ")):
        spec: Any = SimpleNamespace(place=place, prompt=(), steps=1)
        with pytest.raises(InputError) as told:
            generation._decoded(SimpleNamespace(path=Path("a")), None, {}, spec)  # type: ignore[arg-type]
        assert str(told.value).startswith(
            f"{words}the untouched model can't be decoded: no such id. Mend: see that"
        )


# mends of a quantization


def way_of(tmp_path: Path, variant: str) -> tuple[Way, Any]:
    text = (
        "(float[n,4] x) => (float[n,4] y) "
        "{ a = MatMul(x, w) b = Relu(a) c = MatMul(b, w) y = Gemm(c, w) }"
    )
    made = model(text)
    made.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    for node, name in zip(made.graph.node, ("m", "r", "", "g"), strict=True):
        node.name = name
    path = save(made, tmp_path / "net.onnx")
    subject: Any = SimpleNamespace(model=Model(path))
    return Way(task_of(path, variant)), subject


SEVEN, CHANNELS = int8_mends._SWITCHES.values()


@pytest.mark.parametrize(
    ("variant", "candidates"),
    [
        (
            "int8.dynamic",
            [
                ("int8.dynamic(reduce_range=True)", SEVEN, ""),
                ("int8.dynamic(per_channel=True)", CHANNELS, ""),
                *(
                    (
                        f"int8.dynamic(nodes_to_exclude=['{name}'])",
                        f"passes: '{name}' stays float",
                        name,
                    )
                    for name in "mcg"
                ),
            ],
        ),
        (
            "int8.dynamic(per_channel=True, nodes_to_exclude=['m'])",
            [
                (
                    "int8.dynamic(nodes_to_exclude=['m'], per_channel=True, reduce_range=True)",
                    SEVEN,
                    "",
                ),
                ("int8.dynamic", "passes: with the options that it has by itself", ""),
                *(
                    (
                        f"int8.dynamic(nodes_to_exclude=['m', '{name}'], per_channel=True)",
                        f"passes: '{name}' stays float",
                        name,
                    )
                    for name in "cg"
                ),
            ],
        ),
        (
            "simplify+int8.static+ort.basic",
            [
                ("simplify+int8.static(reduce_range=True)+ort.basic", SEVEN, ""),
                ("simplify+int8.static(per_channel=True)+ort.basic", CHANNELS, ""),
                ("simplify+int8.mixed+ort.basic", "", ""),
            ],
        ),
        (
            "simplify+int8.dynamic",
            [
                ("simplify+int8.dynamic(reduce_range=True)", SEVEN, ""),
                ("simplify+int8.dynamic(per_channel=True)", CHANNELS, ""),
            ],
        ),
        ("simplify", []),
    ],
)
def test_the_cheapest_mends_are_tried_first(
    tmp_path: Path, variant: str, candidates: list[tuple[str, str, str]]
) -> None:
    way, subject = way_of(tmp_path, variant)
    told = [
        (candidate.variant.spelling, candidate.why, candidate.node)
        for candidate in int8_mends._candidates(way, subject)
    ]
    assert told == candidates


@pytest.mark.parametrize(
    ("answers", "seconds", "spelling", "line"),
    [
        ([None, ""], 0, 1, f"mend: `--variant {{}}` {CHANNELS}"),
        (["keeps 1 node in float"], 0, 0, "mend: `--variant {}` keeps 1 node in float"),
        ([ValueError("x"), None, ""], 0, 2, "mend: `--variant {}` passes: 'm' stays float"),
        (
            [None] * 5,
            0,
            None,
            "No mend was found: none of {0}, {1} passes, nor what leaves out one node (3 tried)",
        ),
        # no more than one where that took too long
        (
            [NotApplicable("not here")],
            99,
            None,
            "No mend was found: none of {0} passes (not here)",
        ),
    ],
)
def test_the_first_mend_that_passes_is_offered(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[Any],
    seconds: float,
    spelling: int | None,
    line: str,
) -> None:
    way, subject = way_of(tmp_path, "int8.dynamic")
    spellings = [each.variant.spelling for each in int8_mends._candidates(way, subject)]
    clock = iter([100.0, 100.0, *[100.0 + seconds] * 9])
    left = iter(answers)
    risked: list[str] = []

    def passes(*words: Any) -> Any:
        assert words[:3] == (way, subject, "the cache")
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(int8_mends, "_passes", passes)
    monkeypatch.setattr(int8_mends.time, "monotonic", lambda: next(clock))  # type: ignore[attr-defined]
    monkeypatch.setattr(
        int8_mends,
        "risking",
        lambda words: risked.append(words) or contextlib.nullcontext(),  # type: ignore[func-returns-value]
    )
    found, told = int8_mends.int8_mend_of(way, subject, "the cache")  # type: ignore[arg-type]
    assert found == (None if spelling is None else spellings[spelling])
    if found is not None:
        assert told == line.format(quoted(found))
    else:
        assert told == line.format(*spellings)
    assert next(left, "all asked") == "all asked"
    digest = subject.model.sha256[:16]
    assert risked == [f"mend {each} {digest}" for each in spellings[: len(answers)]]


def test_of_a_large_model_no_mend_is_tried(tmp_path: Path) -> None:
    way, subject = way_of(tmp_path, "int8.dynamic")
    for size, words in (
        (int8_mends._MOST_BYTES + 1, "No mend is offered: the model is too"),
    ):
        large: Any = SimpleNamespace(model=SimpleNamespace(size_bytes=size))
        assert int8_mends.tried_int8_mend(way, large, None).startswith(words)  # type: ignore[arg-type]
    other = Way(
        replace(way.task, cell=replace(way.task.cell, variant=parse_variant("simplify")))
    )
    assert int8_mends.int8_mend_of(other, subject, None) == (None, "")  # type: ignore[arg-type]


# generation


def test_what_counts_no_tokens_is_the_same_in_each_step() -> None:
    shapes: dict[str, tuple[Any, ...] | None] = {
        "ids": ("b", "n"),
        "past": ("b", "n"),
        "mask": ("b", "n"),
        "batch": ("b", 4),
        "fixed": (2, 4),
        "scalar": (),
        "unknown": None,
        "several": ("b", 4),
    }
    values: dict[str, Any] = {
        name: np.full((2, 4), place) for place, name in enumerate(shapes)
    }
    values["several"] = [values["batch"], values["fixed"]]
    values["undeclared"] = np.full((2, 4), 9)
    large = replace(InputSet("large", {}), large=True)
    reference = Reference((large, InputSet("set", values)), ({}, {}), frozenset())
    signature = SimpleNamespace(
        inputs=[SimpleNamespace(name=name, shape=shape) for name, shape in shapes.items()]
    )
    subject: Any = SimpleNamespace(
        reference=reference, model=SimpleNamespace(signature=signature)
    )
    decoder: Any = SimpleNamespace(
        ids=SimpleNamespace(name="ids"), cache={"past": "present"}, roles={"mask": None}
    )
    fixed = generation._fixed(subject, decoder)
    assert list(fixed) == ["batch", "fixed", "scalar", "unknown", "several", "undeclared"]
    assert fixed["batch"].shape == (1, 4)
    assert all(fixed[name] is values[name] for name in list(fixed)[1:])


@pytest.mark.parametrize(
    ("variant", "precision", "outcome", "detail"),
    [
        ("fp16", "emulated", BAD, ("a line", "a mend")),
        ("fp16", "mixed", BAD, ("a line", "a mend")),
        ("fp16", "float16", BAD, ("a line", "a mend")),
        ("bf16", None, BAD, ("a line", "a mend")),
        ("simplify", "emulated", BAD, ("a line", "a mend")),
        ("fp16", "emulated", replace(BAD, symptom=Symptom.VACUOUS), ("a line",)),
        ("int8.dynamic", "float32", BAD, ("a line", "an int8 mend")),
        ("int8.dynamic", "float32", replace(BAD, symptom=Symptom.VACUOUS), ("a line",)),
        ("simplify", "float32", replace(BAD, reason=None), ("a line",)),
        ("simplify", "float32", replace(BAD, status=Status.PASS), None),
    ],
)
def test_a_mend_is_tried_for_what_fails_by_its_values(
    monkeypatch: pytest.MonkeyPatch,
    variant: str,
    precision: str | None,
    outcome: Verdict,
    detail: tuple[str, ...] | None,
) -> None:
    way = Way(task_of(Path("net.onnx"), variant))
    placed: Any = None if precision is None else SimpleNamespace(precision=precision)
    way.found = replace(way.found, placement=placed)
    distances: list[Any] = [SimpleNamespace(record=f"record {place}") for place in range(2)]
    given = replace(outcome, emulated=distances[0], simulated=distances[1])
    asked: list[Any] = []
    judged: list[Any] = []
    monkeypatch.setattr(artifacts, "judged_by", lambda *words: words)

    def judges(*words: Any, **more: Any) -> Verdict:
        judged.append((words, more))
        return given

    monkeypatch.setattr(outputs, "judge_outputs", judges)
    monkeypatch.setattr(outputs, "wrong_repeat", noting(judged, None))
    monkeypatch.setattr(outputs, "tried_mend", noting(asked, "a mend"))
    monkeypatch.setattr(outputs, "tried_int8_mend", noting(asked, "an int8 mend"))
    runs: Any = SimpleNamespace(outputs="outputs", again="again", repeats="repeats")
    words: tuple[Any, ...] = (way, SUBJECT, ARTIFACT, runs, "the cache")
    if detail is None:
        outputs.compare(*words)
    else:
        with pytest.raises(CellEnded) as ended:
            outputs.compare(*words)
        found = ended.value
        assert (found.status, found.detail) == (Status.FAIL, detail)
        assert (found.reason, found.symptom) == (
            outcome.reason or "the outputs differ",
            outcome.symptom,
        )
        assert found.failing == outcome.worst_sets
    standard = (way, SUBJECT, "the cache")
    emulated = precision in ("emulated", "mixed")
    assert judged == [
        ((standard, "outputs", "the model"), {"emulated": emulated, "again": "again"}),
        (standard, "outputs", "repeats"),
    ]
    mends = {
        "a mend": (standard, way.bound, "the model"),
        "an int8 mend": (way, SUBJECT, "the cache"),
    }
    assert asked == ([mends[detail[1]]] if detail and len(detail) > 1 else [])
    kept: list[Any] = [
        way.found.accuracy,
        way.found.accuracy_emulated,
        way.found.accuracy_simulated,
    ]
    assert kept == ["a record", "record 0", "record 1"]
    assert list(way.notes) == ["a note"]


def test_a_second_run_that_differs_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    way = Way(task_of(Path("net.onnx"), "simplify"))
    wrong = replace(BAD, reason="the second run departs")
    monkeypatch.setattr(artifacts, "judged_by", lambda *words: words)
    right = replace(BAD, status=Status.PASS)
    monkeypatch.setattr(outputs, "judge_outputs", lambda *_, **__: right)
    monkeypatch.setattr(outputs, "wrong_repeat", lambda *_: wrong)
    runs: Any = SimpleNamespace(outputs=[], again=None, repeats=[])
    with pytest.raises(CellEnded, match="the second run departs"):
        outputs.compare(way, SUBJECT, ARTIFACT, runs, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", [None, "step 3 departs"])
def test_decoding_is_judged_with_the_reference_s_tokens(
    monkeypatch: pytest.MonkeyPatch, reason: str | None
) -> None:
    spec: Any = SimpleNamespace(prompt=(7,), steps=3, said=lambda: "spec")
    way = Way(task_of(Path("net.onnx"), generate=spec))
    way.found = replace(way.found, inputs_sha256="sets")
    way.notes.append("before")
    subject: Any = SimpleNamespace(
        model=SimpleNamespace(sha256="ab"), reference=SimpleNamespace(unstable=frozenset())
    )
    expected: Any = SimpleNamespace(tokens=np.array([4, 5, 6]))
    asked: dict[str, tuple[Any, ...]] = {}
    noted: list[str] = []
    outcome = SimpleNamespace(
        record="record", notes=("note",), reason=reason, detail=("line",)
    )

    def stand_in(name: str, answer: object) -> None:
        def answers(*words: object) -> object:
            asked[name] = words
            return answer

        monkeypatch.setattr(generation, name, answers)

    class Bench:
        def last(self, kind: str, key: object, make: Callable[[], object]) -> object:
            asked["last"] = (kind, key)
            assert make() is expected
            return expected

    class Noting(contextlib.nullcontext[None]):
        def __init__(self, words: str) -> None:
            super().__init__()
            noted.append(words)

    for name, answer in (
        ("_decoder", "decoder"),
        ("_fixed", "fixed"),
        ("_decoded", expected),
        ("decode", "got"),
        ("_noise", 0.5),
        ("judge_generation", outcome),
        ("workbench", Bench()),
    ):
        stand_in(name, answer)
    monkeypatch.setattr(generation, "noting", Noting)
    words: tuple[Any, ...] = (way, subject, lambda: "session", "standard")
    if reason is None:
        generation.judge_decoding(*words)
    else:
        with pytest.raises(CellEnded) as ended:
            generation.judge_decoding(*words)
        found = ended.value
        assert (found.status, found.reason, found.detail) == (Status.FAIL, reason, ("line",))
        assert found.symptom is Symptom.WRONG_VALUES
    assert noted == ["compare"]
    assert asked == {
        "_decoder": (subject.model, spec),
        "_fixed": (subject, "decoder"),
        "workbench": (),
        "last": ("generation", ("ab", "spec", "sets")),
        "_decoded": (subject.model, "decoder", "fixed", spec),
        "decode": ("session", "decoder", "fixed", (7,), 3, [4, 5, 6]),
        "_noise": (subject, "standard", "decoder", expected),
        "judge_generation": ("decoder", spec, expected, "got", 0.5),
    }
    record: Any = way.found.generation
    assert (record, list(way.notes)) == ("record", ["before", "note"])


def test_what_is_not_to_be_decoded_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "_decoder", lambda *_: pytest.fail("it was asked"))
    spec: Any = SimpleNamespace()
    steady: Any = SimpleNamespace(reference=SimpleNamespace(unstable=frozenset()))
    drawn: Any = SimpleNamespace(reference=SimpleNamespace(unstable=frozenset("y")))
    asked = task_of(Path("net.onnx"), generate=spec)
    for task, subject in (
        (task_of(Path("net.onnx")), steady),
        (replace(asked, explained=False), steady),
        (asked, drawn),
    ):
        generation.judge_decoding(Way(task), subject, None, None)  # type: ignore[arg-type]
    generation.check_generation(steady, None)
