"""Accepting: levels, their journal, lock files, the reference environment, and the models kept in
it.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from onnx_harness.cards.card import Card, KnownFailure, PathSource, ToleranceSpec, read
from onnx_harness.cli import UNDONE, main
from onnx_harness.errors import GateError, ResultsError, UsageError
from onnx_harness.gate import accept as accepting
from onnx_harness.gate import environment
from onnx_harness.gate.models import forget, reference_model
from onnx_harness.model.file import Model
from onnx_harness.results.history import History
from onnx_harness.results.levels import FOLDER, LOCK_NAME, Level, read_levels, trimmed
from tests.models import linear, save, two_outputs, with_external_data
from tests.nights import night, timed
from tests.unit.results_examples import latency


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")


def accept(folder: Path, *words: str) -> int:
    return main(["gate", "accept", *words, "--report-dir", str(folder)])


def test_a_moved_level_is_kept_with_who_when_and_why(tmp_path: Path) -> None:
    run = night(tmp_path)
    assert accept(tmp_path, "--all", "--why", "the first", "--by", "somebody") == 0
    night(tmp_path, [timed("original", 1.2), timed("simplify")])
    assert accept(tmp_path, "net-original-cpu", "--why", "a new\nkernel") == 0
    levels = {level.cell.id: level for level in read_levels(tmp_path / FOLDER).values()}
    assert levels["net-simplify-cpu"].run_id == run
    moved = levels["net-original-cpu"]
    assert (moved.why, moved.processor) == ("a new kernel", "A Processor")
    assert moved.cell.pinned is not None
    assert moved.cell.pinned.ratio == 1.2
    with History(tmp_path / "history.sqlite") as past:
        assert [level.why for level in past.accepted()] == [
            "the first",
            "the first",
            "a new kernel",
        ]
        assert past.accepted()[0].who == "somebody"


def test_a_level_moved_is_what_the_gate_goes_by(tmp_path: Path) -> None:
    night(tmp_path)
    accept(tmp_path, "--all", "--why", "the first")
    slow = [timed("original", 1.2), timed("simplify")]
    night(tmp_path, slow)
    night(tmp_path, slow)
    assert main(["gate", "--same-night", "--report-dir", str(tmp_path)]) == 1
    accept(tmp_path, "net-original-cpu", "--why", "it's worth it")
    night(tmp_path, slow)
    assert main(["gate", "--report-dir", str(tmp_path)]) == 0


def test_accepting_all_forgets_cells_that_are_gone_and_no_other_providers(
    tmp_path: Path,
) -> None:
    night(
        tmp_path,
        [timed("original"), timed("simplify"), timed("original", provider="openvino")],
    )
    accept(tmp_path, "--all", "--why", "all")
    night(tmp_path, [timed("original")])
    accept(tmp_path, "--all", "--why", "fewer", "--provider", "cpu")
    assert {level.cell.id for level in read_levels(tmp_path / FOLDER).values()} == {
        "net-original-cpu",
        "net-original-openvino",
    }


def test_levels_of_one_night_are_the_same_text_whenever_they_are_accepted(
    tmp_path: Path,
) -> None:
    night(tmp_path)
    texts = []
    for _ in range(2):
        accept(tmp_path, "--all", "--why", "same")
        lines = (tmp_path / FOLDER / "levels.jsonl").read_text("utf-8").splitlines()
        texts.append([line.partition('"accepted"')[0] for line in lines])
    assert texts[0] == texts[1]
    assert len(texts[0]) == 2


def test_levels_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    night(tmp_path)
    (tmp_path / FOLDER).write_text("a file", "utf-8")
    assert accept(tmp_path, "--all", "--why", "x") == UNDONE


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/simple",
        "-i somewhere",
        "--extra-index-url=x",
        "--find-links wheels",
        "numpy @ https://example.org/numpy.whl",
        "  --trusted-host x",
        "numpy @ file:wheels/numpy.whl",
    ],
)
def test_a_lock_file_with_an_address_is_refused(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        f"onnx==1.23.2 \\\n    --hash=sha256:ab\n    # via https://is.fine in a comment\n{line}\n",
        "utf-8",
    )
    assert accept(tmp_path, "--lock", str(lock), "--why", "x") == 2
    assert "names an index or an address" in capsys.readouterr().err
    assert not (tmp_path / FOLDER / LOCK_NAME).exists()


def test_an_accepted_lock_file_is_kept_as_it_is(tmp_path: Path) -> None:
    lock = tmp_path / "requirements-cuda.lock"
    lock.write_text(
        "onnx==1.23.2 \\\n    --hash=sha256:ab\n    # via -r https://is.fine\n", "utf-8"
    )
    assert accept(tmp_path, "--lock", str(lock), "--why", "x") == 0
    assert (tmp_path / FOLDER / "requirements-cuda.lock").read_bytes() == lock.read_bytes()


def fake_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pip: str) -> Path:
    """An interpreter that makes environments in which pip is the shell script ``pip``.

    Counts its calls in a file.
    """
    python = tmp_path / "python"
    inner = (
        f'#!/bin/sh\n[ "$1" = -c ] && exit 0\necho installed >> {tmp_path}/calls\n{pip}\n'
    )
    python.write_text(
        (
            f'#!/bin/sh\nmkdir -p "$3/bin"; cat > "$3/bin/python" <<"END"\n{inner}END\nchmod +x '
            f'"$3/bin/python"\n'
        ),
        "utf-8",
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(python))
    return tmp_path / "calls"


def test_an_environment_is_made_once_and_anew_when_the_lock_file_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_python(monkeypatch, tmp_path, "exit 0")
    lock, made = tmp_path / "a.lock", tmp_path / "reference"
    lock.write_text("onnx==1.0\n", "utf-8")
    assert environment.make(made, lock)
    (made / "onnx-harness-models").mkdir()
    assert not environment.make(made, lock)
    lock.write_text("onnx==1.1\n", "utf-8")
    assert environment.make(made, lock)
    (made / "bin" / "python").unlink()
    assert environment.make(made, lock)
    assert calls.read_text("utf-8").count("installed") == 3
    assert (made / "onnx-harness-models").is_dir()


def test_pip_without_an_index_is_told_and_tried_again_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_python(
        monkeypatch,
        tmp_path,
        "echo 'ERROR: No matching distribution found for onnx==1.0' >&2; exit 1",
    )
    lock = tmp_path / "a.lock"
    lock.write_text("onnx==1.0\n", "utf-8")
    for _ in range(2):
        with pytest.raises(
            GateError,
            match=r"No matching distribution found for onnx==1.0. Mend: .*PIP_FIND_LINKS",
        ):
            environment.make(tmp_path / "reference", lock)
    assert calls.read_text("utf-8").count("installed") == 2


def test_an_environment_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text("onnx==1.0\n", "utf-8")
    (tmp_path / "mine" / "bin").mkdir(parents=True)
    with pytest.raises(UsageError, match="wasn't made by this command"):
        environment.make(tmp_path / "mine", lock)
    assert (tmp_path / "mine" / "bin").is_dir()


def test_a_missing_lock_file_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gate", "reference", "env", "--report-dir", str(tmp_path)]) == 2
    assert (
        "Accept one: onnx-harness gate accept --lock requirements.lock"
        in capsys.readouterr().err
    )


def test_the_accepted_model_runs_in_the_reference_once_the_model_has_changed(
    tmp_path: Path,
) -> None:
    kept = tmp_path / "kept"
    model = save(linear(), tmp_path / "net.onnx")
    first = Model(model).sha256
    assert reference_model(model, "", kept) == (model, first)
    save(two_outputs(), model)
    second = Model(model).sha256
    there, sha256 = reference_model(model, first, kept)
    assert (sha256, Model(there).sha256) == (first, first)
    there.write_bytes(b"spoilt")
    assert reference_model(model, first, kept) == (model, second)
    assert reference_model(model, "no such", kept) == (model, second)
    forget(kept, {second})
    assert os.listdir(kept) == [second]  # noqa: PTH208


def test_external_data_is_kept_with_its_model(tmp_path: Path) -> None:
    model = with_external_data(tmp_path / "net.onnx", "weights.bin")
    sha256 = Model(model).sha256
    reference_model(model, "", tmp_path / "kept")
    assert Model(tmp_path / "kept" / sha256 / "net.onnx").sha256 == sha256


def test_a_cards_hash_is_of_what_it_says_about_the_verdict(tmp_path: Path) -> None:
    plain = Card(tmp_path / "a.onnx", "a", PathSource(tmp_path / "a.onnx"))
    twin = Card(
        tmp_path / "b.onnx", "b", PathSource(tmp_path / "b.onnx"), summary="B", license="MIT"
    )
    assert plain.digest() == twin.digest()
    loose = Card(plain.path, "a", plain.source, tolerance={"y": ToleranceSpec(rtol=0.1)})
    known = Card(
        plain.path, "a", plain.source, known_failures=(KnownFailure("run", "it breaks", {}),)
    )
    assert len({plain.digest(), loose.digest(), known.digest()}) == 3


def test_every_card_of_the_zoo_has_a_hash() -> None:
    cards = sorted((Path(__file__).parents[2] / "models").glob("*.model.toml"))
    assert cards
    assert all(len(read(card).digest()) == 64 for card in cards)


def test_a_level_file_of_a_newer_version_with_more_fields_is_read(tmp_path: Path) -> None:
    night(tmp_path)
    accept(tmp_path, "--all", "--why", "x")
    file = tmp_path / FOLDER / "levels.jsonl"
    file.write_text(
        file.read_text("utf-8").replace('"seed":', '"mood": "good", "seed":'), "utf-8"
    )
    assert len(read_levels(tmp_path / FOLDER)) == 2
    file.write_bytes(b"\xff\xfe\n")
    with pytest.raises(ResultsError, match="can't be read"):
        read_levels(tmp_path / FOLDER)


def test_a_model_that_cannot_be_stored_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, store = save(linear(), tmp_path / "net.onnx"), tmp_path / "store"
    making: list[str] = []

    def full(_: Path, copy: Path) -> None:
        making.append(copy.parent.name)
        raise OSError(28, "No space left")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        reference_model(model, "", store)
    assert [name.startswith(".making-") for name in making] == [True]
    assert list(store.iterdir()) == []


def test_an_environment_s_mark_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ResultsError, match=r"^the reference environment can't .*\(its path\)"
    ):
        environment._write(tmp_path / "file" / "mark", "text")


def judged_by(folder: Path, cells: list[str], **more: Any) -> dict[str, Level]:
    """Accept the latest night's ``cells``; the levels by id."""
    with History(folder / "history.sqlite") as past:
        given = {"who": "w", "why": "y", **more}
        made = accepting.accept(past, folder / FOLDER, cells, **given)
    return {level.cell.id: level for level in made}


def test_what_was_accepted_is_told_with_everything_that_a_level_has(tmp_path: Path) -> None:
    run = night(
        tmp_path, [timed("simplify"), timed("original")], seed=9, selection=("models", "-k")
    )
    before = datetime.now(UTC).replace(microsecond=0)
    made = judged_by(tmp_path, [], who="me", why=" a\n  new\tkernel ")
    assert list(made) == ["net-original-cpu", "net-simplify-cpu"]
    level = made["net-simplify-cpu"]
    assert (level.processor, level.seed, level.run_id) == ("A Processor", 9, run)
    assert (level.who, level.why, level.selection) == (
        "me",
        "a new kernel",
        ("models", "-k"),
    )
    moment = datetime.fromisoformat(level.accepted)
    assert before <= moment <= datetime.now(UTC)
    assert (moment.microsecond, moment.utcoffset()) == (0, timedelta(0))
    assert level.cell == trimmed(timed("simplify"))
    assert list(read_levels(tmp_path / FOLDER).values()) == list(made.values())


def test_named_cells_are_accepted_in_that_order_and_the_rest_stays(tmp_path: Path) -> None:
    night(tmp_path, [timed("a"), timed("b"), timed("c"), timed("d", provider="cuda")])
    judged_by(tmp_path, [])
    night(tmp_path, [timed("a"), timed("c")])
    assert list(judged_by(tmp_path, ["net-c-cpu", "net-a-cpu"], why="later")) == [
        "net-c-cpu",
        "net-a-cpu",
    ]
    whys = {level.cell.id: level.why for level in read_levels(tmp_path / FOLDER).values()}
    assert whys == {
        "net-a-cpu": "later",
        "net-b-cpu": "y",
        "net-c-cpu": "later",
        "net-d-cuda": "y",
    }


def test_levels_of_a_provider_that_the_run_was_not_for_stay(tmp_path: Path) -> None:
    night(tmp_path, [timed("a"), timed("b", provider="cuda"), timed("c", provider="cuda")])
    judged_by(tmp_path, [])
    night(tmp_path, [timed("b"), timed("b", provider="cuda")])
    assert list(judged_by(tmp_path, [], only=("cuda",))) == ["net-b-cuda"]
    kept = {level.cell.id for level in read_levels(tmp_path / FOLDER).values()}
    assert kept == {"net-a-cpu", "net-b-cuda"}
    assert list(judged_by(tmp_path, [])) == ["net-b-cpu", "net-b-cuda"]
    kept = {level.cell.id for level in read_levels(tmp_path / FOLDER).values()}
    assert kept == {"net-b-cpu", "net-b-cuda"}


@pytest.mark.parametrize(
    ("cells", "more", "words"),
    [
        ([], {"why": " \n"}, "^say why"),
        ([], {"only": ("cuda",)}, r"^the latest run \(night0000\) holds no cell: run"),
        (
            ["net-original-cpu", "net-simplfy-cpu"],
            {},
            r"^there is no cell 'net-simplfy-cpu' in the latest run \(night0000\)\. Did you mean "
            r"'net-simplify-cpu'\?",
        ),
        (
            ["net-broken-cpu"],
            {},
            "^net-broken-cpu can't be accepted: a time or a ratio of it is 0.0",
        ),
    ],
)
def test_what_cannot_be_accepted_moves_nothing(
    cells: list[str], more: dict[str, Any], words: str, tmp_path: Path
) -> None:
    broken = timed("broken", latency=latency(0.0))
    night(tmp_path, [timed("original"), timed("simplify"), broken])
    with pytest.raises(UsageError, match=words):
        judged_by(tmp_path, cells, **more)
    assert not (tmp_path / FOLDER / "levels.jsonl").exists()


def test_of_a_history_without_a_run_nothing_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the history holds no run"):
        judged_by(tmp_path, [])


def test_a_lock_file_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("onnx==1.23.2\n", "utf-8")
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match=r"^the lock file can't .*\(--report-dir\)"):
        environment.keep_lock(lock, tmp_path / "file")
