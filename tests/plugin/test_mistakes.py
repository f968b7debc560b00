"""A hundred mistakes that people make: each ends in a clear sentence and the right exit code, and
loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_harness
from onnx_harness.cards.card import read
from onnx_harness.cli import main
from onnx_harness.errors import CardError, HarnessError, InputError, ModelError, UsageError
from onnx_harness.model.file import Model
from tests.models import linear, save, with_external_data

USAGE, NO, UNDONE = 2, 1, 5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as they have it: a model, a copy in a folder, and things that are no models."""
    folder = tmp_path_factory.mktemp("mistakes")
    save(linear(), folder / "net.onnx")
    save(linear(), folder / "folder" / "other.onnx")
    (folder / "nothing").mkdir()
    (folder / "notes.txt").write_text("hello\n")
    (folder / "bad.json").write_text("{")
    (folder / "future").mkdir()
    (folder / "future" / "results.json").write_text('{"schema": 99, "run": {}, "cells": []}')
    return folder


COMMANDS = {
    "": (USAGE, "name a command"),
    "bogus": (USAGE, "there is no command 'bogus'"),
    "inspct net.onnx": (USAGE, "Did you mean 'inspect'?"),
    "--versoin": (USAGE, "Did you mean '--version'?"),
    "doctor --bogus": (USAGE, "there is no option --bogus"),
    "inspect": (USAGE, "arguments are required: MODEL"),
    "inspect no.onnx": (NO, "there is no file no.onnx. Did you mean 'net.onnx'?"),
    "inspect folder": (NO, "folder is a folder; name one of its models: other.onnx"),
    "inspect nothing": (NO, "nothing is a folder; it holds no model"),
    "inspect net.onnx --jsn": (USAGE, "Did you mean '--json'?"),
    "inspect net.onnx extra": (USAGE, "unrecognized arguments: extra"),
    "transform net.onnx": (USAGE, "required: --variant, -o/--output"),
    "transform net.onnx --variant simplify": (USAGE, "required: -o/--output"),
    "transform net.onnx --variant simplfy -o out.onnx": (USAGE, "Did you mean 'simplify'?"),
    "transform net.onnx --variant default -o out.onnx": (
        USAGE,
        "'default' is a group of variants; name one",
    ),
    "transform net.onnx --variant original+simplify -o out.onnx": (
        USAGE,
        "is the empty chain and stands alone",
    ),
    "transform net.onnx --variant simplify( -o out.onnx": (
        USAGE,
        "write them as Python literals",
    ),
    "transform net.onnx --variant fp16.io32(3) -o out.onnx": (
        USAGE,
        "options are written as name=value",
    ),
    "transform net.onnx --variant fp16.io32(max_finite=3) -o out.onnx": (
        USAGE,
        "Did you mean 'max_finite_val'?",
    ),
    "transform net.onnx --variant fp16.io32(max_finite_val='a') -o out.onnx": (
        USAGE,
        "max_finite_val",
    ),
    "transform net.onnx --variant simplify -o nothing": (
        USAGE,
        "nothing is a folder; name the file to write",
    ),
    "transform net.onnx --variant simplify -o nowhere/out.onnx": (
        USAGE,
        "there is no folder nowhere",
    ),
    "transform net.onnx --variant simplify -o net.onnx": (
        USAGE,
        "net.onnx is the model itself; name another file",
    ),
    "transform no.onnx --variant simplify -o out.onnx": (NO, "there is no file no.onnx"),
    "compare net.onnx": (USAGE, "arguments are required: B"),
    "compare net.onnx no.onnx": (UNDONE, "there is no file no.onnx"),
    "compare net.onnx net.onnx --provider CPU": (USAGE, "Did you mean 'cpu'?"),
    "compare net.onnx net.onnx --provider cud": (USAGE, "Did you mean 'cuda'?"),
    "compare net.onnx net.onnx --rtol 1e-3": (USAGE, "--rtol and --atol go together"),
    "compare net.onnx net.onnx --rtol -1 --atol 1": (
        USAGE,
        "rtol is -1.0; it has to be 0 or more",
    ),
    "compare net.onnx net.onnx --rtol nan --atol 1": (
        USAGE,
        "rtol is nan; it has to be 0 or more",
    ),
    "compare net.onnx net.onnx --rtol abc --atol 1": (
        USAGE,
        "argument --rtol: invalid float value: 'abc'",
    ),
    "compare net.onnx net.onnx --input-sets 0": (
        USAGE,
        "input_sets is 0; it has to be 1 or more",
    ),
    "compare net.onnx net.onnx --seed -3": (USAGE, "seed is -3; it has to be 0 or more"),
    "compare net.onnx net.onnx --inputs no.npz": (USAGE, "there is no file no.npz"),
    "compare net.onnx net.onnx --cell-memory 4X": (USAGE, "'4X' isn't a size; write 500M"),
    "compare net.onnx net.onnx --cell-timeout 0": (
        USAGE,
        "it has to be more than 0 seconds",
    ),
    "zoo": (USAGE, "required: COMMAND"),
    "zoo fech": (USAGE, "Did you mean 'fetch'?"),
    "zoo list nowhere": (USAGE, "there is no folder or file nowhere"),
    "zoo list nothing": (USAGE, "there is no model card (NAME.model.toml) in nothing"),
    "zoo list notes.txt": (USAGE, "notes.txt isn't a model card"),
    "selftest --models nowhere": (USAGE, "there is no folder or file nowhere"),
    "report nowhere": (USAGE, "no folder or file nowhere"),
    "report notes.txt": (NO, "notes.txt isn't whole JSON"),
    "report bad.json": (NO, "bad.json isn't whole JSON"),
    "report future": (NO, "has schema 99"),
    "gate nowhere": (USAGE, "there is no command 'nowhere'"),
    "gate --report-dir": (USAGE, "--report-dir: expected one argument"),
    "gate accept": (USAGE, "required: --why"),
}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_line(
    place: Path,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    try:
        code = main(line.split())
    except SystemExit as end:
        code = int(end.code or 0)
    expected, words = COMMANDS[line]
    said = capsys.readouterr()
    assert code == expected
    assert words in " ".join(said.err.split())
    assert "Traceback" not in said.err
    assert sorted(place.rglob("*")) == before


OPTIONS = {
    "--provider=CPU": "Did you mean 'cpu'?",
    "--onnx-provider=gpu": "there is no execution provider 'gpu'",
    "--variant=simplfy": "Did you mean 'simplify'?",
    "--variant=fp16.io32(": "can't be read",
    "--variant=simplify+original": "is the empty chain",
    "--rtol=1e-3": "--rtol and --atol go together",
    "--atol=1e-3": "--rtol and --atol go together",
    "--rtol=-1 --atol=0": "rtol is -1.0",
    "--rtol=inf --atol=0": "rtol is inf",
    "--input-sets=0": "input_sets is 0",
    "--input-sets=many": "invalid int value: 'many'",
    "--seed=-1": "seed is -1",
    "--min-placement=1.5": "min_placement is 1.5; it has to be between 0 and 1",
    "--cell-timeout=-1": "cell_timeout is -1.0",
    "--cell-memory=lots": "'lots' isn't a size",
    "--latency-budget=0": "latency_budget is 0.0",
    "--report-dir=": "it is empty; name a folder",
    "--onnx-backend-suite=nod": "nod",
    "no.onnx": "file or directory not found: no.onnx",
}


@pytest.mark.parametrize("line", OPTIONS)
def test_an_option_of_pytest(pytester: pytest.Pytester, line: str) -> None:
    save(linear(), pytester.path / "net.onnx")
    result = pytester.runpytest_inprocess("net.onnx", *line.split())
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = result.stdout.str() + result.stderr.str()
    assert OPTIONS[line] in " ".join(said.split())
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said


PROJECTS = {
    "provder = 'cpu'": "has no key 'provder'. Did you mean 'provider'?",
    "provider = 3": "it takes a string or a list of strings",
    "variant = []": "it takes a string or a list of strings",
    "seed = 1.5": "it takes a whole number",
    "rtol = 1e-3": "--rtol and --atol go together, in [tool.onnx-harness] too",
    "report_dir = ''": "it is empty; name a folder",
    "cell_memory = '4X'": "isn't a size",
    "sensitivity = 'yes'": "it takes true or false",
    "variants = { simplify = 'fp16' }": "is called as one that is built in",
    "variants = { Mine = 'fp16' }": "isn't a name: use a-z",
    "variants = { mine = 'fp61' }": "the project's variant 'mine' (fp61)",
}


@pytest.mark.parametrize("line", PROJECTS)
def test_a_key_of_pyproject_toml(pytester: pytest.Pytester, line: str) -> None:
    save(linear(), pytester.path / "net.onnx")
    pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\n[tool.onnx-harness]\n{line}\n")
    result = pytester.runpytest_inprocess(
        "net.onnx", "--variant=all" if "variants" in line else "--seed=0"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert PROJECTS[line] in " ".join((result.stdout.str() + result.stderr.str()).split())


CARDS = {
    "[modle]": "Did you mean 'model'?",
    "[model": "isn't TOML",
    "[model]\nlicence = 'MIT'": "Did you mean 'license'?",
    "[model]\nlicense = 3": "license",
    "[tolerance.y]\nrtol = 1e-3": "rtol stands without atol: give both",
    "[tolerance.y]\nrtol = -1\natol = 0": "a tolerance can't be negative",
    "[tolerance.y]\natol = inf": "should be a finite number",
    "[tolerance.y]\ncosine = 2": "should be between -1 and 1",
    "[inputs.x]\nlow = 2\nhigh = 1": "above high = 1",
    "[inputs.x]\nvalues = [1]\nlow = 0": "has no effect beside 'values'",
    "[inputs.x]\nsizes = { 1 = 2 }\nshapes = [[1]]": "has no effect beside 'shapes'",
    "[source]\nsha256 = 'abc'": "should be 64 hexadecimal digits",
    "[source]\nwheel = 'a>=1'\nmember = 'b'\nsha256 = 'c'": "should pin one version",
    "[source]\npath = 'a.onnx'\nwheel = 'a==1'": "names 2 sources",
    "[source]\nbuilder = 'build'": "should name a file and a function",
    "[placement]\nmin_share = 2": "a share lies between 0 and 1",
    "[[known_failure]]\nstage = 'later'\nreason = 'r'": "stage",
    "[sensitivity]\nminimum = 3": "lies between 0 and 1",
}


@pytest.mark.parametrize("text", CARDS)
def test_a_card(tmp_path: Path, text: str) -> None:
    card = tmp_path / "net.model.toml"
    card.write_text(text, "utf-8")
    with pytest.raises(CardError) as caught:
        read(card)
    assert CARDS[text] in str(caught.value)
    assert "net.model.toml" in str(caught.value)


def _external(path: Path) -> Path:
    return with_external_data(path, "weights.bin")


def _cut_data(path: Path) -> None:
    _external(path)
    (path.parent / "weights.bin").write_bytes(b"1")


def _data_left_behind(path: Path) -> None:
    _external(path)
    (path.parent / "weights.bin").unlink()


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pointer": (
        lambda path: path.write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"
        ),
        "git lfs pull",
    ),
    "nothing": (lambda path: path.touch(), "is empty (0 bytes)"),
    "a page": (
        lambda path: path.write_text("<!doctype html><title>404</title>"),
        "it is a web page",
    ),
    "a pickle": (
        lambda path: path.write_bytes(b"\x80\x04\x95" + bytes(60)),
        "a Python pickle",
    ),
    "a checkpoint": (
        lambda path: path.write_bytes(b"PK\x03\x04" + bytes(60)),
        "torch.onnx.export",
    ),
    "half a model": (
        lambda path: path.write_bytes(linear().SerializeToString()[:100]),
        "is truncated",
    ),
    "data left behind": (
        _data_left_behind,
        "there is no file 'weights.bin' beside the model",
    ),
    "data cut short": (_cut_data, "is truncated"),
    "a folder": (lambda path: path.mkdir(), "Is a directory"),
    "no graph": (
        lambda path: path.write_bytes(onnx.ModelProto(ir_version=9).SerializeToString()),
        "it has no graph",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_model(tmp_path: Path, name: str) -> None:
    make, words = FILES[name]
    make(tmp_path / "net.onnx")
    with pytest.raises(ModelError) as caught:
        _ = Model(tmp_path / "net.onnx").external_files
    assert words in str(caught.value)


CALLS: dict[str, tuple[Callable[[], object], type[HarnessError], str]] = {
    "no file": (lambda: onnx_harness.verify("no.onnx"), ModelError, "there is no file no.onnx"),
    "a misspelt variant": (lambda: onnx_harness.verify(linear(), variant="simplfy"), UsageError, "Did you mean"),
    "a group": (lambda: onnx_harness.verify(linear(), variant="default"), UsageError, "is a group of variants"),
    "a provider": (lambda: onnx_harness.verify(linear(), provider="CPU"), UsageError, "Did you mean 'cpu'?"),
    "a setting": (lambda: onnx_harness.verify(linear(), sed=1), UsageError, ("there is no setting "
                                                                            "'sed' here. Did")),
    "rtol alone": (lambda: onnx_harness.verify(linear(), rtol=1e-3), UsageError, "go together"),
    "inputs that aren't there": (
        lambda: onnx_harness.verify(linear(), inputs="no.npz"), InputError, ("there is no file "
                                                                            "no.npz")
    ),
    "both": (
        lambda: onnx_harness.verify(linear(), candidate=linear(), reference=linear()), UsageError, "exclude one another"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_call_of_the_library(name: str) -> None:
    call, error, words = CALLS[name]
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


def test_they_are_a_hundred() -> None:
    assert (
        len(COMMANDS) + len(OPTIONS) + len(PROJECTS) + len(CARDS) + len(FILES) + len(CALLS)
        >= 100
    )


def test_inputs_that_do_not_fit_are_named(tmp_path: Path) -> None:
    save(linear(), tmp_path / "net.onnx")
    for name, values, words in (
        ("z", np.zeros((2, 4), np.float32), "z"),
        ("x", np.zeros((2, 9), np.float32), "x"),
    ):
        with pytest.raises(HarnessError) as caught:
            onnx_harness.compare(
                tmp_path / "net.onnx", tmp_path / "net.onnx", inputs={name: values}
            )
        assert words in json.dumps(str(caught.value))
