"""The commands that read models: inspect, transform and compare."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_harness.cell.comparison import Pair, PairOutcome, compare_models
from onnx_harness.cli import UNDONE, applying, main, transform, writing
from onnx_harness.errors import TransformError
from onnx_harness.judging.precision import loosest
from onnx_harness.names import parse_variant
from onnx_harness.settings import Settings
from onnx_harness.transforms import Precision
from tests.models import model, save

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
EVIL = "[red]x[/red]\x1b[31m"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a pyproject.toml, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    # Sentences in one piece, whatever the tests' own terminal.
    monkeypatch.setenv("COLUMNS", "200")


def linear(weights: Any = WEIGHTS) -> onnx.ModelProto:
    """An Identity to remove, a product, a table to look up in, and an If with a body."""
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[batch, 4] x, int64[batch] ids, bool flag) => (float[batch, 3] y, float[batch, 2] e, float r) {
            same = Identity(x)
            y = MatMul(same, w)
            e = Gather(table, ids)
            r = If (flag) <then_branch = t () => (float a) {a = Constant <value = float {1.0}> ()},
                           else_branch = f () => (float b) {b = Constant <value = float {2.0}> ()}>
        }"""
    )
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.asarray(weights), "w"),
            numpy_helper.from_array(table, "table"),
        ]
    )
    return model


def saved(name: str, model: onnx.ModelProto | None = None, **options: Any) -> str:
    onnx.save(model or linear(), name, **options)
    return name


def off_by(amount: float) -> onnx.ModelProto:
    weights = WEIGHTS.copy()
    weights[0, 0] += amount
    return linear(weights)


# inspect


def test_inspect_tells_everything_and_treats_names_as_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = linear()
    model.graph.node[0].input[0] = model.graph.input[0].name = EVIL
    assert main(["inspect", saved("m.onnx", model)]) == 0
    out = capsys.readouterr().out
    assert "[red]x[/red]\\x1b[31m" in out
    assert "\x1b" not in out
    assert "tensor(float)   [batch, 4]" in out
    assert "it indexes the 10 entries" in out
    assert "nodes  6 in 3 graphs" in out
    assert "2 Constant" in out


def test_inspect_prints_only_json_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(saved("m.onnx"))
    Path("m.model.toml").write_text(
        '[model]\nlicense = "MIT"\n[inputs]\nids = { values = [3] }\n'
    )
    assert main(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == "m"
    assert found["license"] == "MIT"
    assert found["bytes"] == path.stat().st_size
    assert found["opsets"] == {"ai.onnx": 17}
    assert found["nodes"] == {
        "Constant": 2,
        "Gather": 1,
        "Identity": 1,
        "If": 1,
        "MatMul": 1,
    }
    assert found["inputs"][0] == {
        "name": "x",
        "kind": "tensor(float)",
        "shape": ["batch", 4],
    }
    assert found["generated"][1]["why"].startswith("The card fixes its values: 3.")
    assert found["problems"] == []


def test_inspect_tells_what_it_can_when_external_data_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    saved("m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    Path("weights.bin").unlink()
    assert main(["inspect", "m.onnx"]) == 1
    out = capsys.readouterr().out
    assert "no file 'weights.bin' beside the model" in out
    assert "1 MatMul" in out


def test_inspect_tells_which_input_cannot_be_generated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (
        '<ir_version: 8, opset_import: ["": 17]> g (complex64[2] x) => (complex64[2] y) {y = '
        "Identity(x)}"
    )
    assert main(["inspect", saved("m.onnx", parser.parse_model(text)), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert "input 'x' is of type complex64" in found["problems"][0]
    assert found["nodes"] == {"Identity": 1}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("text.onnx", "isn't an ONNX file"),
        ("cut.onnx", "is truncated, or isn't an ONNX file"),
        ("modle.onnx", "there is no file modle.onnx. Did you mean 'model.onnx'?"),
        (".", "is a folder; name one of its models: "),
    ],
)
def test_bad_input_is_a_clear_error(
    path: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.onnx").write_text("not a model")
    Path("cut.onnx").write_bytes(Path(saved("model.onnx")).read_bytes()[:-40])
    assert main(["inspect", path]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert told in captured.err


# transform


def test_transform_writes_the_model_and_tells_what_changed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    saved("m.onnx")
    assert (
        main(["transform", "m.onnx", "--variant", "optimize+ort.basic", "-o", "out.onnx"])
        == 0
    )
    out = capsys.readouterr().out
    assert "nodes    6 -> 3" in out
    assert "ort.basic is an option of the session and changes no file" in out
    onnx.checker.check_model(onnx.load("out.onnx"))
    assert sorted(path.name for path in Path().glob("*.onnx*")) == ["m.onnx", "out.onnx"]


def test_transform_prints_only_json_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("pyproject.toml").write_text('[tool.onnx-harness.variants]\nmine = "optimize"\n')
    assert (
        main(["transform", saved("m.onnx"), "--variant", "mine", "-o", "out.onnx", "--json"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["nodes_before"], found["nodes_after"]) == (6, 3)
    assert found["variant"] == "optimize"
    assert found["problems"] == []


def test_a_large_model_is_written_with_its_weights_beside_it() -> None:
    wide = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2, 4] x) => (float[2, 300] y) {y = '
        "MatMul(x, w)}"
    )
    weights = np.arange(1200, dtype=np.float32).reshape(4, 300)
    wide.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    steps = parse_variant("optimize").steps
    written = applying.apply(
        Path(saved("m.onnx", wide)), steps, Path("out.onnx"), inline_bytes=1000
    )
    assert written.external_data == "out.onnx.data"
    assert (
        Path("out.onnx").stat().st_size
        < weights.nbytes
        <= Path("out.onnx.data").stat().st_size
    )
    assert written.bytes_after > weights.nbytes
    np.testing.assert_array_equal(
        numpy_helper.to_array(onnx.load("out.onnx").graph.initializer[0]), weights
    )


@pytest.mark.parametrize(
    ("variant", "told"),
    [
        ("simplfy", "there is no variant or group 'simplfy'. Did you mean 'simplify'?"),
        ("optimize+fp61", "there is no transform 'fp61'. Did you mean 'fp16'?"),
        ("passes", "'passes' is a group of variants; name one, such as pass."),
        (
            "ort.basic",
            "changes no file: ort.basic is an option of the session. Nothing was written.",
        ),
        ("original", "changes no file: it is the empty chain. Nothing was written."),
    ],
)
def test_a_variant_that_makes_no_file_is_refused(
    variant: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transform", saved("m.onnx"), "--variant", variant, "-o", "out.onnx"]) == 2
    assert told in capsys.readouterr().err
    assert not Path("out.onnx").exists()


def sizes_of(path: str) -> list[list[int]]:
    graph = onnx.load(path).graph
    return [
        [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in graph.input
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["--variant", "simplify(overwrite_input_shapes=['x:3,4'])"],
        ["--variant", "simplify+ort.basic", "--overwrite-input-shape", "x:3,4"],
    ],
)
def test_a_shape_of_an_input_can_be_fixed(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transform", saved("m.onnx"), *words, "-o", "out.onnx"]) == 0
    assert sizes_of("out.onnx")[0] == [3, 4]
    assert "problem" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["optimize", "--overwrite-input-shape", "x:3,4"],
            "no step of 'optimize' takes shapes of inputs",
        ),
        (
            ["simplify", "--overwrite-input-shape", "x"],
            "'x' is no shape of an input; one is written NAME:1,3,224,224",
        ),
        (
            ["simplify", "--overwrite-input-shape", "y:3,4"],
            "'y', which is no input of the model",
        ),
    ],
)
def test_a_shape_that_cannot_be_fixed_is_refused(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transform", saved("m.onnx"), "--variant", *words, "-o", "out.onnx"]) != 0
    assert told in capsys.readouterr().err
    assert not Path("out.onnx").exists()


def test_transform_tells_what_each_rule_did_unless_it_shall_be_quiet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = [
        "transform",
        saved("m.onnx"),
        "--variant",
        "simplify",
        "-o",
        "out.onnx",
        "--force",
    ]
    assert main(command) == 0
    assert "simplify: remove nops 1" in capsys.readouterr().out
    assert main([*command, "--quiet"]) == 0
    assert "remove nops" not in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["did"][0].startswith(
        "simplify: remove nops 1"
    )


def quantized_scale(seed: str) -> float:
    """The scale of ``x`` that int8.static finds for the saved model, with inputs of this seed."""
    command = [
        "transform",
        "m.onnx",
        "--variant",
        "simplify+int8.static",
        "-o",
        "out.onnx",
        "--force",
    ]
    assert main([*command, "--input-sets", "2", "--seed", seed]) == 0
    return next(
        float(numpy_helper.to_array(each))
        for each in onnx.load("out.onnx").graph.initializer
        if each.name == "x_scale"
    )


def test_a_step_that_is_calibrated_gets_the_inputs_that_pytest_would_use() -> None:
    saved("m.onnx")
    assert quantized_scale("0") == quantized_scale("0") != quantized_scale("1")
    np.savez(
        "m.npz", x=np.full((1, 4), 1000, np.float32), ids=np.array([1]), flag=np.array(True)
    )
    assert quantized_scale("0") > 1


def test_a_model_without_inputs_for_calibration_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = linear()
    Path("m.model.toml").write_text(
        '[source]\npath = "m.onnx"\n\n[inputs]\nids = { values = [99] }\n'
    )
    assert (
        main(
            [
                "transform",
                saved("m.onnx", model),
                "--variant",
                "int8.static",
                "-o",
                "out.onnx",
            ]
        )
        == 1
    )
    assert (
        "nothing was written, for there are no inputs to calibrate on"
        in capsys.readouterr().err
    )
    assert not Path("out.onnx").exists()


def test_options_for_inputs_are_refused_where_no_step_is_calibrated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        main(
            [
                "transform",
                saved("m.onnx"),
                "--variant",
                "int8.dynamic",
                "-o",
                "out.onnx",
                "--seed",
                "1",
            ]
        )
        == 2
    )
    assert (
        "no step of 'int8.dynamic' is calibrated: --input-sets and --seed have no effect"
        in capsys.readouterr().err
    )


def test_where_one_model_is_made_fp16_is_the_step_and_not_the_group() -> None:
    assert transform.one_variant("fp16", Settings()).spelling == "fp16"


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("there.onnx", "there.onnx exists; --force overwrites it"),
        ("m.onnx", "m.onnx is the model itself; name another file"),
        ("no/out.onnx", "there is no folder no to write out.onnx to"),
    ],
)
def test_transform_overwrites_nothing_unasked(
    output: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("there.onnx").write_text("mine")
    assert main(["transform", saved("m.onnx"), "--variant", "optimize", "-o", output]) == 2
    assert told in capsys.readouterr().err
    assert Path("there.onnx").read_text() == "mine"


def test_a_step_that_does_not_apply_leaves_an_older_file_alone() -> None:
    Path("out.onnx").write_text("mine")
    half = linear(WEIGHTS.astype(np.float16))
    half.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    half.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    with pytest.raises(
        Exception,
        match=r"step 'int8.dynamic' doesn't apply to m\.onnx: .* Nothing was written\.",
    ):
        applying.apply(
            Path(saved("m.onnx", half)),
            parse_variant("int8.dynamic").steps,
            Path("out.onnx"),
            10**9,
        )
    assert Path("out.onnx").read_text() == "mine"


@pytest.mark.parametrize("room", [True, False])
def test_what_a_step_makes_of_a_large_model_is_set_aside_for_the_next(
    monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    weights = np.linspace(-1, 1, 1 << 19, dtype=np.float32).reshape(4, -1)
    path, steps = (
        Path(saved("m.onnx", linear(weights))),
        parse_variant("simplify+fp16").steps,
    )
    applying.apply(path, steps, Path("whole.onnx"), 10**9)
    asides: list[Path] = []
    set_aside = applying._set_aside

    def noted(made: onnx.ModelProto, folder: str) -> Any:
        asides.append(Path(folder))
        if not room:
            raise OSError(28, "No space left on device")
        kept = set_aside(made, folder)
        assert [file.stat().st_size >= weights.nbytes for file in kept.external_files] == [
            True
        ]
        return kept

    monkeypatch.setattr(applying, "_set_aside", noted)
    monkeypatch.setattr(applying, "_LARGE_BYTES", weights.nbytes - 1)
    applying.apply(path, steps, Path("aside.onnx"), 10**9)
    assert [folder.parent for folder in asides] == [Path()]
    assert not asides[0].exists()
    aside, whole = onnx.load("aside.onnx"), onnx.load("whole.onnx")
    for tensor in aside.graph.initializer:
        if not tensor.doc_string:  # said to be empty, which is the same
            tensor.ClearField("doc_string")
    assert aside == whole
    asides.clear()
    monkeypatch.setattr(applying, "_LARGE_BYTES", 2 * weights.nbytes)
    applying.apply(path, steps, Path("small.onnx"), 10**9)
    assert asides == []


def test_a_disk_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "save_model", full)
    with pytest.raises(
        TransformError,
        match=r"out\.onnx can't be written: No space left on device\. Mend: free some",
    ):
        applying.apply(
            Path(saved("m.onnx")), parse_variant("optimize").steps, Path("out.onnx"), 10**9
        )
    assert not list(Path().glob(".out.onnx*"))


def test_a_crash_of_a_library_names_the_step_and_the_signal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # onnxoptimizer 0.4.2 reads an empty Shape backwards.
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[2, 3] x, int64[n] s) => (int64[m] y) {
            c = Shape <start = 2, end = 1> (x)
            y = Concat <axis = 0> (c, s)
        }"""
    )
    assert (
        main(
            [
                "transform",
                saved("m.onnx", model),
                "--variant",
                "onnxoptimizer",
                "-o",
                "out.onnx",
            ]
        )
        == 1
    )
    assert (
        "ended at step onnxoptimizer: the worker process was killed by SIG"
        in capsys.readouterr().err
    )
    assert not Path("out.onnx").exists()


def test_a_time_limit_ends_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "transform",
        saved("m.onnx"),
        "--variant",
        "optimize",
        "-o",
        "out.onnx",
        "--cell-timeout",
        "0.001",
    ]
    assert main(words) == 1
    assert "did not end within 0.001 s (--cell-timeout)" in capsys.readouterr().err


def test_a_changed_interface_is_told_though_the_file_is_written() -> None:
    saved("m.onnx")
    changed = linear()
    changed.graph.output[0].name = "z"
    changed.graph.node[1].output[0] = "z"
    saved("out.onnx", changed)
    verdict = writing.find_objections(
        Path("m.onnx"), Path("out.onnx"), parse_variant("optimize")
    )
    assert verdict.problems() == [
        "the model's interface changed: output 'y' is gone",
        "the model's interface changed: output 'z' is new",
    ]


def test_an_invalid_result_is_told_and_an_invalid_original_excuses_it() -> None:
    broken = linear()
    broken.graph.node[0].op_type = "Indentity"
    saved("m.onnx")
    saved("out.onnx", broken)
    verdict = writing.find_objections(
        Path("m.onnx"), Path("out.onnx"), parse_variant("optimize")
    )
    assert "the ONNX checker rejects the written model: " in verdict.problems()[0]
    excused = writing.find_objections(
        Path("out.onnx"), Path("out.onnx"), parse_variant("optimize")
    )
    assert excused.problems() == []
    assert "the ONNX checker rejects the original too: " in excused.notes()[0]


# compare


def compared(a: str, b: str, **options: Any) -> PairOutcome:
    """The outcome without a worker."""
    from onnx_harness.cli.common import find_model

    card, path = find_model(Path(a))
    pair = Pair(path, Path(b), card, "cpu", None, float16_io=False, settings=Settings())
    return compare_models(dataclasses.replace(pair, **options))


def test_compare_passes_a_model_that_computes_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    saved("a.onnx")
    assert main(["compare", "a.onnx", saved("b.onnx", off_by(1e-7))]) == 0
    out = capsys.readouterr().out
    assert (
        "B computes what A does, within the tolerance, on 5 input sets and 13 unusual ones"
        in out
    )


def test_compare_tells_every_failing_output_and_the_tolerance_that_would_pass() -> None:
    saved("a.onnx")
    saved("b.onnx", off_by(0.1))
    words = [
        sys.executable,
        "-c",
        "import sys; from onnx_harness.cli import main; sys.exit(main())",
    ]
    run = subprocess.run(
        [*words, "compare", "a.onnx", "b.onnx"], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 1, run.stderr
    assert "B departs from A: 1 output" in run.stdout
    assert "would pass with rtol" in run.stdout
    assert "\n  y        FAIL" in run.stdout
    assert "\n  e        pass" in run.stdout


def test_compare_and_pytest_have_one_judge(capsys: pytest.CaptureFixture[str]) -> None:
    """A change within the tolerance that the model's noise doesn't explain is called.

    A copy is none.
    """
    scaled = WEIGHTS.copy()
    scaled[:, 0] *= np.float32(1.00004)
    assert main(["compare", saved("a.onnx"), saved("copy.onnx")]) == 0
    assert main(["compare", "a.onnx", saved("b.onnx", linear(scaled))]) == 1
    assert "tolerance of the card mends that" in " ".join(capsys.readouterr().out.split())


def test_compare_prints_only_json_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    saved("a.onnx")
    words = [
        "compare",
        "a.onnx",
        saved("b.onnx", off_by(0.1)),
        "--json",
        "--input-sets",
        "2",
        "--seed",
        "7",
    ]
    assert main(words) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is False
    assert found["seed"] == 7
    assert [name.split(" ")[0] for name in found["input_sets"][:4]] == [
        "set",
        "set",
        "every",
        "unusual:",
    ]
    assert found["accuracy"]["outputs"]["y"]["minimum_tolerance"] > 1e-4
    assert {failure["output"] for failure in found["failures"]} == {"y"}
    assert found["placement"]["share"] == 1.0


def test_compare_takes_given_inputs() -> None:
    saved("a.onnx")
    saved("b.onnx", off_by(0.1))
    given = {
        "x": np.zeros((2, 4), np.float32),
        "ids": np.array([1, 9]),
        "flag": np.array(True),
    }
    np.savez("zeros.npz", **given)  # type: ignore[arg-type]
    outcome = compared("a.onnx", "b.onnx", recorded=Path("zeros.npz"))
    assert outcome.reason is None  # zeros don't show a wrong weight
    assert "zeros.npz" in outcome.input_sets[0]


def test_given_inputs_make_options_of_generated_ones_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["compare", "a.onnx", "b.onnx", "--inputs", "i.npz", "--seed", "1"]) == 2
    assert "--input-sets and --seed have no effect beside it" in capsys.readouterr().err


def test_float16_inputs_are_a_difference_until_they_are_allowed() -> None:
    saved("a.onnx")
    applying.apply(Path("a.onnx"), parse_variant("fp16").steps, Path("b.onnx"), 10**9)
    refused = compared("a.onnx", "b.onnx")
    assert refused.accuracy is None
    assert refused.reason is not None
    assert "input 'x' was tensor(float) and is tensor(float16)" in refused.reason
    allowed = compared("a.onnx", "b.onnx", float16_io=True)
    assert allowed.reason is None
    assert allowed.interface == ()
    assert allowed.precision is Precision.FP16


def test_a_dropped_output_departs() -> None:
    saved("a.onnx")
    fewer = linear()
    del fewer.graph.output[1]
    outcome = compared("a.onnx", saved("b.onnx", fewer))
    assert outcome.interface == ("output 'e' is gone",)
    assert outcome.reason is not None
    assert [failure.output for failure in outcome.failures] == ["e"]


def test_a_model_that_does_not_open_departs() -> None:
    saved("a.onnx")
    custom = linear()
    custom.graph.node[0].domain = "nowhere"
    custom.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))
    outcome = compared("a.onnx", saved("b.onnx", custom))
    assert outcome.reason is not None
    assert outcome.reason.startswith("B can't be opened on cpu: ")


def test_a_reference_that_does_not_open_is_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    custom = linear()
    custom.graph.node[0].domain = "nowhere"
    custom.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))
    saved("b.onnx")
    assert main(["compare", saved("a.onnx", custom), "b.onnx"]) == UNDONE
    err = capsys.readouterr().err
    assert err.startswith("onnx-harness: error: A (a.onnx): ")
    assert "nowhere" in err or "not a registered function/op" in err


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (
            ["--provider", "cud"],
            2,
            "there is no execution provider 'cud'. Did you mean 'cuda'?",
        ),
        (["--rtol", "1"], 2, "--rtol and --atol go together"),
        (["--input-sets", "0"], 2, "input_sets is 0; it has to be 1 or more"),
        (["--inputs", "no.npz"], 2, "there is no file no.npz"),
    ],
)
def test_options_of_compare_are_checked(
    options: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", saved("a.onnx"), "a.onnx", *options]) == code
    assert told in capsys.readouterr().err


def test_the_tolerance_is_that_of_what_b_has_and_a_has_not() -> None:
    single, half = linear(), linear(WEIGHTS.astype(np.float16))
    quantized = linear()
    quantized.graph.node[0].op_type = "DequantizeLinear"
    assert loosest(single, beyond=single) is Precision.FP32
    assert loosest(half, beyond=single) is Precision.FP16
    assert loosest(half, beyond=half) is Precision.FP32
    assert loosest(quantized, beyond=half) is Precision.INT8


def test_transform_writes_what_no_conversion_changes_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save(
        model(
            "(float[n] x) => (float[n] y) { axis = Constant<value_int = 0>() y = CumSum(x, axis) }"
        ),
        tmp_path / "sum.onnx",
    )
    assert main(["transform", "sum.onnx", "--variant", "fp16.io32", "-o", "out.onnx"]) == 0
    assert (
        "nothing was converted: what the model computes stays float32 (CumSum)"
        in "".join(capsys.readouterr())
    )
    assert (
        onnx.load("out.onnx").graph.output[0].type.tensor_type.elem_type
        == onnx.TensorProto.FLOAT
    )
