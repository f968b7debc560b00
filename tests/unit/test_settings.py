"""Settings: the project's table read strictly, the command line above it, and ranges held."""

import pickle
import stat
from pathlib import Path
from typing import Any

import psutil
import pytest

from onnx_harness.errors import NameGrammarError, UsageError
from onnx_harness.isolate import Limits
from onnx_harness.settings import Settings
from onnx_harness.settings.project import combine, read_project


def project(folder: Path, table: str) -> dict[str, Any]:
    (folder / "pyproject.toml").write_text(
        f"[tool.onnx-harness]\n{table}\n", encoding="utf-8"
    )
    return read_project(folder)


def test_without_a_word_everything_has_its_default() -> None:
    settings = combine({}, {"provider": None, "variant": [], "rtol": None})
    assert settings == Settings()
    assert (settings.provider, settings.variant, settings.input_sets, settings.seed) == (
        ("cpu",),
        ("default",),
        4,
        0,
    )
    assert settings.report_dir is None
    assert settings.limits == Limits(300.0, psutil.virtual_memory().total * 3 // 4)


def test_a_folder_without_a_project_says_nothing(tmp_path: Path) -> None:
    assert read_project(tmp_path) == {}
    for text in ("", "[tool]", "[tool.other]\nx = 1", "[tool.onnx-harness]"):
        (tmp_path / "pyproject.toml").write_text(text)
        assert read_project(tmp_path) == {}


def test_a_project_says_everything_that_it_can(tmp_path: Path) -> None:
    values = project(
        tmp_path,
        """
        provider = "openvino"
        variant = ["simplify", "fp16"]
        input_sets = 8
        seed = 7
        report_dir = "out/reports"
        rtol = 1
        atol = 1e-3
        min_placement = 0
        cell_timeout = 60
        cell_memory = "4GB"
        latency_budget = 0.5
        sensitivity = true
        [tool.onnx-harness.variants]
        fp16_wide = "simplify+fp16.io32(max_finite_val=65504)"
        """,
    )
    assert combine(values, {}) == Settings(
        provider=("openvino",),
        variant=("simplify", "fp16"),
        variants={"fp16_wide": "simplify+fp16.io32(max_finite_val=65504)"},
        input_sets=8,
        seed=7,
        report_dir=tmp_path / "out/reports",
        rtol=1.0,
        atol=1e-3,
        min_placement=0.0,
        cell_timeout=60.0,
        cell_memory=4_000_000_000,
        latency_budget=0.5,
        sensitivity=True,
    )
    assert {type(values[key]) for key in ("rtol", "cell_timeout", "min_placement")} == {
        float
    }


def test_an_absolute_report_folder_stays_where_it_is(tmp_path: Path) -> None:
    assert project(tmp_path, 'report_dir = "/somewhere/else"')["report_dir"] == Path(
        "/somewhere/else"
    )


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (
            "input-sets = 8",
            r"has no key 'input-sets'\. Did you mean 'input_sets'\? Known: allow_read, atol",
        ),
        ("providers = 'cpu'", r"has no key 'providers'\. Did you mean 'provider'\?"),
        ("inputs = 8", "has no key 'inputs'"),
        ("provider = 1", "provider = 1: it takes a string or a list of strings"),
        ("provider = []", r"provider = \[\]: it takes a string or a list of strings"),
        (
            "variant = ['a', 1]",
            r"variant = \['a', 1\]: it takes a string or a list of strings",
        ),
        ("input_sets = 4.0", r"input_sets = 4\.0: it takes a whole number"),
        ("seed = true", "seed = True: it takes a whole number"),
        ("cell_memory = 'lots'", "cell_memory: 'lots' isn't a size"),
        ("cell_memory = 4.5", r"cell_memory = 4\.5: it takes a whole number"),
        ("rtol = '1e-3'", "rtol = '1e-3': it takes a number"),
        ("cell_timeout = true", "cell_timeout = True: it takes a number"),
        ("sensitivity = 1", "sensitivity = 1: it takes true or false"),
        ("report_dir = 1", "report_dir = 1: it takes a string"),
        ("variants = 'fp16'", "variants = 'fp16': it takes a table of name"),
        ("variants = {a = 1}", "it takes a table of name"),
        ("[tool.onnx-harness.limits]\nrtol = 1", "has no key 'limits'"),
    ],
)
def test_a_value_that_a_key_does_not_take_is_refused(
    tmp_path: Path, table: str, complaint: str
) -> None:
    with pytest.raises(UsageError, match=rf"^\[tool\.onnx-harness\] .*{complaint}"):
        project(tmp_path, table)


def test_a_variant_is_named_by_the_grammar_of_ids(tmp_path: Path) -> None:
    with pytest.raises(
        NameGrammarError,
        match=r"^in \[tool\.onnx-harness\.variants\]: variant 'fp16-wide' isn't",
    ):
        project(tmp_path, 'variants = {fp16-wide = "fp16"}')


@pytest.mark.parametrize(
    "text", ["tool = 3", "[tool]\nonnx-harness = 3", "[[tool.onnx-harness]]\nseed = 1"]
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(
        UsageError,
        match=r"^\[tool\.onnx-harness\] of .*pyproject\.toml should be a table, but '",
    ):
        read_project(tmp_path)


@pytest.mark.parametrize("content", [b"[tool", b"\xff\xfe", b"a = 1\na = 2"])
def test_a_project_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pyproject.toml").write_bytes(content)
    with pytest.raises(UsageError, match=r"pyproject\.toml can't be read: "):
        read_project(tmp_path)


def test_a_project_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "pyproject.toml").touch(mode=stat.S_IRUSR)
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(
        UsageError, match=r"pyproject\.toml can't be read: .*Permission denied"
    ):
        read_project(tmp_path)


def test_the_command_line_is_above_the_project() -> None:
    settings = combine(
        {"provider": ("cuda",), "seed": 7, "input_sets": 8},
        {"provider": ["cpu"], "seed": 0, "input_sets": None},
    )
    assert (settings.provider, settings.seed, settings.input_sets) == (("cpu",), 0, 8)


@pytest.mark.parametrize("key", ["rtol", "atol"])
def test_one_tolerance_alone_is_refused_wherever_it_stands(key: str) -> None:
    with pytest.raises(
        UsageError, match=r"^--rtol and --atol go together: give both, or neither"
    ):
        combine({}, {key: 0.1})
    with pytest.raises(
        UsageError, match=r"^--rtol and --atol go together, in \[tool\.onnx-harness\] too: "
    ):
        combine({key: 0.1}, {})


def test_half_a_pair_is_not_completed_by_the_project() -> None:
    with pytest.raises(UsageError, match=r"^--rtol and --atol go together: "):
        combine({"rtol": 0.1, "atol": 0.2}, {"rtol": 0.3})
    with pytest.raises(UsageError, match=r"^--rtol and --atol go together: "):
        combine({"rtol": 0.1, "atol": 0.2}, {"atol": 0.3})


def test_a_pair_of_tolerances_overrides_and_zero_is_one() -> None:
    assert Settings().tolerance_override is None
    assert combine({"rtol": 0.1, "atol": 0.2}, {}).tolerance_override == (0.1, 0.2)
    assert combine(
        {"rtol": 0.1, "atol": 0.2}, {"rtol": 0.0, "atol": 0.0}
    ).tolerance_override == (
        0.0,
        0.0,
    )


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"rtol": -0.1, "atol": 0.0}, r"rtol is -0\.1; it has to be 0 or more, and finite"),
        (
            {"rtol": 0.0, "atol": float("inf")},
            "atol is inf; it has to be 0 or more, and finite",
        ),
        ({"rtol": float("nan"), "atol": 0.0}, "rtol is nan; "),
        ({"min_placement": 1.01}, r"min_placement is 1\.01; it has to be between 0 and 1"),
        ({"min_placement": -0.5}, "min_placement is "),
        ({"min_placement": float("nan")}, "min_placement is nan; "),
        ({"input_sets": 0}, "input_sets is 0; it has to be 1 or more"),
        ({"seed": -1}, "seed is -1; it has to be 0 or more"),
        ({"cell_timeout": 0.0}, "cell_timeout is 0.0; it has to be more than 0 seconds"),
        ({"cell_timeout": float("nan")}, "cell_timeout is nan; "),
        ({"cell_memory": 0}, "cell_memory is 0; it has to be more than 0 bytes"),
        (
            {"latency_budget": float("inf")},
            "latency_budget is inf; it has to be more than 0 seconds",
        ),
    ],
)
def test_a_value_out_of_its_range_is_refused_wherever_it_stands(
    values: dict[str, Any], complaint: str
) -> None:
    for from_project, from_command in ((values, {}), ({}, values)):
        with pytest.raises(UsageError, match=f"^{complaint}"):
            combine(from_project, from_command)


def test_settings_travel_to_the_worker() -> None:
    settings = combine(
        {"variants": {"ours": "fp16"}, "report_dir": Path("out")}, {"seed": 3}
    )
    assert pickle.loads(pickle.dumps(settings)) == settings
