"""The experiment's table, replayed from made-up recordings: it says NO, and it says when it can't
say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.performance.experiment import analysis, taking
from tests.performance.experiment.recordings import Measured, Recordings, host
from tests.performance.experiment.sabotage import sabotage
from tests.performance.experiment.subjects import SUBJECTS


def fill(
    recordings: Recordings,
    row: str,
    trials: int,
    slowdown: float,
    *,
    seed: int = 0,
    drift: float = 0.0,
    noise: float = 0.05,
) -> None:
    """Trials of one iteration a pair, with their confirmations.

    ``drift`` is how much the machine's speed varies
    between them, ``noise`` how much within.
    """
    rng = np.random.default_rng(seed)
    models = SUBJECTS[2:] if "work" in row else SUBJECTS
    for trial in range(trials):
        for confirming, pairs in ((False, 16), (True, 32)):
            baselines = 2e6 * np.exp(rng.normal(rng.normal(0, drift), noise, pairs))
            variants = baselines * np.exp(rng.normal(math.log1p(slowdown), 0.01, pairs))
            taken = [
                [[int(baseline), int(variant)]]
                for baseline, variant in zip(baselines, variants, strict=True)
            ]
            model = models[trial % len(models)]
            recordings.add(Measured(row, model, trial, confirming, taken, 2.0, 0, 0, host()))


def lines(recordings: Recordings) -> dict[str, str]:
    return {line.split("  ")[0]: line for line in analysis.table(recordings)}


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recordings:
    monkeypatch.setattr(analysis, "RESAMPLED", 200)
    monkeypatch.setattr(analysis, "AA_TRIALS", 70)
    monkeypatch.setattr(analysis, "WORK_TRIALS", 20)
    return Recordings(tmp_path / "taken.jsonl")


def test_what_is_reached_is_said_to_be(recordings: Recordings) -> None:
    fill(recordings, "aa", 70, 0.0)
    fill(recordings, "work 5%", 20, 0.05, seed=1)
    found = lines(recordings)
    assert found["A/A: FAIL (7 models)"].endswith("70 of 70  yes")
    assert found["A/A resampled: FAIL"].endswith("200 of 200  yes")
    assert found["work of 5% caught"].endswith("20 of 20  yes")
    assert "100.0% [83.2%, 100.0%]" in found["work of 5% caught"]
    assert found["95% interval, A/A: bias"].endswith("yes")


def test_false_alarms_and_misses_are_said_to_be(recordings: Recordings) -> None:
    fill(recordings, "aa", 70, 0.04)  # a harness that favours one side
    fill(recordings, "work 5%", 20, 0.01, seed=1)  # work that isn't what it's said to be
    found = lines(recordings)
    for what in ("A/A: FAIL (7 models)", ("A/A resampled: "
                                         "FAIL"), "work of 5% caught", ("95% interval, A/A: "
                                                                       "coverage"),
                 "95% interval, A/A: bias"):  # fmt: skip
        assert found[what].endswith("NO"), what


@pytest.mark.parametrize(
    ("drift", "equals", "slower", "said"),
    [
        (
            0.2,
            0.0,
            0.05,
            "yes",
        ),  # a machine that changes its speed between runs: others call it a slowdown
        (0.0, 0.0, 0.05, "NO"),  # one that doesn't: they are hardly wrong
        (0.2, 0.04, 0.05, "NO"),  # false alarms of ours
        (0.2, 0.0, 0.0, "NO"),  # a slowdown that we don't see
    ],
)
def test_others_are_beaten_only_by_false_alarms_and_power(
    drift: float, equals: float, slower: float, said: str, recordings: Recordings
) -> None:
    noise = 0.05 if drift else 0.01
    fill(recordings, "aa", 140, equals, drift=drift, noise=noise)
    fill(recordings, "work 5%", 20, slower, seed=1, drift=drift, noise=noise)
    found = lines(recordings)
    for peer in analysis.PEERS:
        assert found[f"beside {peer}"].endswith(said), found[f"beside {peer}"]


def test_too_few_trials_are_never_enough(recordings: Recordings) -> None:
    fill(recordings, "aa", 69, 0.0)
    fill(recordings, "work 5%", 19, 0.05, seed=1)
    table = [line for line in analysis.table(recordings) if " of " in line]
    assert not [line for line in table if line.endswith("  yes") and "cost" not in line]
    found = lines(recordings)
    assert found["A/A: FAIL (7 models)"].endswith("not enough trials yet")
    assert found["work of 5% caught"].endswith("not enough trials yet")


def test_a_false_alarm_counts_however_few_the_trials(recordings: Recordings) -> None:
    fill(recordings, "aa", 7, 0.1)
    assert lines(recordings)["A/A: FAIL (7 models)"].endswith("NO")


def test_a_recording_that_was_cut_off_is_passed_over_and_one_of_elsewhere_too(
    recordings: Recordings, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(recordings, "aa", 2, 0.0)
    path = recordings.path
    whole = path.read_text("utf-8")
    path.write_text(whole + whole.splitlines()[0][:100], "utf-8")
    again = Recordings(path)
    assert len(again.all) == 4
    fill(again, "aa", 1, 0.0)
    assert len(Recordings(path).all) == 6
    path.write_text(path.read_text("utf-8").replace(host(), "another machine"), "utf-8")
    assert Recordings(path).all == []
    assert "another machine" in capsys.readouterr().out


def test_a_trial_without_its_confirmation_is_none(recordings: Recordings) -> None:
    fill(recordings, "work 5%", 1, 0.05)
    assert len(recordings.trials("work 5%")) == 1
    recordings.all.pop()
    assert recordings.trials("work 5%") == []


def test_what_was_interrupted_goes_on_where_it_was(
    recordings: Recordings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(0)

    def measured(
        row: str,
        found: str,
        trial: int,
        *,
        pairs: int,
        confirming: bool = False,
        **_: object,
    ) -> Measured:
        noise = rng.normal(0, 0.01, pairs)
        taken = [[[2_000_000, int(2_000_000 * math.exp(value))]] for value in noise]
        return Measured(row, found, trial, confirming, taken, 1.0, 0, 0, host())

    monkeypatch.setattr(taking, "measure", measured)
    monkeypatch.setattr(taking, "subject", lambda name, _=None: name)
    monkeypatch.setattr(taking, "AA_TRIALS", 9)
    with pytest.raises(SystemExit, match="row `spread` first"):
        taking.take("aa", recordings, math.inf)
    taking.take("spread", recordings, math.inf)
    with pytest.raises(taking.OutOfTime):
        taking.take("aa", recordings, 0.0)
    assert [each.trial for each in recordings.of("aa")] == [0]
    again = Recordings(recordings.path)
    taking.take("aa", again, math.inf)
    assert sorted(each.trial for each in again.of("aa")) == list(range(9))
    assert len(again.trials("aa")) == 9
    assert {each.model for each in again.of("aa")} == set(SUBJECTS)
    assert "16 pairs for each of 100 cells" in capsys.readouterr().out
    count = len(again.all)
    taking.take("aa", again, math.inf)
    assert len(again.all) == count


def put_work_into_one_model(
    monkeypatch: pytest.MonkeyPatch, measured: Callable[..., Measured]
) -> None:
    monkeypatch.setattr(taking, "measure", measured)
    monkeypatch.setattr(
        taking, "subject", lambda name: SimpleNamespace(name=name, model=b"")
    )
    monkeypatch.setattr(taking, "with_work", lambda model, _: model)
    monkeypatch.setattr(taking, "_guess", lambda *_: 77)
    monkeypatch.setattr(taking, "INJECTABLE", ("bn_cnn",))


def test_work_is_sized_by_the_trials_that_went_before_and_never_by_its_own(
    recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine on which a row of products costs a hundredth of a percent, and half of that once
    trials begin.

    One trial is disturbed, and has no say in what comes after it.
    """

    def measured(
        row: str,
        found: SimpleNamespace,
        trial: int,
        *,
        pairs: int,
        rows: int = 0,
        confirming: bool = False,
        **_: object,
    ) -> Measured:
        slower = 5.0 if trial == 9 else rows * (1e-4 if row.startswith("size") else 5e-5)
        taken = [
            [[2_000_000, round(2_000_000 * (1 + slower)) + pair]] for pair in range(pairs)
        ]
        return Measured(row, found.name, trial, confirming, taken, 1.0, 0, rows, host())

    put_work_into_one_model(monkeypatch, measured)
    monkeypatch.setattr(taking, "WORK_TRIALS", 30)
    fill(recordings, "spread 1", 1, 0.0)
    taking.take("work 5%", recordings, math.inf)
    rows = [each.rows for each in recordings.of("work 5%")]
    assert rows[0] == pytest.approx(500, rel=0.01), (
        "the first trial knows nothing of the change"
    )
    assert rows[1] > 560
    assert rows[-1] == pytest.approx(1000, rel=0.06)
    confirmed = recordings.of("work 5%", confirming=True)
    assert {(each.trial, each.rows) for each in confirmed} == set(enumerate(rows))


def test_a_further_effect_is_first_sized_by_what_another_took(
    recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sized = []

    def measured(
        row: str, found: SimpleNamespace, trial: int, *, pairs: int, rows: int, **_: object
    ) -> Measured:
        sized.append((row, trial, rows))
        taken = [
            [[2_000_000, round(2_000_000 * (1 + rows * 1e-4)) + pair]]
            for pair in range(pairs)
        ]
        return Measured(row, found.name, trial, False, taken, 1.0, 0, rows, host())

    put_work_into_one_model(monkeypatch, measured)
    for effect in (0.10, 0.02):
        list(taking._sizes(recordings, effect))
    assert sized[0] == ("size 10%", 0, 77), "nothing is known yet"
    assert [rows for row, _, rows in sized if row == "size 2%"] == [200] * taking.sizings(
        0.02
    )


def test_a_second_measurement_is_taken_in_turns_after_all_firsts_and_goes_on_where_it_was(
    recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = []

    def measured(
        row: str,
        found: str,
        trial: int,
        *,
        pairs: int,
        confirming: bool = False,
        part: int = 0,
        **_: object,
    ) -> Measured:
        parts.append((confirming, trial, part))
        taken = [[[2_000_000, 2_100_000 + len(parts) * 100 + pair]] for pair in range(pairs)]
        return Measured(row, found, trial, confirming, taken, 1.0, 0, 0, host())

    monkeypatch.setattr(taking, "measure", measured)
    monkeypatch.setattr(taking, "subject", lambda name: name)
    fill(recordings, "spread 1", 1, 0.0)
    steps = taking._trials("aa", recordings, 0.0, 3)
    for _ in range(5):
        next(steps)
    assert recordings.trials("aa") == [], "a second measurement that lacks parts is none"
    again = Recordings(recordings.path)
    list(taking._trials("aa", again, 0.0, 3))
    firsts = [(False, trial, 0) for trial in range(3)]
    assert parts == [
        *firsts,
        *((True, trial, part) for part in (0, 12, 24) for trial in range(3)),
    ]
    assert [len(second.pairs) for _, second in again.trials("aa") if second] == [32, 32, 32]
    assert [second.seconds for _, second in again.trials("aa") if second] == [3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ("def test_it(): pass\n", "not enough trials yet"),
        (
            "import pytest\n@pytest.mark.parametrize('n', range(15))\ndef test_it(n): pass\n",
            "yes",
        ),
        (
            (
                "import pytest\n@pytest.mark.parametrize('n', range(15))\ndef test_it(n): assert "
                "n != "
                "3\n"
            ),
            "NO",
        ),
        (
            (
                "import pytest\n@pytest.mark.parametrize('n', range(15))\ndef test_it(n): "
                "pytest.skip('no')\n"
            ),
            "not enough",
        ),
    ],
)
def test_sabotage_that_gets_through_is_said_to(
    cases: str, said: str, recordings: Recordings, tmp_path: Path
) -> None:
    suite = tmp_path / "test_cases.py"
    suite.write_text(cases)
    (line,) = (
        each
        for each in analysis.table(recordings, lambda: sabotage([suite]))
        if each.startswith("sabotage")
    )
    assert said in line.rpartition("of 15")[2]
