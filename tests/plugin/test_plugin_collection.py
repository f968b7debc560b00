"""What is collected and what isn't, and that other people's tests don't notice the plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models import linear, save

DEFAULT = [
    "original",
    "optimize",
    "simplify",
    "simplify+optimize",
    "fp16.io32",
    "simplify+fp16.io32",
]


def ids(pytester: pytest.Pytester, *args: str | Path) -> list[str]:
    """Node ids that ``pytest --collect-only`` lists."""
    result = pytester.runpytest_inprocess("--collect-only", "-q", *args)
    return [line for line in result.outlines if "::" in line]


def test_a_named_model_has_two_tests_for_each_default_variant(
    pytester: pytest.Pytester,
) -> None:
    save(linear(), pytester.path / "lin.onnx")
    assert ids(pytester, "lin.onnx") == [
        f"lin.onnx::{test}[{variant}-cpu]"
        for variant in DEFAULT
        for test in ("test_accuracy", "test_latency")
    ]


def test_every_provider_that_was_asked_for_has_its_cells(pytester: pytest.Pytester) -> None:
    save(linear(), pytester.path / "lin.onnx")
    found = ids(
        pytester,
        "lin.onnx",
        "--provider=cuda",
        "--provider=cpu",
        "--variant=original",
        "-k",
        "accuracy",
    )
    assert found == [
        "lin.onnx::test_accuracy[original-cuda]",
        "lin.onnx::test_accuracy[original-cpu]",
    ]


def test_a_model_in_a_folder_is_left_alone(pytester: pytest.Pytester) -> None:
    save(linear(), pytester.path / "folder" / "lin.onnx")
    pytester.makepyfile(**{"folder/test_theirs": "def test_theirs(): pass"})
    assert ids(pytester, "folder") == ids(pytester) == ["folder/test_theirs.py::test_theirs"]


def test_a_model_in_a_folder_of_models_is_collected(pytester: pytest.Pytester) -> None:
    save(linear(), pytester.path / "exports" / "lin.onnx")
    save(linear(), pytester.path / "drafts" / "other.onnx")
    pytester.makeini("[pytest]\nonnx_model_paths = exports")
    assert ids(pytester, "--variant", "original", "-k", "accuracy") == [
        "exports/lin.onnx::test_accuracy[original-cpu]"
    ]


@pytest.mark.parametrize(
    "named",
    [
        ["."],
        ["exports/lin.onnx"],
        ["exports/lin.onnx", "exports/lin.model.toml"],
        [".", "exports/lin.onnx"],
    ],
)
def test_a_model_and_its_card_are_collected_once(
    pytester: pytest.Pytester, named: list[str]
) -> None:
    save(linear(), pytester.path / "exports" / "lin.onnx")
    (pytester.path / "exports" / "lin.model.toml").write_text(
        "[model]\nsummary = 'linear'\n"
    )
    pytester.makeini("[pytest]\nonnx_model_paths = exports")
    (found,) = ids(pytester, *named, "--variant=original", "-k=accuracy")
    assert found.startswith("exports/lin.")


def test_a_card_with_a_wrong_key_is_refused_where_it_lies(pytester: pytest.Pytester) -> None:
    save(linear(), pytester.path / "lin.onnx")
    (pytester.path / "lin.model.toml").write_text("[model]\nsumary = 'linear'\n")
    # The card beside a model is its card.
    result = pytester.runpytest_inprocess("lin.onnx", "--variant=original", "-k=accuracy")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=1)
    said = " ".join(result.stdout.str().split())  # the lines are wrapped
    assert (
        "lin.model.toml, line 2: model.sumary isn't a key of a card. Did you mean 'summary'?"
        in said
    )


def test_a_card_with_a_wrong_key_beside_its_model_is_one_error(
    pytester: pytest.Pytester,
) -> None:
    save(linear(), pytester.path / "exports" / "lin.onnx")
    card = pytester.path / "exports" / "lin.model.toml"
    card.write_text("[model]\nsumary = 'linear'\n", "utf-8")
    pytester.makeini("[pytest]\nonnx_model_paths = exports")
    result = pytester.runpytest_inprocess("exports", "--variant=original", "-k=accuracy")
    result.assert_outcomes(failed=1)


def test_a_model_is_collected_though_its_folder_is_named_too(
    pytester: pytest.Pytester,
) -> None:
    save(linear(), pytester.path / "lin.onnx")
    assert ids(pytester, ".", "lin.onnx", "--variant=original", "-k=accuracy") == [
        "lin.onnx::test_accuracy[original-cpu]"
    ]


def test_a_cell_is_chosen_by_its_node_id_and_by_keyword(pytester: pytest.Pytester) -> None:
    save(linear(), pytester.path / "lin.onnx")
    wanted = "lin.onnx::test_accuracy[simplify+fp16.io32-cpu]"
    assert ids(pytester, wanted) == [wanted]
    assert ids(pytester, "lin.onnx", "-k", "accuracy and simplify+fp16") == [wanted]


def test_the_tests_of_others_run_as_without_the_plugin(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys
        import pytest

        @pytest.mark.parametrize("value", [1, 2])
        def test_passes(value): assert value

        def test_fails(): assert [1] == [2]

        def test_nothing_of_weight_was_imported():
            assert {"onnx", "onnxruntime", "numpy"}.isdisjoint(sys.modules)
        """
    )
    save(linear(), pytester.path / "lin.onnx")
    told = {}
    for without in (["-p", "no:onnx_harness"], []):
        result = pytester.runpytest_subprocess(*without, "-v", "-p", "no:cacheprovider")
        result.assert_outcomes(passed=3, failed=1)
        kept = [
            line
            for line in result.outlines
            if not line.startswith(("plugins:", "====", "platform"))
        ]
        told[bool(without)] = kept
    assert told[True] == told[False]
    assert not (pytester.path / "reports").exists()


@pytest.mark.parametrize("shard", [(), ("--shard=1/2", "--report-dir=reports")])
def test_collection_imports_nothing_of_weight(
    pytester: pytest.Pytester, shard: tuple[str, ...]
) -> None:
    """A shard is chosen before a model is opened, too: the other one is nothing that could be."""
    save(linear(), pytester.path / "lin.onnx")
    (pytester.path / "broken.onnx").write_text("this is no model")
    pytester.makepyfile(
        watch="""
        import sys

        def pytest_sessionfinish():
            weighty = ("onnx", "onnxruntime", "numpy", "google.protobuf", "scipy", "hypothesis")
            sys.stderr.write(f"imported: {[name for name in weighty if name in sys.modules]}")
        """
    )
    result = pytester.runpytest_subprocess(
        *("--collect-only", "-p", "watch", "lin.onnx", "broken.onnx", "--variant", "all"),
        *shard,
    )
    assert result.ret == pytest.ExitCode.OK
    result.stderr.fnmatch_lines(["imported: []"])


def test_the_models_that_an_earlier_run_wrote_are_left_alone_unless_named(
    pytester: pytest.Pytester,
) -> None:
    for folder in (pytester.path / "mine", pytester.path / "rep/repro/cell"):
        folder.mkdir(parents=True)
        save(linear(), folder / "m.onnx")
    asked = ("--collect-only", "-q", "--variant", "simplify")
    # Of a user.
    pytester.runpytest_inprocess(".", *asked).stdout.fnmatch_lines(["rep/repro/*"])
    (pytester.path / "rep/results.json").write_text("{}")
    pytester.runpytest_inprocess(".", *asked).stdout.no_fnmatch_line("rep/repro/*")
    for named in ("rep", "rep/repro/cell/m.onnx"):
        pytester.runpytest_inprocess(named, *asked).stdout.fnmatch_lines(["rep/repro/*"])
