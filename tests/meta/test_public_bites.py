"""A smallest model that is to be published, broken on purpose: the search for leaks notices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnx_harness.diagnose import handout, renaming, replaced_numbers, strings
from onnx_harness.diagnose.smaller_case import Case
from tests.leaks import confidential, leaks
from tests.unit.test_diagnose_public import confidential_case, fault_of, published, subtract


def _same_data(case: Case, _: Any) -> Case:
    return case


def _same_names(case: Case, *_: Any, **__: Any) -> Case:
    return case


def _without_nodes(case: Case, *_: Any, **__: Any) -> renaming.Names:
    names = WHOLE(case)
    return renaming.Names(names.values, {}, names.dimensions, names.words)


WHOLE: Callable[..., renaming.Names] = renaming.new_names


@pytest.mark.parametrize(
    ("room", "name", "broken", "leak"),
    [
        (replaced_numbers, "with_data", _same_data, "values of secret_half"),
        (renaming, "renamed_case", _same_names, "name secret_graph"),
        (renaming, "new_names", _without_nodes, "name secret_node"),
        (renaming, "_clear_remarks", lambda _: None, "name secret_words"),
        (strings, "replaced_strings", lambda case, *_: case, "name secret_k"),
    ],
    ids=["numbers", "names", "nodes", "remarks", "strings"],
)
def test_what_is_not_replaced_is_noticed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    room: Any,
    name: str,
    broken: Any,
    leak: str,
) -> None:
    monkeypatch.setattr(room, name, broken)
    folder = tmp_path / "repro"

    published(confidential_case(), fault_of(subtract), folder)

    assert any(leak in line for line in leaks(folder, confidential()))


def test_a_leak_in_any_file_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "repro"
    published(confidential_case(), fault_of(subtract), folder)
    assert leaks(folder, confidential()) == []
    for file in (handout.ISSUE, handout.SCRIPT):
        with (folder / file).open("a", encoding="utf-8") as stream:
            stream.write("\n`secret_node` has 2.71828\n")

    lines = leaks(folder, confidential())

    for file in (handout.ISSUE, handout.SCRIPT):
        assert f"{file}: name secret_node" in lines
        assert any(line.startswith(f"{file}: values of") for line in lines)
