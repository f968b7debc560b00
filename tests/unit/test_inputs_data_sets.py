"""Recorded sets in ONNX's layout: read by name or by place, held against the graph, and refused by
name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from onnx_harness.cards.card import Card, PathSource
from onnx_harness.errors import InputError
from onnx_harness.inputs.recorded.data_sets import (
    data_set_files,
    data_set_folders,
    digest,
    load_data_sets,
)
from onnx_harness.judging.recorded import missed
from onnx_harness.judging.reference import Reference, reference
from onnx_harness.model.file import Model
from onnx_harness.providers import get
from onnx_harness.providers.running import run
from onnx_harness.providers.sessions import Purpose, open_session
from onnx_harness.results.cache import Cache
from onnx_harness.settings import Settings
from tests.models import model, save

SUB = "(float[n] a, float[n] b) => (float[n] y) { y = Sub(a, b) }"


def record(folder: Path, number: int = 0, **values: Any) -> Path:
    """Write ``test_data_set_N``.

    Names are ``input_0="a"`` and the like, values are arrays, lists or messages.
    """
    place = folder / f"test_data_set_{number}"
    place.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        message = value
        if isinstance(value, np.ndarray):
            message = numpy_helper.from_array(value)
        elif isinstance(value, list):
            message = numpy_helper.from_list(value)
        (place / f"{name}.pb").write_bytes(
            message if isinstance(message, bytes) else message.SerializeToString()
        )
    return place


def floats(*values: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(values, np.float32)


def test_sets_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    path = save(model(SUB), tmp_path / "m.onnx")
    for number in (10, 2):
        record(
            tmp_path,
            number,
            input_0=floats(number),
            input_1=floats(0),
            output_0=floats(number),
        )
    (tmp_path / "test_data_set_x").mkdir()
    sets = load_data_sets(path, onnx.load(path))
    assert [each.inputs.name for each in sets] == [
        "recorded in test_data_set_2 (1, 1)",
        "recorded in test_data_set_10 (1, 1)",
    ]
    assert [each.inputs.values["a"].tolist() for each in sets] == [[2.0], [10.0]]  # type: ignore[union-attr]
    assert sets[0].expected["y"].tolist() == [2.0]
    assert len(data_set_files(path)) == 6


def test_values_that_carry_the_inputs_names_go_by_them(tmp_path: Path) -> None:
    path = save(model(SUB), tmp_path / "m.onnx")
    record(
        tmp_path,
        input_0=numpy_helper.from_array(floats(1), "b"),
        input_1=numpy_helper.from_array(floats(5), "a"),
    )
    (only,) = load_data_sets(path, onnx.load(path))
    assert {name: value.tolist() for name, value in only.inputs.values.items()} == {  # type: ignore[union-attr]
        "a": [5.0],
        "b": [1.0],
    }


def test_names_that_tell_nothing_apart_yield_to_the_places(tmp_path: Path) -> None:
    path = save(model(SUB), tmp_path / "m.onnx")
    named = [numpy_helper.from_array(floats(number), "a") for number in (5, 7)]
    record(tmp_path, input_0=named[0], input_1=named[1])
    [data_set] = load_data_sets(path, onnx.load(path))
    assert {name: float(value[0]) for name, value in data_set.inputs.values.items()} == {
        "a": 5,
        "b": 7,
    }


def test_an_input_with_a_default_may_be_given_by_its_name(tmp_path: Path) -> None:
    made = model("(float[n] a, float[1] b) => (float[n] y) { y = Sub(a, b) }")
    made.graph.initializer.append(numpy_helper.from_array(floats(9), "b"))
    path = save(made, tmp_path / "m.onnx")
    named = {name: numpy_helper.from_array(floats(ord(name)), name) for name in "ab"}
    record(tmp_path, input_0=named["b"], input_1=named["a"])
    [data_set] = load_data_sets(path, onnx.load(path))
    assert {name: float(value[0]) for name, value in data_set.inputs.values.items()} == {
        "a": ord("a"),
        "b": ord("b"),
    }


def test_the_digest_tells_which_set_a_file_is_of(tmp_path: Path) -> None:
    path = save(model(SUB), tmp_path / "m.onnx")
    record(tmp_path, 0, input_0=floats(5), input_1=floats(7))
    record(tmp_path, 1)
    before = digest(data_set_files(path))
    second = tmp_path / "test_data_set_0" / "input_1.pb"
    second.rename(tmp_path / "test_data_set_1" / "input_1.pb")
    assert digest(data_set_files(path)) != before


def test_a_pipe_is_never_read(tmp_path: Path) -> None:
    path = save(model(SUB), tmp_path / "m.onnx")
    os.mkfifo(record(tmp_path) / "input_0.pb")
    with pytest.raises(InputError, match=r"test_data_set_0/input_0\.pb isn't a file"):
        data_set_files(path)


def test_inputs_with_a_default_may_be_left_out_or_given(tmp_path: Path) -> None:
    made = model(SUB)
    made.graph.initializer.append(numpy_helper.from_array(floats(9), "a"))
    path = save(made, tmp_path / "m.onnx")
    record(tmp_path, 0, input_0=floats(1))
    record(tmp_path, 1, input_0=floats(3), input_1=floats(4))
    sets = load_data_sets(path, made)
    assert [sorted(each.inputs.values) for each in sets] == [["b"], ["a", "b"]]
    assert sets[1].inputs.values["a"].tolist() == [3.0]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("bfloat16[2]", np.array([1, 2], ml_dtypes.bfloat16)),
        ("float8e5m2[2]", np.array([1, 2], ml_dtypes.float8_e5m2)),
        ("string[2]", np.array(["ab", "ü"], object)),
        ("seq(float[2])", [floats(1, 2), floats(3, 4)]),
        ("seq(float[2])", []),
        ("optional(float[2])", numpy_helper.from_optional(floats(1, 2))),
    ],
)
def test_every_kind_of_value_is_read(tmp_path: Path, kind: str, value: Any) -> None:
    made = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g ({kind} x) => ({kind} y) {{ y = Identity(x) '
        f"}}"
    )
    record(tmp_path, input_0=value, output_0=value)
    (only,) = load_data_sets(save(made, tmp_path / "m.onnx"), made)
    wanted = floats(1, 2) if isinstance(value, onnx.OptionalProto) else value
    np.testing.assert_equal(only.inputs.values["x"], wanted)
    np.testing.assert_equal(only.expected["y"], wanted)


def test_a_folder_of_several_models_has_no_sets_of_its_own(tmp_path: Path) -> None:
    path = save(model(SUB), tmp_path / "m.onnx")
    record(tmp_path, input_0=floats(1), input_1=floats(1))
    assert data_set_folders(path) != []
    save(model(SUB), tmp_path / "other.onnx")
    assert load_data_sets(path, onnx.load(path)) == []


EXTERNAL = TensorProto(
    data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL,
    external_data=[onnx.StringStringEntryProto(key="location", value="/etc/hostname")],
)  # fmt: skip


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"input_0": floats(1)}, "test_data_set_0 lacks 'b'. The model's inputs: 'a', 'b'"),
        (
            {f"input_{k}": floats(1) for k in range(3)},
            "test_data_set_0 holds 3 inputs, and the model has 2",
        ),
        (
            {"input_0": np.array([1]), "input_1": floats(1)},
            "test_data_set_0: 'a' is int64, the model takes float",
        ),
        (
            {"input_0": floats(1, 2), "input_1": floats(1)},
            "test_data_set_0: dimension 'n' is 2 in 'a' and 1 in 'b'",
        ),
        (
            {"input_0": b"\xff\xff", "input_1": floats(1)},
            "test_data_set_0/input_0.pb isn't the TensorProto",
        ),
        (
            {"input_0": EXTERNAL, "input_1": floats(1)},
            "input_0.pb .*: its data lies in another file, which isn't read",
        ),
    ],
)
def test_what_does_not_fit_the_graph_is_refused_by_name(
    tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    path = save(model(SUB), tmp_path / "m.onnx")
    record(tmp_path, **values)
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        load_data_sets(path, onnx.load(path))


@pytest.mark.parametrize(
    ("declared", "value", "said"),
    [
        ("seq(float[n])", [floats(1)], ""),
        ("float[n]", floats(1), ""),
        ("seq(float[n])", floats(1), "isn't the SequenceProto that the graph declares"),
    ],
)
def test_a_sequence_is_what_the_graph_declares_as_one(
    tmp_path: Path, declared: str, value: Any, said: str
) -> None:
    path = save(
        model(f"({declared} s) => ({declared} y) {{ y = Identity(s) }}"), tmp_path / "m.onnx"
    )
    record(tmp_path, input_0=value)
    if not said:
        [data_set] = load_data_sets(path, onnx.load(path))
        assert isinstance(data_set.inputs.values["s"], list) == isinstance(value, list)
        return
    with pytest.raises(InputError, match=said):
        load_data_sets(path, onnx.load(path))


def test_an_absent_optional_cannot_be_fed(tmp_path: Path) -> None:
    made = model("(optional(float[2]) x) => (bool y) { y = OptionalHasElement(x) }")
    record(tmp_path, input_0=numpy_helper.from_optional(None))
    with pytest.raises(InputError, match="'x' is an absent optional, which can't be fed"):
        load_data_sets(save(made, tmp_path / "m.onnx"), made)


def judged_by(folder: Path, *, suite: str = "") -> Reference:
    path = folder / "m.onnx"
    card = Card(path=path, name="m", source=PathSource(path), suite=suite)
    return reference(Model(path), card, Settings(input_sets=2), Cache(folder / "cache"))


def missed_by(folder: Path, *, suite: str = "", card: Card | None = None) -> str | None:
    """How the model in ``folder`` misses the outputs recorded beside it."""
    path, kept = folder / "m.onnx", Cache(folder / "cache")
    card = card or Card(path=path, name="m", source=PathSource(path), suite=suite)
    settings = Settings(input_sets=2)
    made = reference(Model(path), card, settings, kept)
    found = missed(Model(path), made, card, settings, kept)
    return None if found is None else found.reason()


def test_recorded_sets_come_first_and_their_outputs_are_held_against_the_model(
    tmp_path: Path,
) -> None:
    save(model(SUB), tmp_path / "m.onnx")
    record(tmp_path, input_0=floats(5), input_1=floats(1), output_0=floats(4))
    right = judged_by(tmp_path)
    assert [right.sets[place].name.split(" ")[0] for place in right.usual] == [
        "recorded",
        "set",
        "set",
        "large",
    ]
    assert right.usual == [0, 1, 2, 3]
    assert (missed_by(tmp_path), right.notes) == (None, ())
    record(tmp_path, output_0=floats(40))  # and the kept reference is known to be stale
    assert str(missed_by(tmp_path)).startswith(
        "output y: 1 of 1 value (100%) beyond the tolerance; worst 36"
    )


def test_outputs_drawn_at_random_are_not_held_against_the_recorded_ones_and_the_others_are(
    tmp_path: Path,
) -> None:
    text = (
        "(float[n] a, float[n] b) => (float[n] z, float[n] y) { y = Sub(a, b)  z = "
        "RandomNormalLike(a) }"
    )
    save(model(text), tmp_path / "m.onnx")
    record(
        tmp_path,
        input_0=floats(5),
        input_1=floats(1),
        output_0=floats(100),
        output_1=floats(4),
    )
    right = judged_by(tmp_path)
    assert right.unstable == {"z"}
    assert missed_by(tmp_path) is None
    record(tmp_path, output_1=floats(40))
    assert str(missed_by(tmp_path)).startswith("output y: ")


@pytest.mark.parametrize("first", [True, False])
def test_a_reference_without_unusual_sets_is_kept_apart_from_one_with_them(
    tmp_path: Path, first: bool
) -> None:
    path = save(model(SUB), tmp_path / "m.onnx")
    card = Card(path=path, name="m", source=PathSource(path))
    for unusual in (first, not first):
        subject = reference(
            Model(path), card, Settings(), Cache(tmp_path / "cache"), unusual=unusual
        )
        assert any(inputs.unusual for inputs in subject.sets) is unusual


def test_a_case_of_a_suite_is_judged_on_its_own_inputs_alone(tmp_path: Path) -> None:
    save(model(SUB), tmp_path / "m.onnx")
    record(tmp_path, input_0=floats(5), input_1=floats(1))
    assert len(judged_by(tmp_path, suite="s").sets) == 1


@pytest.mark.parametrize(
    "dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2fnuz]
)
def test_types_that_numpy_lacks_pass_to_onnx_runtime_and_back(dtype: Any) -> None:
    name = onnx.TensorProto.DataType.Name(
        onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ).lower()
    made = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g ({name}[n] x, float[n] z) => ({name}[n] y, '
        f"float[n] w) "
        f"{{ f = Cast<to=1>(x) w = Add(f, z) y = CastLike(w, x) }}"
    )
    session = open_session(made.SerializeToString(), get("cpu"), purpose=Purpose.ACCURACY)
    outputs = run(session, {"x": np.array([1, 2], dtype), "z": floats(1, 2)})
    assert outputs["y"].dtype == dtype
    assert outputs["y"].astype(np.float32).tolist() == outputs["w"].tolist() == [2.0, 4.0]


def test_types_of_less_than_8_bits_are_refused() -> None:
    made = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (int4[2] y) { y = '
        "Cast<to=22>(x) }"
    )
    session = open_session(made.SerializeToString(), get("cpu"), purpose=Purpose.ACCURACY)
    with pytest.raises(InputError, match=r"type tensor\(int4\) can't be handed over"):
        run(session, {"x": floats(1, 2)})


def test_a_run_leaves_its_inputs_as_they_were() -> None:
    # Running statistics that aren't outputs of the graph are written over the inputs they begin
    # with.
    made = model(
        "(float[2,1] x, float[1] s, float[1] b, float[1] mean, float[1] var) => (float[2,1] y, "
        "float[1] m, float[1] v) "
        "{ y, m0, v0 = BatchNormalization<training_mode=1>(x, s, b, mean, var)  m = Neg(m0)  v = "
        "Neg(v0) }"
    )
    session = open_session(made.SerializeToString(), get("cpu"), purpose=Purpose.ACCURACY)
    values = {
        "x": floats([1], [5]),
        "s": floats(1),
        "b": floats(0),
        "mean": floats(0),
        "var": floats(0),
    }
    once, again = run(session, values), run(session, values)
    assert values["var"].tolist() == [0.0]
    assert once["v"].tolist() == again["v"].tolist() != [0.0]
