"""Models in the layouts of others: hubs, folders, names of any kind.

And what is wrong with one is its own affair.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.models import linear, save
from tests.plugin.running import run_pytest
from tests.unit.test_model_links import hub


def names(pytester: pytest.Pytester, *args: str) -> list[str]:
    """The model of each cell that ``pytest --collect-only`` has."""
    items = pytester.inline_genitems(*args, "--variant=original", "-k=accuracy")[0]
    cells = [item.callspec.params["onnx_cell"] for item in items]  # type: ignore[attr-defined]
    return list(dict.fromkeys(cell.card.name for cell in cells))


def test_models_of_one_stem_are_told_apart_by_their_folders(
    pytester: pytest.Pytester,
) -> None:
    for folder in ("yolo/onnx", "bert/onnx"):
        save(linear(), pytester.path / folder / "model.onnx")
    assert names(pytester, "yolo/onnx/model.onnx", "bert/onnx/model.onnx") == [
        "yolo.model",
        "bert.model",
    ]


def test_a_name_does_not_hang_on_which_models_of_a_folder_are_named(
    pytester: pytest.Pytester,
) -> None:
    for folder in ("yolo", "bert"):
        save(linear(), pytester.path / "models" / folder / "model.onnx")
    pytester.makeini("[pytest]\nonnx_model_paths = models")
    assert names(pytester, "models/yolo/model.onnx") == ["yolo.model"]


def test_names_of_other_scripts_and_signs(pytester: pytest.Pytester) -> None:
    files = ["🚀.onnx", "モデル.onnx", "my model (v2).onnx", "A b.onnx", "a_b.onnx"]
    for file in files:
        save(linear(), pytester.path / file)
    found = names(pytester, *files)
    assert len(set(found)) == len(files)
    assert found[2] == "my_model_v2"


def test_a_named_folder_is_collected_where_cells_were_asked_for(
    pytester: pytest.Pytester,
) -> None:
    save(linear(), pytester.path / "exports" / "deep" / "lin.onnx")
    assert names(pytester, "exports") == ["lin"]


def test_a_named_folder_of_models_that_is_not_collected_says_what_to_do(
    pytester: pytest.Pytester,
) -> None:
    for name in "ab":
        save(linear(), pytester.path / "exports" / f"{name}.onnx")
    result = pytester.runpytest_inprocess("exports")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(
        [
            "*2 models in exports (exports/a.onnx …): not collected. Name them*onnx_model_paths*"
        ]
    )


def test_a_bad_card_a_bad_file_and_a_hub_in_one_run(tmp_path: Path) -> None:
    through_links = hub(tmp_path)
    save(linear(), tmp_path / "carded.onnx")
    (tmp_path / "carded.model.toml").write_text("[nope]\n")
    (tmp_path / "empty.onnx").touch()
    files = [str(path) for path in (through_links, tmp_path / "plain/model.onnx")]
    ended = run_pytest(
        tmp_path, *files, "carded.onnx", "empty.onnx", "--variant=original", "--variant=simplify",
        "--variant=fp16.io32", "-k=accuracy", "--report-dir=reports",
    )  # fmt: skip
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    verdicts = {key: (cell["status"], cell["stage"]) for key, cell in ended.cells.items()}
    for variant in ("original", "simplify", "fp16.io32"):
        assert verdicts[f"carded-{variant}-cpu"] == ("error", "load")
        assert verdicts[f"empty-{variant}-cpu"] == ("fail", "load")
        linked, plain = (
            ended.cells[f"{name}.model-{variant}-cpu"]
            for name in ("models_acme_net", "plain")
        )
        assert linked["status"] == plain["status"] == "pass"
        assert linked["model_sha256"] == plain["model_sha256"]
        assert linked["accuracy"] == plain["accuracy"]


def test_what_cannot_be_collected_leaves_the_last_report(tmp_path: Path) -> None:
    save(linear(), tmp_path / "lin.onnx")
    cells = ["lin.onnx", "--variant=original", "-k=accuracy", "--report-dir=reports"]
    run_pytest(tmp_path, *cells)
    before = json.loads((tmp_path / "reports/results.json").read_text("utf-8"))
    assert before["cells"]
    (tmp_path / "test_broken.py").write_text("import nothing_of_that_name\n")
    ended = run_pytest(tmp_path, "test_broken.py", *cells)
    assert ended.code == pytest.ExitCode.INTERRUPTED
    assert json.loads((tmp_path / "reports/results.json").read_text("utf-8")) == before
