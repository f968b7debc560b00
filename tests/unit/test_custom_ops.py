"""Libraries of custom operators: which sessions get them, and what is said of one that can't be
loaded.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from onnx_harness import providers
from onnx_harness.cards import card as cards
from onnx_harness.cell.content import content_key
from onnx_harness.cell.matrix import Cell, card_for
from onnx_harness.cell.state import Task
from onnx_harness.errors import CardError, ModelError
from onnx_harness.judging.reference import runtime_key, runtime_version
from onnx_harness.model.custom_ops import (
    WithLibraries,
    custom_operators,
    in_foreign_sessions,
    libraries_digest,
    load_libraries,
)
from onnx_harness.names import Variant, parse_variant
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.settings import Settings
from onnx_harness.settings.project import combine, read_project
from onnx_harness.transforms.fp16 import convert_float_to_float16
from onnx_harness.transforms.simplify import simplify
from onnx_harness.transforms.variant import bind_variant

CUSTOM = """
<ir_version: 9, opset_import: ["": 18, "ai.onnx.contrib": 1]>
g (float[4, 8] x) => (float[4, 8] y) {
  product = MatMul(x, w)
  negative, positive = ai.onnx.contrib.NegPos(product)
  same = Identity(positive)
  y = Relu(same)
}
"""


def _custom() -> onnx.ModelProto:
    model = onnx.parser.parse_model(CUSTOM)
    weight = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return model


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What ONNX Runtime is asked to load, with nothing loaded."""
    paths: list[str] = []
    options = onnxruntime.SessionOptions
    asked = lambda _, path: paths.append(path)  # noqa: E731
    recording = type("Options", (options,), {"register_custom_ops_library": asked})
    monkeypatch.setattr(onnxruntime, "SessionOptions", recording)
    return paths


@pytest.fixture
def library(tmp_path: Path) -> Path:
    file = tmp_path / "lib.so"
    file.write_bytes(b"no machine code")
    return file


def _open() -> Any:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[n] y) { y = Abs(x) }'
    model = onnx.parser.parse_model(text).SerializeToString()
    return open_session(model, providers.get("cpu"), purpose=Purpose.ACCURACY)


def test_a_session_gets_the_libraries_around_it_and_no_others(
    registered: list[str], library: Path
) -> None:
    with custom_operators([library]):
        _open()
    _open()
    assert registered == [str(library)]


def test_a_call_has_its_libraries_for_its_own_time(
    registered: list[str], library: Path
) -> None:
    WithLibraries((library,), _open)()
    assert registered == [str(library)]
    assert libraries_digest() == ""


def test_sessions_of_another_package_get_them(registered: list[str], library: Path) -> None:
    before = onnxruntime.SessionOptions
    with custom_operators([library]), in_foreign_sessions():
        onnxruntime.SessionOptions()
    assert registered == [str(library)]
    assert onnxruntime.SessionOptions is before


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    with (
        custom_operators([tmp_path / "lib.so"]),
        pytest.raises(ModelError, match=r"no custom-operator library .*lib"),
    ):
        _open()


def test_a_library_that_cannot_be_loaded_is_named(library: Path) -> None:
    with (
        custom_operators([library]),
        pytest.raises(ModelError, match=r"can't load the custom-operator library .*lib"),
    ):
        load_libraries()


def test_the_bytes_of_a_library_are_part_of_what_is_kept(
    library: Path, tmp_path: Path
) -> None:
    model = tmp_path / "m.onnx"
    onnx.save(_custom(), model)
    cell = Cell(card_for(model), Variant("original"), "cpu")
    settings = Settings(custom_ops=(library,))
    plain, first = content_key(cell, model, Settings()), content_key(cell, model, settings)
    with custom_operators([library]):
        key = runtime_key()
        assert key != runtime_version()
        library.write_bytes(b"other machine code")
        assert key != runtime_key()
    assert len({plain, first, content_key(cell, model, settings)}) == 3
    library.unlink()
    content_key(cell, model, settings)  # the verdict tells


def test_a_card_names_libraries_beside_it_and_the_settings_add_theirs(
    tmp_path: Path,
) -> None:
    card_file = tmp_path / "m.model.toml"
    card_file.write_text(
        'custom_ops = ["lib.so"]\n[model]\nsummary = "x"\n', encoding="utf-8"
    )
    card = cards.read(card_file)
    assert card.custom_ops == (tmp_path / "lib.so",)
    settings = combine({}, {"custom_ops": [Path("more.so")]})
    task = Task(Cell(card, Variant("original"), "cpu"), tmp_path / "m.onnx", settings)
    assert task.custom_ops == (tmp_path / "lib.so", Path("more.so"))
    card_file.write_text("custom_ops = [1]\n", encoding="utf-8")
    with pytest.raises(CardError, match="should list files of libraries"):
        cards.read(card_file)


def test_the_project_names_libraries_beside_its_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.onnx-harness]\ncustom_ops = "lib.so"\n', encoding="utf-8"
    )
    assert read_project(tmp_path) == {"custom_ops": (tmp_path / "lib.so",)}


def test_transforms_leave_a_custom_operator_in_float32() -> None:
    model = convert_float_to_float16(simplify(_custom()), keep_io_types=True)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("NegPos") == 1
    assert "Identity" not in operators
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    custom = next(node for node in model.graph.node if node.op_type == "NegPos")
    assert [producers[name] for name in custom.input] == ["Cast"]
    assert model.graph.initializer[0].data_type == onnx.TensorProto.FLOAT16


@pytest.fixture(scope="module")
def real_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`make test-extras` brings it. One file: a process dies that loads a copy beside it."""
    extensions = pytest.importorskip("onnxruntime_extensions")
    folder = tmp_path_factory.mktemp("library")
    return Path(shutil.copy(extensions.get_library_path(), folder / "lib.so"))


def test_what_follows_a_real_librarys_operator_is_converted(real_library: Path) -> None:
    """Only a session with the library knows that it gives floats."""
    text = CUSTOM.replace("Identity(positive)", "MatMul(positive, w)")
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(_custom().graph.initializer[0])
    with custom_operators([real_library]):
        converted = convert_float_to_float16(model, keep_io_types=True)
        session = open_session(
            converted.SerializeToString(), providers.get("cpu"), purpose=Purpose.ACCURACY
        )
    assert [tensor.data_type for tensor in converted.graph.initializer] == [
        TensorProto.FLOAT16
    ]
    (result,) = session.run(None, {"x": np.ones((4, 8), np.float32)})
    assert result.dtype == np.float32


@pytest.mark.parametrize(
    "variant", ["original", "simplify", "fp16.io32", "int8.static", "int8.dynamic"]
)
def test_a_real_library_runs_in_what_transforms_make(
    variant: str, real_library: Path
) -> None:
    x = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    with custom_operators([real_library]):
        model = _custom()
        for step in bind_variant(parse_variant(variant)).changing:
            model = step(model, [{"x": x}])
        session = open_session(
            model.SerializeToString(), providers.get("cpu"), purpose=Purpose.ACCURACY
        )
    (result,) = session.run(None, {"x": x})
    (weight,) = (numpy_helper.to_array(tensor) for tensor in _custom().graph.initializer)
    np.testing.assert_allclose(result, np.maximum(x @ weight, 0), atol=0.1)
    assert result.max() > 1
