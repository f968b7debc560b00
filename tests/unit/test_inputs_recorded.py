"""Recorded input sets: what is written is read back, and what doesn't fit the model is refused by
name.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from onnx_harness.errors import InputError
from onnx_harness.inputs import InputSet, generate, load_npz, load_npz_sets, save_npz

ADD = (
    '<ir_version: 10, opset_import: ["" : 21]> g (float[n, 2] x, float[n, 2] b) => (float[n, '
    "2] y) { y = Add(x, b) }"
)


def parsed(graph: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {graph}')


@pytest.fixture
def model() -> onnx.ModelProto:
    return parser.parse_model(ADD)


def test_a_plain_npz_is_one_set(tmp_path: Path, model: onnx.ModelProto) -> None:
    np.savez(
        tmp_path / "m.npz", x=np.ones((3, 2), np.float32), b=np.zeros((3, 2), np.float32)
    )
    (only,) = load_npz(tmp_path / "m.npz", model)
    assert only.name == "recorded 0 (m.npz, 3x2, 3x2)"
    np.testing.assert_array_equal(only.values["x"], np.ones((3, 2), np.float32))


@pytest.mark.parametrize("count", [1, 3])
def test_generated_sets_are_written_and_read_back(
    tmp_path: Path, model: onnx.ModelProto, count: int
) -> None:
    sets = generate(model, {}, count=count)
    save_npz(tmp_path / "m.npz", sets)
    assert [each.digest() for each in load_npz(tmp_path / "m.npz", model)] == [
        each.digest() for each in sets
    ]


@pytest.mark.parametrize(
    "kind", ["bfloat16", "string", "float8e4m3fn", "bool", "seq(int64[3])"]
)
def test_every_kind_of_value_survives_the_file(tmp_path: Path, kind: str) -> None:
    typed = kind if kind.startswith("seq") else f"{kind}[3]"
    text = (
        f'<ir_version: 10, opset_import: ["" : 21]> g ({typed} x) => ({typed} y) {{ y = '
        f"Identity(x) }}"
    )
    model = parser.parse_model(text)
    model.graph.input[0].name = model.graph.node[0].input[0] = "scope/x:0"
    sets = generate(model, {}, count=2)
    save_npz(tmp_path / "m.npz", sets)
    assert [each.digest() for each in load_npz(tmp_path / "m.npz", model)] == [
        each.digest() for each in sets
    ]


def test_sets_come_in_the_order_of_their_numbers(
    tmp_path: Path, model: onnx.ModelProto
) -> None:
    values = generate(model, {}, count=1)[0].values
    arrays: dict[str, Any] = {
        f"{number}/{name}": np.full_like(value, number)
        for number in (10, 2)
        for name, value in values.items()
    }
    np.savez(tmp_path / "m.npz", **arrays)
    for number, loaded in zip((2, 10), load_npz(tmp_path / "m.npz", model), strict=True):
        assert all(np.all(np.asarray(value) == number) for value in loaded.values.values())
    plain = {f"{name}": value for name, value in values.items()}
    np.savez(tmp_path / "mixed.npz", **{**arrays, **plain})
    with pytest.raises(InputError, match="which the model has no input or output for"):
        load_npz(tmp_path / "mixed.npz", model)


def test_the_keys_of_one_set_are_the_names_alone(
    tmp_path: Path, model: onnx.ModelProto
) -> None:
    sets = generate(model, {}, count=2)
    for count in (1, 2):
        save_npz(tmp_path / "m.npz", sets[:count])
        prefixes = [""] if count == 1 else ["0/", "1/"]
        with np.load(tmp_path / "m.npz") as written:
            assert written.files == [
                f"{prefix}{name}" for prefix in prefixes for name in sets[0].values
            ]


def test_a_name_that_starts_with_a_number_is_not_a_set(tmp_path: Path) -> None:
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
    )
    model.graph.input[0].name = model.graph.node[0].input[0] = "0/x"
    save_npz(tmp_path / "m.npz", generate(model, {}, count=1))
    assert list(load_npz(tmp_path / "m.npz", model)[0].values) == ["0/x"]


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"x": np.ones((3, 2), np.float32)}, "lacks 'b'"),
        (
            {"x": np.ones((3, 2)), "b": np.zeros((3, 2), np.float32)},
            "'x' is float64, the model takes float",
        ),
        ({"x": np.ones(2, np.float32), "b": np.ones((1, 2), np.float32)}, "'x' has rank 1"),
        (
            {"x": np.ones((3, 5), np.float32), "b": np.ones((3, 2), np.float32)},
            "'x' is 5 long at axis 1",
        ),
        (
            {"x": np.ones((3, 2), np.float32), "b": np.ones((1, 2), np.float32)},
            "dimension 'n' is 3 in 'x' and 1 in 'b'",
        ),
        (
            {
                "x": np.ones((3, 2), np.float32),
                "b": np.ones((3, 2), np.float32),
                "c": np.ones(1),
            },
            "has 'c', which the model has no input or output for",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, model: onnx.ModelProto, arrays: dict[str, np.ndarray], complaint: str
) -> None:
    save_npz(tmp_path / "m.npz", [InputSet("x", dict(arrays))])
    with pytest.raises(InputError, match=complaint):
        load_npz(tmp_path / "m.npz", model)


def test_pickled_objects_are_refused_unread(tmp_path: Path, model: onnx.ModelProto) -> None:
    np.savez(tmp_path / "m.npz", allow_pickle=True, x=np.array([{"a": 1}], object))
    with pytest.raises(
        InputError,
        match="'x' holds pickled objects, which are not read because they can run code",
    ):
        load_npz(tmp_path / "m.npz", model)


@pytest.mark.parametrize("damage", ["not a zip", "truncated", "not an array", "missing"])
def test_a_broken_file_is_refused(
    tmp_path: Path, model: onnx.ModelProto, damage: str
) -> None:
    path = tmp_path / "m.npz"
    save_npz(path, generate(model, {}))
    if damage == "not a zip":
        path.write_bytes(b"hello")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "not an array":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("x.npy", b"hello")
        path.write_bytes(buffer.getvalue())
    else:
        path.unlink()
    with pytest.raises(InputError, match=r"m\.npz"):
        load_npz(path, model)


def test_nothing_is_left_behind_when_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="NUL"):
        save_npz(tmp_path / "m.npz", [InputSet("x", {"t": np.array(["a\0"], object)})])
    assert list(tmp_path.iterdir()) == []
    # That it can't be put there turns out when all of it is written.
    (tmp_path / "m.npz").mkdir()
    with pytest.raises(IsADirectoryError):
        save_npz(tmp_path / "m.npz", [InputSet("x", {"t": np.zeros(1)})])
    assert [file.name for file in tmp_path.iterdir()] == ["m.npz"]


def test_a_key_that_names_an_output_is_what_the_model_is_said_to_give(
    tmp_path: Path,
) -> None:
    made = parsed(
        "(float[n] x) => (float[n] y, string[n] t) { y = Neg(x)  t = Identity(s) }"
    )
    y, t = np.ones(2, np.float64), np.array(["a", "b"])
    np.savez(tmp_path / "m.npz", x=np.ones(2, np.float32), y=y, t=t)
    (only,) = load_npz_sets(tmp_path / "m.npz", made)
    assert list(only.inputs.values) == ["x"]
    assert {name: value.dtype.kind for name, value in only.expected.items()} == {
        "y": "f",
        "t": "O",
    }
    assert load_npz(tmp_path / "m.npz", made)[0].digest() == only.inputs.digest()


def test_a_recorded_sequence_is_put_together_from_its_elements(tmp_path: Path) -> None:
    made = parsed("(float[n] x) => (seq(float[n]) y) { y = SequenceConstruct(x, x) }")
    one = np.ones(1, "f4")
    arrays: dict[str, Any] = {
        "0/x": one,
        "0/y[1]": np.ones(2, "f4"),
        "0/y[0]": one,
        "1/x": one,
    }
    np.savez(tmp_path / "m.npz", **arrays)
    first, second = load_npz_sets(tmp_path / "m.npz", made)
    assert [each.size for each in first.expected["y"]] == [1, 2]
    assert second.expected == {}


def test_an_input_that_is_an_output_too_is_an_input(tmp_path: Path) -> None:
    made = parsed("(float[n] x) => (float[n] x, float[n] y) { y = Neg(x) }")
    np.savez(tmp_path / "m.npz", x=np.ones(2, np.float32))
    (only,) = load_npz_sets(tmp_path / "m.npz", made)
    assert (list(only.inputs.values), only.expected) == (["x"], {})
