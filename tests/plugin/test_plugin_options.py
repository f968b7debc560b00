"""What is asked for on the command line and in pyproject.toml, and what is refused before anything
runs.
"""

from __future__ import annotations

import pytest

from tests.models import linear, save

USAGE = pytest.ExitCode.USAGE_ERROR

OWNER = """
    def pytest_addoption(parser):
        parser.addoption("--provider", default="nobody")

    def pytest_report_header(config):
        return f"theirs: {config.getoption('--provider')}, ours: {config.getoption('--onnx-provider')}"
"""


@pytest.fixture(autouse=True)
def _model(pytester: pytest.Pytester) -> None:
    save(linear(), pytester.path / "lin.onnx")


def collect(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess("--collect-only", "-q", *args)


def cells(result: pytest.RunResult) -> list[str]:
    """``VARIANT-PROVIDER`` of the accuracy tests that were collected."""
    return [
        line.partition("[")[2].rstrip("]")
        for line in result.outlines
        if "::test_accuracy" in line
    ]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["--provider", "cudda"],
            "there is no execution provider 'cudda'. Did you mean 'cuda'?*",
        ),
        (
            ["--variant", "simplfy"],
            "there is no variant or group 'simplfy'. Did you mean 'simplify'?*",
        ),
        (
            ["--variant", "simplify+optimise"],
            "there is no transform 'optimise'. Did you mean 'optimize'?*",
        ),
        (
            ["--variant", "fp16(max=1)"],
            "transform 'fp16' has no option 'max'.*Known: *max_finite_val*",
        ),
        (
            ["--variant", "fp16(max_finite_val='x')"],
            "option 'max_finite_val' of *'fp16' is a float; 'x' isn't*",
        ),
        (
            ["--variant", "Simplify!"],
            "*step 'Simplify!' isn't a name: use a-z, 0-9, '_' and '.'*",
        ),
        (["--rtol", "0.1"], "--rtol and --atol go together: give both, or neither*"),
        (["--atol", "0"], "--rtol and --atol go together: give both, or neither*"),
        (["--rtol", "-1", "--atol", "0"], "rtol is -1.0; it has to be 0 or more*"),
        (["--min-placement", "2"], "min_placement is 2.0; it has to be between 0 and 1"),
        (["--input-sets", "0"], "input_sets is 0; it has to be 1 or more"),
        (["--cell-timeout", "0"], "cell_timeout is 0.0; it has to be more than 0 seconds"),
    ],
)
def test_what_cannot_be_honoured_is_a_usage_error(
    pytester: pytest.Pytester, args: list[str], said: str
) -> None:
    result = collect(pytester, "lin.onnx", *args)
    assert result.ret == USAGE
    result.stderr.fnmatch_lines([f"ERROR: {said}"])
    assert cells(result) == []


@pytest.mark.parametrize("value", ["many", "1.5", ""])
def test_a_number_has_to_be_one(pytester: pytest.Pytester, value: str) -> None:
    result = collect(pytester, "lin.onnx", f"--input-sets={value}")
    assert result.ret == USAGE
    result.stderr.fnmatch_lines([f"*--input-sets*invalid int value: '{value}'"])


def test_an_option_is_the_same_with_and_without_its_prefix(
    pytester: pytest.Pytester,
) -> None:
    for prefix in ("--", "--onnx-"):
        result = collect(
            pytester, "lin.onnx", f"{prefix}provider=cuda", f"{prefix}variant", "original"
        )
        assert cells(result) == ["original-cuda"]


def test_what_is_asked_for_twice_is_done_once(pytester: pytest.Pytester) -> None:
    twice = ["--provider=cpu", "--variant=original", "--variant=ort.disable"] * 2
    assert cells(collect(pytester, "lin.onnx", *twice)) == [
        "original-cpu",
        "ort.disable-cpu",
    ]


def test_the_short_options_are_listed_in_the_help(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--help")
    result.stdout.fnmatch_lines(
        ["*--onnx-provider*", "*--onnx-report-dir*", "*--provider*", "*--report-dir*"]
    )


BOTH = ["lin.onnx", "--provider", "them", "--onnx-provider", "cpu", "--variant", "original"]


def test_a_conftest_may_own_the_short_option(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(OWNER)
    result = pytester.runpytest_inprocess("--collect-only", *BOTH)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["theirs: them, ours: ['cpu']", "*test_accuracy?original-cpu?*"]
    )


@pytest.mark.parametrize(
    "first", [True, False], ids=["loaded before ours", "loaded after ours"]
)
def test_another_plugin_may_own_the_short_option(
    pytester: pytest.Pytester, first: bool
) -> None:
    pytester.makepyfile(theirs=OWNER)
    pytester.syspathinsert()
    order = ["-p", "theirs"] if first else ["-p", "onnx_harness", "-p", "theirs"]
    result = pytester.runpytest_subprocess(*order, *BOTH, "--collect-only")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["theirs: them, ours: ['cpu']", "*test_accuracy?original-cpu?*"]
    )


def test_a_conftest_met_during_collection_may_own_the_short_option(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        **{"deep/er/conftest": OWNER, "deep/er/test_theirs": "def test_theirs(): pass"}
    )
    found = collect(
        pytester, "--onnx-variant", "original", ".", "lin.onnx", "-k", "theirs or accuracy"
    )
    assert found.ret == pytest.ExitCode.OK
    found.stdout.fnmatch_lines(
        ["deep/er/test_theirs.py::test_theirs", "lin.onnx::test_accuracy?original-cpu?"]
    )


def test_pyproject_gives_defaults_and_names_variants(pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml(
        """
        [tool.onnx-harness]
        provider = ["cuda", "cpu"]
        variant = "wide"
        [tool.onnx-harness.variants]
        wide = "simplify+fp16.io32(max_finite_val=65504)"
        """
    )
    assert cells(collect(pytester, "lin.onnx")) == ["wide-cuda", "wide-cpu"]
    overridden = collect(
        pytester,
        "lin.onnx",
        "--provider",
        "cpu",
        "--variant",
        "original",
        "--variant",
        "wide",
    )
    assert cells(overridden) == ["original-cpu", "wide-cpu"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            "[tool.onnx-harness]\nvariannt = 'fp16'",
            "?tool.onnx-harness? has no key 'variannt'. Did you mean 'variant*",
        ),
        (
            "[tool.onnx-harness]\nseed = '1'",
            "?tool.onnx-harness? seed = '1': it takes a whole number",
        ),
        ("[tool.onnx-harness]\nrtol = 0.1", "--rtol and --atol go together*"),
        (
            "[tool.onnx-harness]\nprovider = 'gpu'",
            "there is no execution provider 'gpu'.*Known: cpu, cuda,*",
        ),
        (
            "[tool.onnx-harness.variants]\n'My-Own' = 'fp16'",
            "*variant 'My-Own' isn't a name: use a-z*",
        ),
        (
            "[tool.onnx-harness]\nvariant = 'x'\n[tool.onnx-harness.variants]\nx = 'fp61'",
            "*variant 'x' (fp61): *'fp61'. Did you mean 'fp16'*",
        ),
        (
            "[tool.onnx-harness.variants]\nsimplify = 'fp16'",
            "*'simplify' is called as one that is built in*",
        ),
    ],
)
def test_a_table_that_cannot_be_honoured_is_a_usage_error(
    pytester: pytest.Pytester, table: str, said: str
) -> None:
    pytester.makepyprojecttoml(table)
    result = collect(pytester, "lin.onnx")
    assert result.ret == USAGE
    result.stderr.fnmatch_lines([f"ERROR: {said}"])


def test_asking_for_a_variant_of_no_model_is_no_success(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_theirs(): pass")
    result = pytester.runpytest_inprocess(
        "test_asking_for_a_variant_of_no_model_is_no_success.py", "--variant", "fp16"
    )
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["*asked for, and no cell was judged. Name a .onnx*"])


def test_deselecting_every_cell_is_no_success(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess(
        "lin.onnx", "--variant", "original", "-k", "nothing_of_the_kind"
    )
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "under xdist"])
def test_a_provider_that_cannot_be_used_refuses_the_run(
    pytester: pytest.Pytester, workers: list[str]
) -> None:
    pytester.makepyfile("def test_theirs(): pass")
    result = pytester.runpytest_subprocess(
        ".", "lin.onnx", "--provider", "cuda", "--report-dir", "reports", *workers
    )
    assert result.ret == USAGE
    assert "passed" not in result.stdout.str()
    result.stderr.fnmatch_lines(
        [
            "ERROR: provider 'cuda' was asked for and can't be used here: *built without "
            "CUDAExecutionProvider."
            " Mend: * pip install 'onnx-harness?cuda?'*",
            "`onnx-harness doctor` shows every provider. Nothing was run.",
        ]
    )
    assert not (pytester.path / "reports").exists()


def test_what_cannot_run_can_still_be_collected(pytester: pytest.Pytester) -> None:
    result = collect(pytester, "lin.onnx", "--provider", "cuda", "--variant", "original")
    assert (result.ret, cells(result)) == (pytest.ExitCode.OK, ["original-cuda"])


def test_memory_is_given_in_any_unit(pytester: pytest.Pytester) -> None:
    for size in ("4GB", "500MiB", "4000000000"):
        assert collect(pytester, "lin.onnx", "--cell-memory", size).ret == pytest.ExitCode.OK
    refused = collect(pytester, "lin.onnx", "--cell-memory", "lots")
    assert refused.ret == USAGE
    refused.stderr.fnmatch_lines(
        ["*--cell-memory: 'lots' isn't a size; write 500M, 4G or a number of bytes"]
    )
