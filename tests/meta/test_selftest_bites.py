"""The experiment notices what it's there for: a defect not shown, inputs not invented, a false
alarm, a cost.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from onnx_harness.cards.card import KnownFailure
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cli import main
from onnx_harness.errors import WorkerCrashed
from onnx_harness.inputs.plan import search
from onnx_harness.isolate.notes import RISK
from onnx_harness.names import parse_variant
from onnx_harness.results.cells import AccuracyRecord, CellResult, Stage, Status
from onnx_harness.selftest import half_rows, quantized_rows, tree_rows, vocabulary_rows
from onnx_harness.selftest.bench import Bench, Outcome, falsely_failed, own_cache
from onnx_harness.selftest.forests import Shape, built, grown
from onnx_harness.selftest.half_cases import half_cases
from onnx_harness.selftest.log import Log
from onnx_harness.selftest.planted import Bench as Planted
from onnx_harness.selftest.rows import ROWS
from onnx_harness.selftest.table import Step, sampled
from onnx_harness.selftest.vocabularies import lookups
from tests.models import linear, model, save
from tests.unit.results_examples import output

CARD = '[source]\npath = "m.onnx"\n'


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    folder = tmp_path / "zoo"
    save(linear(), folder / "m.onnx")
    (folder / "m.model.toml").write_text(CARD, encoding="utf-8")
    return folder


def measured(
    folder: Path, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, list[dict[str, object]]]:
    """The exit code, and the rows as JSON."""
    common = ["--models", str(folder), "--log", str(folder / "log.jsonl"), "--json"]
    code = main(["selftest", *common, *words])
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return code, found


def test_a_sample_is_spread_over_the_kinds_and_the_same_in_every_run() -> None:
    steps = []
    for name in "abcdefgh":
        for kind in ("cast", "sign", "hang"):
            steps.append(Step(f"{name}, {kind}", lambda: Outcome(1, 0), kind))

    chosen = sampled(steps, 7)

    counts = Counter(step.kind for step in chosen)
    assert sorted(counts.values()) == [2, 2, 3]
    assert len({step.key[0] for step in chosen}) > 3  # and not the first models alone
    assert sampled(steps, 7) == chosen
    assert sampled(steps, None) == sampled(steps, 100) == steps


def test_a_sample_is_all_that_is_judged(
    zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, rows = measured(zoo, capsys, "honest", "--seeds", "2", "--sample", "1")
    assert rows[0]["count"] == 8  # half of what both seeds have
    assert main(["selftest", "honest", "--models", str(zoo), "--sample", "0"]) == 2


def test_a_good_model_reaches_every_row(
    zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, rows = measured(zoo, capsys, "inputs", "honest", "fp16", "--seeds", "2")
    assert code == 0
    assert [(row["count"], row["bad"]) for row in rows] == [(1, 0), (16, 0), (6, 0)]


@pytest.mark.parametrize(
    ("words", "count"), [([], 20), (["--quick"], 2), (["--quick", "--seeds", "1"], 1)]
)
def test_a_quick_look_takes_two_seeds_or_fewer(
    zoo: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    count: int,
) -> None:
    def steps(bench: Bench) -> Iterator[Step]:
        for seed in bench.seeds:
            yield Step(str(seed), lambda: Outcome(1, 0))

    monkeypatch.setitem(ROWS, "honest", replace(ROWS["honest"], steps=steps))
    code, rows = measured(zoo, capsys, "honest", *words)
    assert (code, rows[0]["count"]) == (0, count)


def test_inputs_that_cannot_be_invented_are_counted(
    zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = model(
        "(float[n,4] x) => (float[?] y) { s = Constant <value_ints = [7, 7, 7]> () y = Reshape(x, "
        "s) }"
    )
    save(refused, zoo / "m.onnx")
    code, rows = measured(zoo, capsys, "inputs")
    assert (code, rows[0]["bad"]) == (1, 1)
    assert "no inputs were found" in str(rows[0]["words"])


def test_a_defect_that_is_not_shown_is_counted(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(linear(), tmp_path / "defects" / "harmless.onnx")
    index = [{"name": "harmless", "variant": "ort.basic"}]
    (tmp_path / "defects" / "index.json").write_text(json.dumps(index), encoding="utf-8")
    code, rows = measured(zoo, capsys, "defects", "--defects", str(tmp_path / "defects"))
    assert (code, rows[0]["count"], rows[0]["bad"]) == (1, 1, 1)
    assert rows[0]["words"] == ["harmless: ort.basic: pass"]


def test_a_failure_of_an_honest_variant_is_false_unless_the_card_knows_it(zoo: Path) -> None:
    card = card_for(zoo / "m.model.toml")
    cell = Cell(card, parse_variant("simplify"), "cpu")
    failed = CellResult(
        "m-simplify-cpu", "m", "", "simplify", "cpu", Status.FAIL, Stage.COMPARE, "far off"
    )
    assert falsely_failed(cell, failed) == "m-simplify-cpu: fail at compare: far off"
    assert (
        falsely_failed(
            cell, CellResult("m", "m", "", "simplify", "cpu", Status.PASS, Stage.DONE)
        )
        is None
    )
    half = output(ideal_rel_l2=1e-3, faithful=True, usable=False)
    costly = replace(failed, accuracy=AccuracyRecord(1, {"y": half}))
    assert falsely_failed(cell, costly) is None
    unfaithful = AccuracyRecord(1, {"y": half, "z": replace(half, faithful=False)})
    assert falsely_failed(cell, replace(failed, accuracy=unfaithful)) is not None
    known = replace(card, known_failures=(KnownFailure("compare", "theirs", {"x": "1"}),))
    assert falsely_failed(replace(cell, card=known), failed) is None
    elsewhere = replace(
        card, known_failures=(KnownFailure("session", "theirs", {"x": "1"}),)
    )
    assert falsely_failed(replace(cell, card=elsewhere), failed) is not None


@pytest.mark.parametrize(
    ("row", "good", "short"),
    [
        (
            "defects",
            [Outcome(1, 0)] * 42 + [Outcome(1, 1)] * 2,
            [Outcome(1, 0)] * 41 + [Outcome(1, 1)] * 3,
        ),
        ("faults", [Outcome(100, 1)], [Outcome(100, 2)]),
        ("honest", [Outcome(8, 0)], [Outcome(8, 0), Outcome(8, 1)]),
        ("fp16", [Outcome(3, 0)], [Outcome(3, 1)]),
        ("inputs", [Outcome(1, 0)], [Outcome(1, 1)]),
        ("half", [Outcome(3, 0)], [Outcome(3, 1, (), {"false passes": 1})]),
        ("quantized", [Outcome(6, 0)], [Outcome(6, 1)]),
        (
            "cost",
            [Outcome(1, 0, (), {"with": 2.0, "without": 1.0})],
            [Outcome(1, 0, (), {"with": 2.1, "without": 1.0})],
        ),
    ],
)
def test_each_row_says_whether_it_is_reached(
    row: str, good: list[Outcome], short: list[Outcome]
) -> None:
    assert ROWS[row].reached(good)
    assert not ROWS[row].reached(short)
    assert ROWS[row].figure(good) != ROWS[row].figure(short)


def few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [case for case in half_cases() if case.name in ("centring_0", "centring_3000")]
    monkeypatch.setattr(half_rows, "half_cases", lambda **_: iter(chosen))


def test_a_right_and_a_wrong_answer_of_float16_are_told_apart(
    zoo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few_cases(monkeypatch)
    code, rows = measured(zoo, capsys, "half")
    assert code == 0
    assert (
        rows[0]["figure"]
        == "2 in 1 kinds (1 right, 1 wrong, 0 open): false passes 0, false failures 0"
    )


def test_a_harness_that_says_the_same_of_every_conversion_is_noticed(
    zoo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few_cases(monkeypatch)
    for status, stage, mistake in [
        (Status.PASS, Stage.DONE, "false passes 1, false failures 0"),
        (Status.FAIL, Stage.COMPARE, "false passes 0, false failures 1"),
        (Status.ERROR, Stage.LOAD, "false passes 1, false failures 1"),
    ]:
        same = CellResult("m", "m", "", "fp16.io32", "cpu", status, stage, "the same of all")
        monkeypatch.setattr(Bench, "judge", lambda *_, same=same: (None, same))
        code, rows = measured(zoo, capsys, "half", "--log", str(zoo / f"{status}.jsonl"))
        assert code == 1
        assert str(rows[0]["figure"]).endswith(mistake)


def test_a_quantized_copy_that_fails_is_counted_and_one_that_cannot_be_made_is_not(
    zoo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        quantized_rows, "_quantized", lambda _, conversion: broken_copy(zoo, conversion)
    )
    code, rows = measured(zoo, capsys, "quantized", "--quick")
    assert (code, rows[0]["count"], rows[0]["bad"]) == (1, 2, 2)
    assert rows[0]["figure"] == "2 of 2 cells over 1 copies"
    assert "no copy by int8.dynamic" in str(rows[0]["words"])


def broken_copy(folder: Path, conversion: str) -> Path:
    if conversion.startswith("int8.dynamic"):
        raise ValueError("there is nothing to quantize")
    (folder / "copy.onnx").write_bytes(b"no model")
    return folder / "copy.onnx"


def test_a_copy_that_says_nothing_any_more_is_left_out(
    zoo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = zoo / "dead.onnx"
    silent = "(float[n,4] x) => (float[n,3] y) <float[4,3] w = {%s}> { y = MatMul(x, w) }"
    onnx.save(model(silent % ", ".join("0" * 12)), dead)
    monkeypatch.setattr(quantized_rows, "_quantized", lambda *_: dead)
    _, rows = measured(zoo, capsys, "quantized", "--quick")
    assert rows[0]["count"] == 0
    assert "the copy doesn't react to its inputs any more" in str(rows[0]["words"])


def test_a_copy_is_quantized_and_judged_as_itself(
    zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, rows = measured(zoo, capsys, "quantized", "--quick")
    assert (code, rows[0]["count"], rows[0]["bad"]) == (0, 4, 0)
    copy = quantized_rows._quantized(
        card_for(zoo / "m.model.toml"), quantized_rows.COPIES[0]
    )
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(copy).graph.node}


class DyingWorker:
    """A worker process that dies where it said so, before it answers."""

    def __init__(self, stages: list[str]) -> None:
        self.stages = stages

    def call(self, *_: object) -> tuple[Path, None]:
        if self.stages:
            raise WorkerCrashed("died", stage=self.stages.pop(0))
        return Path("copy.onnx"), None

    def close(self) -> None:
        pass


def test_a_copy_is_made_again_only_where_an_input_is_known_to_be_a_risk(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, conversion = card_for(zoo / "m.model.toml"), quantized_rows.COPIES[0]
    worker = DyingWorker([f"{RISK}the 2nd input set", f"{RISK}the 5th input set"])
    monkeypatch.setattr(quantized_rows, "cell_worker", lambda *_, **__: worker)
    assert quantized_rows._quantized(card, conversion) == Path("copy.onnx")
    worker.stages = ["transform"]
    with pytest.raises(WorkerCrashed):
        quantized_rows._quantized(card, conversion)


def test_what_was_found_is_not_looked_for_again(
    zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured(zoo, capsys, "inputs")
    (zoo / "m.onnx").rename(zoo / "kept.onnx")
    (zoo / "m.onnx").write_bytes(b"")  # whoever reads it now finds nothing
    code, rows = measured(zoo, capsys, "inputs")
    assert (code, rows[0]["count"]) == (0, 1)


def test_a_log_of_other_code_or_half_a_line_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "log.jsonl"
    Log(file).put("honest", "one", Outcome(8, 1, ("why",), {"x": 1.0}))
    assert Log(file).get("honest", "one") == Outcome(8, 1, ("why",), {"x": 1.0})
    with file.open("a") as out:
        out.write('{"stamp": "')
    assert Log(file).get("honest", "one") is not None
    monkeypatch.setattr("onnx_harness.selftest.log._stamp", lambda: "of another version")
    assert Log(file).get("honest", "one") is None


def test_a_misspelt_row_and_a_missing_folder_are_usage_errors(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["selftest", "defcts", "--models", str(zoo)]) == 2
    assert "Did you mean 'defects'" in capsys.readouterr().err
    log = str(tmp_path / "log.jsonl")
    assert (
        main(
            [
                "selftest",
                "defects",
                "--models",
                str(zoo),
                "--defects",
                str(tmp_path / "no"),
                "--log",
                log,
            ]
        )
        == 2
    )
    assert "there is no" in capsys.readouterr().err


SMALL = Shape("small", 2, 2, seed=3)


def test_every_mistake_in_a_forest_is_caught_and_missed_without_its_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with own_cache():
        outcome = tree_rows.judge_forest(SMALL)
        assert outcome.count > 10
        assert outcome.bad == 0
        # A leaf of a single tree is no sum: its last bit counts.
        assert tree_rows.judge_forest(replace(SMALL, trees=1)).bad == 0
    monkeypatch.setattr(search, "decisive_sets", lambda *_: ([], []))
    with own_cache():
        blind = tree_rows.judge_forest(SMALL)
    assert blind.bad > 0
    assert any("one unit in the last place" in words for words in blind.words)


def test_another_forest_is_no_pass() -> None:
    wrong = built(SMALL, grown(replace(SMALL, seed=4)))
    with own_cache(), tempfile.TemporaryDirectory() as folder:
        planted = Planted.of("small", built(SMALL, grown(SMALL)), Path(folder))
        assert planted.judge(built(SMALL, grown(SMALL))).passed
        assert not planted.judge(wrong).passed


def test_every_mistake_in_a_vocabulary_is_caught_and_missed_without_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(lookups(quick=True)) >= 10
    classifier = next(model for model in lookups() if model.name == "classified_words")
    with own_cache():
        assert vocabulary_rows.judge_lookup(classifier).bad == 0
    monkeypatch.setattr(search, "decisive_sets", lambda *_: ([], []))
    with own_cache():
        assert vocabulary_rows.judge_lookup(classifier).bad > 0


def test_a_forest_that_takes_long_is_not_reached() -> None:
    quick = Outcome(0, 0, (), {"seconds": 0.5, "branches": 10_000})
    slow = replace(quick, figures={"seconds": 0.5, "branches": 1_000})
    assert tree_rows.TREES.reached([quick])
    assert not tree_rows.TREES.reached([slow])
    assert "5.00 s for 10,000 branches" in tree_rows.figure([slow])
