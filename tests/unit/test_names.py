"""Names and ids: the grammar, and what is said about text that doesn't follow it."""

from pathlib import PurePosixPath

import pytest

from onnx_harness.errors import NameGrammarError, UsageError
from onnx_harness.names import (
    OptionValue,
    Step,
    Variant,
    cell_id,
    check_name,
    model_name,
    parse_variant,
    slug,
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("silero_vad", "silero_vad"),
        ("PP-OCRv4 det", "pp_ocrv4_det"),
        ("resnet50--v1.5", "resnet50_v1.5"),
        ("..hidden..", "hidden"),
        ("größe 2", "gr_e_2"),
    ],
)
def test_any_text_with_a_letter_or_digit_makes_a_name(text: str, name: str) -> None:
    assert slug(text) == name


@pytest.mark.parametrize("text", ["", "---", "模型", "_.", "É"])
def test_text_without_any_makes_none(text: str) -> None:
    with pytest.raises(NameGrammarError, match="it needs a letter or a digit from a-z, 0-9"):
        slug(text)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b/Silero-VAD.onnx", "silero_vad"),
        ("models/silero_vad.model.toml", "silero_vad"),
        ("v1.5.onnx", "v1.5"),
        ("model.onnx.onnx", "model.onnx"),
    ],
)
def test_a_model_is_named_after_its_file(path: str, name: str) -> None:
    assert model_name(PurePosixPath(path)) == name


def test_a_file_and_its_card_have_one_name() -> None:
    assert (
        model_name(PurePosixPath("Net 2.onnx"))
        == model_name(PurePosixPath("Net 2.model.toml"))
        == "net_2"
    )


@pytest.mark.parametrize("name", ["a", "fp16.io32", "0", "a_b.c"])
def test_a_name_is_checked_and_returned(name: str) -> None:
    assert check_name(name, "model") == name


@pytest.mark.parametrize("name", ["", "A", "a-b", "a+b", "a b", "a\n", "ä", "a/b"])
def test_a_separator_or_anything_else_is_no_name(name: str) -> None:
    with pytest.raises(
        NameGrammarError, match=r"^variant .* isn't a name: use a-z, 0-9, '_' and '\.'$"
    ):
        check_name(name, "variant")


def test_a_cell_id_is_model_variant_provider() -> None:
    assert cell_id("silero_vad", "simplify+fp16", "cpu") == "silero_vad-simplify+fp16-cpu"


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("original", ()),
        (" original ", ()),
        ("simplify", (Step("simplify"),)),
        ("simplify + fp16.io32", (Step("simplify"), Step("fp16.io32"))),
        ("fp16()", (Step("fp16"),)),
        ("fp16 (max_finite_val = 65504)", (Step("fp16", (("max_finite_val", 65504),)),)),
        ("x(a=-1e-7)", (Step("x", (("a", -1e-7),)),)),
        ("x(a=1e+5)+y", (Step("x", (("a", 1e5),)), Step("y"))),
        ("x(a=True, b='c')", (Step("x", (("a", True), ("b", "c"))),)),
        ("x(a=true, b=false)", (Step("x", (("a", True), ("b", False))),)),
        ("x(a=['Conv', 'Add'])", (Step("x", (("a", ("Conv", "Add")),)),)),
        ("x(a=[])", (Step("x", (("a", ()),)),)),
        (
            "x(a=['while)/body+1(', \"it's\"])+y",
            (Step("x", (("a", ("while)/body+1(", "it's")),)), Step("y")),
        ),
        ("x(a='\\')+y')", (Step("x", (("a", "')+y"),)),)),
    ],
)
def test_a_chain_is_read_into_steps(text: str, steps: tuple[Step, ...]) -> None:
    assert parse_variant(text).steps == steps


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "step ''"),
        ("simplify+", "step ''"),
        ("+fp16", "step ''"),
        ("simplify-fp16", "step 'simplify-fp16'"),
        ("Simplify", "step 'Simplify'"),
        ("original+fp16", "'original' is the empty chain"),
        ("original()", "'original' is the empty chain"),
        ("fp16(", "was never closed"),
        ("fp16)", "step 'fp16)'"),
        ("fp16(65504)", "options are written as name=value"),
        ("fp16(**{'a': 1})", "options are written as name=value"),
        ("fp16(a=1)(b=2)", "something follows the closing parenthesis"),
        ("fp16(a=1).io32(b=2)", "something follows the closing parenthesis"),
        ("fp16(a=1) fp16", "can't be read"),
        ("fp16(a=1, a=2)", "'a' is given twice"),
        ("fp16(a=b)", "can't be read"),
        ("fp16(a=None)", "None is neither a number"),
        ("fp16(a=[1, 2])", "is neither a number"),
        ("fp16(a=1j)", "is neither a number"),
        ("fp16(a=1e999)", "a number is beyond those that an option takes"),
        (f"fp16(a=0x{'f' * 5000})", "a number is beyond those that an option takes"),
        ("fp16(a=__import__('os'))", "can't be read"),
        (f"fp16(a={'[' * 500}{']' * 500})", "can't be read"),
        ("fp16(a=1\0)", "can't be read"),
    ],
)
def test_a_chain_that_cannot_be_read_says_where(text: str, complaint: str) -> None:
    with pytest.raises(NameGrammarError) as caught:
        parse_variant(text)
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 400 + 2 * len(text)


def test_a_grammar_error_is_a_usage_error() -> None:
    assert issubclass(NameGrammarError, UsageError)


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("original", "original"),
        ("simplify+fp16.io32", "simplify+fp16.io32"),
        ("fp16(max_finite_val=65504)", "fp16.max_finite_val_65504"),
        ("fp16(max_finite_val=0.5)+simplify", "fp16.max_finite_val_0.5+simplify"),
        ("optimize(skip_fuse_bn=True)", "optimize.skip_fuse_bn_true"),
        ("optimize(skip_fuse_bn=true)", "optimize.skip_fuse_bn_true"),
        ("optimize(skip_fuse_bn=false)", "optimize.skip_fuse_bn_false"),
        ("x(b=1, a=2)", "x.a_2.b_1"),
    ],
)
def test_an_id_is_derived_from_the_chain(text: str, id: str) -> None:
    assert parse_variant(text).id == id


def test_a_name_given_to_a_chain_is_its_id() -> None:
    variant = parse_variant("simplify+fp16", id="ours")
    assert variant == Variant("ours", (Step("simplify"), Step("fp16")))
    assert variant.spelling == "simplify+fp16"
    assert parse_variant("original", id="as_is") == Variant("as_is")


def test_a_name_given_to_a_chain_follows_the_grammar() -> None:
    for chain in ("simplify", "original"):
        with pytest.raises(NameGrammarError, match="variant 'a-b' isn't a name"):
            parse_variant(chain, id="a-b")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x(a=1)", "x(a=1.0)"),
        ("x(a=65504)", "x(a=6.5504e4)"),
        ("x(a=1e300)", "x(a=1E+300)"),
        ("x(a=1, b=2)", "x( b=2,a=1 )"),
        ("x(a=('b', 'c'))", 'x(a=["b", "c"])'),
        ("x()", "x"),
    ],
)
def test_one_meaning_has_one_id(one: str, other: str) -> None:
    assert parse_variant(one).id == parse_variant(other).id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x(a=1)", "x(a=-1)"),
        ("x(a=1e-16)", "x(a=1e16)"),
        ("x(a=1)", "x(a=True)"),
        ("x(a=1)", "x(a='1')"),
        ("x(a='Conv')", "x(a='conv')"),
        ("x(a=['a_b'])", "x(a=['a', 'b'])"),
        ("x(a=[])", "x(a='')"),
        ("x(a='1.b_2')", "x(a=1, b=2)"),
        ("x(A=1)", "x(a=1)"),
        ("x(a='" + "n" * 100 + "1')", "x(a='" + "n" * 100 + "2')"),
    ],
)
def test_two_meanings_have_two_ids(one: str, other: str) -> None:
    assert parse_variant(one).id != parse_variant(other).id


def test_a_long_list_makes_an_id_that_still_fits_a_file_name() -> None:
    nodes: OptionValue = tuple(
        f"/encoder/layer.{number}/attention/MatMul" for number in range(100)
    )
    variant = parse_variant(str(Step("fp16.io32", (("node_block_list", nodes),))))
    assert variant.steps[0].options == (("node_block_list", nodes),)
    assert len(variant.id) < 80
    assert variant.id.startswith("fp16.io32.node_block_list_encoder_layer.0")


def test_an_id_never_changes() -> None:
    # Keys of history: this list only grows.
    assert [
        parse_variant(text).id
        for text in ("fp16(min_positive_val=1e-7)", "fp16(op_block_list=['Add'])")
    ] == [
        "fp16.min_positive_val_1e_07.cbef1924",
        "fp16.op_block_list_add.7330c39d",
    ]


@pytest.mark.parametrize(
    "text",
    ["int8.static(calibration=minmax)", "fp16(op_block_list=[minmax])", "x(a=-minmax)"],
)
def test_a_text_without_quotes_is_named(text: str) -> None:
    with pytest.raises(NameGrammarError, match="a text stands in quotes: 'minmax'"):
        parse_variant(text)
