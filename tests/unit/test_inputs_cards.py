"""What a card says about inputs is followed to the letter, and refused by key where it contradicts
the graph.
"""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from onnx_harness.cards.card import InputSpec, read
from onnx_harness.errors import CardError, InputError
from onnx_harness.inputs import Value, describe, generate
from onnx_harness.inputs.plan.recipe import recipe_for
from onnx_harness.inputs.plan.rule import Rule


@pytest.fixture
def model() -> onnx.ModelProto:
    return parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> '
        "g (float[n, t] sound, int64 sr, uint8[1, h, w, 3] image, string[2] text) => (float[n, t] "
        "y) "
        "{ y = Relu(sound) }"
    )


def values(
    model: onnx.ModelProto, specs: dict[str, InputSpec], name: str
) -> list[np.ndarray]:
    return [np.asarray(each.values[name]) for each in generate(model, specs)]


def test_values_take_turns_by_set(model: onnx.ModelProto) -> None:
    made = values(model, {"sr": InputSpec(values=(16000, 8000))}, "sr")
    assert [int(value) for value in made] == [16000, 8000, 16000, 8000]


def test_shapes_take_turns_by_set(model: onnx.ModelProto) -> None:
    made = values(model, {"sound": InputSpec(shapes=((1, 5), (2, 7), (3, 9)))}, "sound")
    assert [value.shape for value in made] == [(1, 5), (2, 7), (3, 9), (1, 5)]


def test_sizes_pin_a_dimension_by_name_or_axis(model: onnx.ModelProto) -> None:
    assert {
        v.shape[1]
        for v in values(model, {"sound": InputSpec(sizes={"t": (50, 60)})}, "sound")
    } == {50, 60}
    assert {
        v.shape[1] for v in values(model, {"sound": InputSpec(sizes={"-1": (50,)})}, "sound")
    } == {50}


def test_sizes_by_another_input_follow_its_value(model: onnx.ModelProto) -> None:
    specs = {
        "sr": InputSpec(values=(16000, 8000)),
        "sound": InputSpec(
            generator="audio", sizes={"16000": (576,), "8000": (288,)}, by="sr"
        ),
    }
    assert [v.shape[1] for v in values(model, specs, "sound")] == [576, 288, 576, 288]


def test_bounds_are_held_by_signals_and_integers(model: onnx.ModelProto) -> None:
    specs = {
        "sound": InputSpec(generator="normal", low=-0.5, high=0.25),
        "image": InputSpec(generator="page", low=10, high=20),
    }
    for each in generate(model, specs):
        sound, image = np.asarray(each.values["sound"]), np.asarray(each.values["image"])
        assert -0.5 <= sound.min() <= sound.max() <= 0.25
        assert 10 <= image.min() < image.max() <= 20


@pytest.mark.parametrize(
    ("name", "spec", "complaint"),
    [
        ("sond", InputSpec(), r"\[inputs\.sond\].*Did you mean 'sound'"),
        (
            "sound",
            InputSpec(generator="audoi"),
            r"\[inputs\.sound\] generator.*Did you mean 'audio'",
        ),
        ("sound", InputSpec(values=("x",)), r"\[inputs\.sound\] values: 'x' is a text"),
        ("sr", InputSpec(values=(1.5,)), r"\[inputs\.sr\] values: 1.5 isn't a whole number"),
        (
            "image",
            InputSpec(values=(256,)),
            r"\[inputs\.image\] values: 256 is out of range",
        ),
        ("image", InputSpec(high=300), r"\[inputs\.image\] high"),
        ("text", InputSpec(generator="normal"), r"\[inputs\.text\] generator"),
        ("text", InputSpec(low=0), r"\[inputs\.text\] low"),
        ("sound", InputSpec(low=2, high=1), r"\[inputs\.sound\] low: 2 is above high"),
        ("sound", InputSpec(shapes=((1,),)), r"\[inputs\.sound\] shapes: \[1\] has rank 1"),
        (
            "image",
            InputSpec(shapes=((1, 8, 8, 4),)),
            r"\[inputs\.image\] shapes: .* has 4 at axis 3",
        ),
        (
            "image",
            InputSpec(sizes={"3": (4,)}),
            r"\[inputs\.image\] sizes\.3: that axis is fixed at 3",
        ),
        (
            "sound",
            InputSpec(sizes={"q": (4,)}),
            r"\[inputs\.sound\] sizes\.q: neither.*Known: n, t, 0, 1",
        ),
        (
            "sound",
            InputSpec(by="txet", sizes={"1": (4,)}),
            r"\[inputs\.sound\] by.*Did you mean 'text'",
        ),
        ("sound", InputSpec(by="sr"), r"\[inputs\.sound\] by: has no effect without sizes"),
        (
            "sound",
            InputSpec(by="image", sizes={"1": (4,)}),
            r"\[inputs\.sound\] by: 'image' doesn't hold one value",
        ),
    ],
)
def test_contradictions_are_refused_by_key(
    model: onnx.ModelProto, name: str, spec: InputSpec, complaint: str
) -> None:
    with pytest.raises(CardError, match=complaint):
        generate(model, {name: spec})


CARD = """[model]
summary = "A card that contradicts its graph"

[inputs]
{inline}
[inputs.image]
{table}
"""


@pytest.mark.parametrize(
    ("inline", "table", "complaint"),
    [
        (
            "sr = { values = [1.5] }",
            "high = 200",
            r"line 5: \[inputs\.sr\] values: 1.5 isn't a whole number",
        ),
        ("sond = { }", "high = 200", r"line 5: \[inputs\.sond\]: the model has no input"),
        ("", "low = 0\nhigh = 300", r"line 8: \[inputs\.image\] high: 300 doesn't fit"),
        (
            "",
            "# rank\nshapes = [\n  [1, 8],\n]",
            r"line 8: \[inputs\.image\] shapes: \[1, 8\] has rank 2",
        ),
        (
            "",
            "sizes = { 3 = 4 }",
            r"line 7: \[inputs\.image\] sizes\.3: that axis is fixed at 3",
        ),
        (
            "",
            "[inputs.image.sizes]\nq = 4",
            r"line 7: \[inputs\.image\] sizes\.q: neither a dimension",
        ),
    ],
)
def test_contradictions_are_refused_by_file_and_line(
    model: onnx.ModelProto, tmp_path: Path, inline: str, table: str, complaint: str
) -> None:
    file = tmp_path / "m.model.toml"
    file.write_text(CARD.format(inline=inline, table=table), encoding="utf-8")
    with pytest.raises(CardError, match=rf"^card {file}, {complaint}"):
        generate(model, read(file).inputs)


@pytest.mark.parametrize(
    ("table", "line"), [("[tolerance.prob]\natol = 1", 2), ('\n[vacuous]\nprob = "x"', 4)]
)
def test_an_output_that_the_model_does_not_have_is_refused_by_file_and_line(
    tmp_path: Path, table: str, line: int
) -> None:
    file = tmp_path / "m.model.toml"
    file.write_text(f"\n{table}\n", encoding="utf-8")
    with pytest.raises(
        CardError,
        match=rf"line {line}: .*prob: the model has no output 'prob'. Did you mean 'probs'",
    ):
        read(file).check_outputs(["probs"])
    read(file).check_outputs(["prob"])


def test_where_a_key_stands_is_no_part_of_what_a_card_says(tmp_path: Path) -> None:
    one, other = tmp_path / "one.model.toml", tmp_path / "two.model.toml"
    one.write_text("[inputs]\nx = { low = 0 }\n", encoding="utf-8")
    other.write_text("\n\n[inputs.x]\nlow = 0\n", encoding="utf-8")
    assert read(one).digest() == read(other).digest()
    assert read(one).inputs == read(other).inputs


def test_a_size_missing_for_a_control_value_is_refused(model: onnx.ModelProto) -> None:
    specs = {
        "sr": InputSpec(values=(16000, 8000)),
        "sound": InputSpec(sizes={"16000": (576,)}, by="sr"),
    }
    with pytest.raises(CardError, match=r"\[inputs\.sound\] sizes: no size for sr = 8000"):
        generate(model, specs)


def test_when_what_the_card_pins_does_not_run_the_card_is_named(
    model: onnx.ModelProto,
) -> None:
    def run(_values: dict[str, Value]) -> None:
        raise RuntimeError("too short")

    specs = {
        "sound": InputSpec(shapes=((1, 5),)),
        "sr": InputSpec(values=(16000,)),
        "image": InputSpec(shapes=((1, 8, 8, 3),)),
    }
    with pytest.raises(
        InputError,
        match=r"doesn't run on what its card says of 'sound', 'sr', 'image'.*too short",
    ):
        generate(model, specs, try_run=run)


def test_two_keys_that_disagree_are_both_named(model: onnx.ModelProto) -> None:
    specs = {"sound": InputSpec(shapes=((1, 5),), sizes={"t": (6,)})}
    with pytest.raises(
        CardError,
        match=r"sizes\.t wants dimension 't' to be 6 in set 0, but .* shapes wants 5",
    ):
        generate(model, specs)


def test_an_input_with_a_default_cannot_be_given_values(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.zeros((1, 1), np.float32), "sound")
    )
    with pytest.raises(CardError, match="'sound' has a default"):
        generate(model, {"sound": InputSpec(generator="normal")})


def test_the_explanation_says_what_the_card_settled(model: onnx.ModelProto) -> None:
    specs = {
        "sr": InputSpec(values=(16000, 8000)),
        "sound": InputSpec(generator="audio", sizes={"t": (50,)}),
    }
    sentences = {each.name: each.sentence for each in describe(model, specs)}
    assert sentences["sr"] == "The card fixes its values: 16000, 8000."
    assert "The card asks for the generator 'audio'" in sentences["sound"]
    assert "axis 1 as the card says" in sentences["sound"]


def rule(graph: str, name: str, spec: InputSpec) -> Rule:
    made = parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> g {graph}')
    return recipe_for(made, {name: spec}).rules[name]


def test_what_the_card_leaves_open_is_as_the_graph_has_it() -> None:
    fixed = "(int64[n] i, float[9] w) => (float[n] y) { y = Gather(w, i) }"
    named = "(int64[n] i, float[t] w) => (float[n] y) { y = Gather(w, i) }"
    for graph, spec, bounds in (
        (fixed, InputSpec(high=3), (0, 3, None)),
        (fixed, InputSpec(low=2), (2, 8, None)),
        (named, InputSpec(low=2), (2, None, "t")),
        (named, InputSpec(high=3), (0, 3, None)),
    ):
        found = rule(graph, "i", spec)
        assert (found.low, found.high, found.dim) == bounds


def test_bounds_leave_the_signal_as_it_is() -> None:
    sound = "(float[n,samples] audio) => (float[n,samples] y) { y = Relu(audio) }"
    plain = recipe_for(
        parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> g {sound}'), {}
    ).rules["audio"]
    assert "audio" in plain.generators
    assert rule(sound, "audio", InputSpec(low=-0.5)).generators == plain.generators
