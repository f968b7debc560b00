"""What `make mutants` reads of mutmut's files, and when it fails."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants import __main__ as mutants
from tests.mutants.reading import (
    End,
    Equivalent,
    Mutant,
    first_lines,
    patterns,
    read_equivalents,
    read_mutants,
)
from tests.mutants.sampling import draw, interval

SOURCE = '''LIMIT = 2


def above(value):
    """Say so."""
    if value > LIMIT:
        raise ValueError("it is too much")
    return "kind"


class Box:
    @property
    def full(self):
        return self.count > 3
'''


def mutant(
    was: str = "a > b", now: str = "a >= b", end: End = End.SURVIVED, line: int = 7
) -> Mutant:
    return Mutant("onnx_harness/gate/rules.py", line, was, now, end)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A source root, and what mutmut makes of its file: a copy of each function for each mutant."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text(SOURCE, "utf-8")
    copies = {
        "x_above__mutmut_orig": [
            "def x_above__mutmut_orig(value):",
            "    if value > LIMIT:",
            "        f()",
        ],
        "x_above__mutmut_1": [
            "def x_above__mutmut_1(value):",
            "    if value >= LIMIT:",
            "        f()",
        ],
        "xǁBoxǁfull__mutmut_orig": [
            "    @_mutmut_mutated(x)",
            "    def xǁBoxǁfull__mutmut_orig(self):",
            "        return self.count > 3",
        ],
        "xǁBoxǁfull__mutmut_1": [
            "    def xǁBoxǁfull__mutmut_1(self):",
            "        return self.count > 4",
        ],
    }
    lines: list[str] = []
    spans: dict[str, list[int]] = {}
    for name, body in copies.items():
        spans[name] = [len(lines) + 1, len(lines) + len(body)]
        lines += body
    made = tmp_path / "mutants"
    made.mkdir()
    (made / "a.py").write_text("\n".join(lines), "utf-8")
    (made / "a.py.spans").write_text(json.dumps({"version": 1, "spans": spans}), "utf-8")
    codes = {"a.x_above__mutmut_1": 1, "a.xǁBoxǁfull__mutmut_1": 0}
    (made / "a.py.meta").write_text(json.dumps({"exit_code_by_key": codes}), "utf-8")
    return tmp_path


def test_a_mutant_is_read_with_the_line_that_it_changes(folder: Path) -> None:
    first, second = "a.x_above__mutmut_1", "a.xǁBoxǁfull__mutmut_1"
    assert list(read_mutants(folder / "mutants", folder / "src")) == [
        Mutant("a.py", 5, "if value > LIMIT:", "if value >= LIMIT:", End.KILLED, first),
        Mutant(
            "a.py",
            14,
            "return self.count > 3",
            "return self.count > 4",
            End.SURVIVED,
            second,
        ),
    ]


@pytest.mark.parametrize(
    ("code", "end"),
    [
        (1, End.KILLED),
        (0, End.SURVIVED),
        (36, End.TIMED_OUT),
        (33, End.UNREACHED),
        (255, End.BROKEN),  # mutmut itself failed: no test noticed anything
        (-11, End.BROKEN),
        (None, End.UNTRIED),
    ],
)
def test_only_a_failing_or_endless_test_notices(
    code: int | None, end: End, folder: Path
) -> None:
    codes = {"exit_code_by_key": {"a.x_above__mutmut_1": code}}
    (folder / "mutants" / "a.py.meta").write_text(json.dumps(codes), "utf-8")
    [made] = read_mutants(folder / "mutants", folder / "src")
    assert made.end is end
    noticed = mutants.score(ROOM, [made], []).percent == 100
    assert noticed is (end in (End.KILLED, End.TIMED_OUT))


def test_functions_are_found_by_the_names_that_mutmut_gives_them() -> None:
    assert first_lines(SOURCE) == {"x_above": 4, "xǁBoxǁfull": 13}


@pytest.mark.parametrize(
    ("lines", "functions"),
    [
        ({3}, []),
        ({4}, ["x_above"]),
        ({7, 99}, ["x_above"]),
        ({7, 14}, ["x_above", "xǁBoxǁfull"]),
    ],
)
def test_of_changed_functions_every_mutant_is_asked_for(
    lines: set[int], functions: list[str]
) -> None:
    asked = [f"onnx_harness.a.{name}__mutmut_*" for name in functions]
    assert patterns("onnx_harness/a.py", SOURCE, lines) == asked
    assert patterns("onnx_harness/a/__init__.py", SOURCE, lines) == asked


@pytest.mark.parametrize(
    ("was", "now", "is_text"),
    [
        (
            'raise ValueError("it is too much")',
            'raise ValueError("XXit is too muchXX")',
            True,
        ),
        ('"of two", value', '"OF TWO", value', True),
        ('f("it is", 2)', 'f("it IS", 3)', False),
        ('return "kind"', 'return "XXkindXX"', False),  # a name that others go by
        ('f("it is")', "f(None)", False),
        ("zip(a, b, strict=True)", "zip(a, b, strict=None)", True),
        ("zip(a, b, strict=True)", "zip(a, b, )", True),
        ("zip(a, b, strict=True\n):", "zip(a, b, ):", True),
        ("zip(a, b, strict=True)", "zip(a, None, strict=True)", False),
        ("f(a, b)", "f(a, )", False),
    ],
)
def test_only_rewording_a_sentence_does_not_count(was: str, now: str, is_text: bool) -> None:
    assert mutant(was, now).is_text is is_text


ROOM = mutants.Room("gate", ("onnx_harness/gate/rules.py",), (), 80.0)


def test_what_nothing_notices_lowers_the_score_and_what_is_excused_does_not() -> None:
    ends = [End.KILLED, End.TIMED_OUT, End.KILLED, End.SURVIVED, End.UNREACHED]
    made = [mutant(now=f"{number}", end=end) for number, end in enumerate(ends)]
    found = mutants.score(ROOM, made, [])
    assert (found.percent, found.too_low) == (60.0, True)
    assert [each.end for each in found.unnoticed] == [End.SURVIVED, End.UNREACHED]
    excuses = [Equivalent(each.file, each.was, each.now, "why") for each in found.unnoticed]
    excused = mutants.score(ROOM, made, excuses)
    assert (excused.percent, excused.excused, excused.too_low) == (100.0, 2, False)


def test_of_changed_lines_only_those_count() -> None:
    made = [mutant(line=7), mutant(line=8)]
    found = mutants.score(ROOM, made, [], {ROOM.files[0]: {8, 9}})
    assert found.counted == made[1:]
    assert mutants.score(ROOM, made, [], {}).counted == []


def test_a_sample_takes_its_share_of_every_file() -> None:
    room = []
    for file, count in (("a.py", 40), ("b.py", 20), ("c.py", 20)):
        room += [
            Mutant(file, line, "a", "b", End.UNTRIED, str(line)) for line in range(count)
        ]
    sample = draw(room, 20, seed=3)
    assert Counter(mutant.file for mutant in sample) == {"a.py": 10, "b.py": 5, "c.py": 5}
    assert sample == draw(room[::-1], 20, seed=3)
    assert any(sample != draw(room, 20, seed) for seed in range(9))
    assert draw(room, 80, seed=0) == room
    assert len(set(draw(room, 79, seed=0))) == 79


def test_the_interval_of_a_sample_is_wilsons() -> None:
    assert interval(0, 0) == (0.0, 100.0)
    # Brown, Cai, DasGupta 2001.
    assert interval(95, 100) == pytest.approx((88.82, 97.85), abs=0.01)
    assert interval(10, 10) == pytest.approx((72.25, 100.0), abs=0.01)


def test_a_sample_is_too_low_where_chance_does_not_explain_it() -> None:
    counted = [mutant(end=End.KILLED)] * 9 + [mutant()]
    whole = mutants.Score(ROOM, counted, 0, 0)
    assert whole.percent == 90
    for floor, in_sample in ((92.0, False), (99.0, True)):
        room = replace(ROOM, floor=floor)
        assert replace(whole, room=room).too_low
        assert replace(whole, room=room, sampled_of=400).too_low is in_sample


@pytest.mark.parametrize(
    "words", [["--sample", "0"], ["--sample", "9", "--changed", "HEAD"]]
)
def test_a_sample_has_some_mutants_and_is_not_of_changed_lines(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        mutants.main(words)
    assert "--sample takes a number from 1 on" in capsys.readouterr().err


def test_a_reason_for_what_is_noticed_or_gone_is_stale() -> None:
    reason = Equivalent(ROOM.files[0], "a > b", "a >= b", "why")
    assert mutants.stale(ROOM, [mutant()], [reason]) == []
    assert mutants.stale(ROOM, [mutant(end=End.KILLED)], [reason]) == [reason]
    assert mutants.stale(ROOM, [], [reason]) == [reason]


@pytest.mark.parametrize(
    ("file", "was", "now", "fits"),
    [
        ("*", "f(a.astype(np.float64), b)", "f(a.astype(None), b)", True),
        (
            "*",
            "(a.astype(np.float64), b.astype(np.float64))",
            "(a.astype(np.float64), b.astype(None))",
            True,
        ),
        (
            "*",
            "(a.astype(np.float64), b.astype(np.float64))",
            "(a.astype(None), b.astype(None))",
            False,
        ),
        ("*", "f(a.astype(np.float64), b)", "f(a.astype(None), c)", False),
        ("*", "f(a.astype(np.float32), b)", "f(a.astype(None), b)", False),
        (ROOM.files[0], "a.astype(np.float64)", "a.astype(None)", True),
        ("b.py", "a.astype(np.float64)", "a.astype(None)", False),
    ],
)
def test_a_kind_of_mutants_is_excused_wherever_one_place_is_of_it(
    file: str, was: str, now: str, fits: bool
) -> None:
    kind = Equivalent(file, r"astype\(np\.float64\)", "astype(None)", "why", is_kind=True)
    assert kind.fits(mutant(was, now)) is fits
    letters = Equivalent("*", r'kind in "(\w+)"', r'kind in "XX\1XX"', "why", is_kind=True)
    assert letters.fits(mutant('a.kind in "iu"', 'a.kind in "XXiuXX"'))
    assert not letters.fits(mutant('a.kind in "iu"', 'a.kind in "IU"'))


def test_changed_lines_are_read_from_a_diff() -> None:
    diff = (
        "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -3 +3,2 @@ def f():\n-a\n+b\n+c\n"
        "@@ -9,2 +10,0 @@\n-d\n-e\n--- a/y.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-f\n"
    )
    assert mutants.changed_lines(diff) == {"x.py": {3, 4}}


def test_every_room_has_files_and_tests_and_every_reason_a_room() -> None:
    rooms = mutants.read_rooms()
    assert len(rooms) >= 9
    files = {file for room in rooms for file in room.files}
    reasons = read_equivalents(mutants.HERE / "equivalent.toml")
    assert {reason.file for reason in reasons} <= files | {"*"}
    assert all(reason.is_kind for reason in reasons if reason.file == "*")


def test_a_reason_that_gives_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "equivalent.toml"
    path.write_text('[[mutant]]\nfile = "a.py"\nwas = "a"\nis = "b"\nwhy = " "\n', "utf-8")
    with pytest.raises(ValueError, match=r"equivalent\.toml: an entry needs"):
        read_equivalents(path)


def test_a_room_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        mutants.main(["kitchen"])
    assert "no room is called kitchen" in capsys.readouterr().err
