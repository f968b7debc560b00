"""The matrix: which card stands for a file, which variants a word asks for, and what is refused."""

import importlib.metadata
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from onnx_harness import transforms
from onnx_harness.cards.card import Card, KnownFailure, PathSource, WheelSource
from onnx_harness.cell.matrix import (
    DEFAULT,
    GROUPS,
    Cell,
    card_for,
    check_providers,
    expand_variants,
)
from onnx_harness.errors import CardError, UsageError
from onnx_harness.names import Variant, is_model_file, parse_variant


def ids(*words: str, **named: str) -> list[str]:
    return [variant.id for variant in expand_variants(words, named)]


def refusal(*words: str, **named: str) -> str:
    with pytest.raises(UsageError) as caught:
        expand_variants(words, named)
    return str(caught.value)


def without(distribution: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == distribution:
            raise PackageNotFoundError(name)
        return importlib.metadata.version(name)

    monkeypatch.setattr("onnx_harness.cell.matrix.version", version)


# --- cells


def cell(
    *failures: KnownFailure, variant: str = "simplify+fp16", provider: str = "cpu"
) -> Cell:
    path = Path("m.onnx")
    return Cell(
        Card(path=path, name="m", source=PathSource(path), known_failures=failures),
        Variant(variant),
        provider,
    )


def failure(
    variants: tuple[str, ...], providers: tuple[str, ...] = (), reason: str = "it does"
) -> KnownFailure:
    return KnownFailure(
        variants=variants, providers=providers, stage="run", reason=reason, versions={}
    )


def test_a_cell_is_called_model_variant_provider() -> None:
    assert cell().id == "m-simplify+fp16-cpu"


@pytest.mark.parametrize(
    ("entry", "known"),
    [
        (failure(("simplify+fp16",)), True),
        (failure(("other", "simplify+fp16")), True),
        (failure(("simplify+fp16",), ("openvino", "cpu")), True),
        (failure(("simplify+fp16",), ("openvino",)), False),
        (failure((), ("cpu",)), True),
        (failure(()), True),
        (failure(("simplify",)), False),
        (failure(("fp16",)), False),
    ],
)
def test_a_known_failure_is_of_this_variant_on_this_provider(
    entry: KnownFailure, known: bool
) -> None:
    assert cell(entry).known_failure is (entry if known else None)


def test_the_first_entry_that_fits_is_the_known_failure() -> None:
    entries = [
        failure(("fp16",)),
        failure(("simplify+fp16",), reason="first"),
        failure(("simplify+fp16",)),
    ]
    found = cell(*entries).known_failure
    assert found is not None
    assert found.reason == "first"


# --- cards


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("m.onnx", True),
        ("m.model.toml", True),
        ("m.toml", False),
        ("m.onnx.data", False),
        ("onnx", False),
    ],
)
def test_a_model_file_is_known_by_its_name(name: str, is_one: bool) -> None:
    assert is_model_file(Path("some.onnx/folder") / name) is is_one


def test_a_model_without_a_card_gets_a_blank_one(tmp_path: Path) -> None:
    path = tmp_path / "My Net.onnx"
    assert card_for(path) == Card(path=path, name="my_net", source=PathSource(path))


def test_a_card_beside_a_model_stands_for_it(tmp_path: Path) -> None:
    card = tmp_path / "net.model.toml"
    card.write_text('[model]\nsummary = "A net"\n[source]\nsha256 = "' + "0" * 64 + '"')
    assert card_for(tmp_path / "net.onnx") == card_for(card)
    assert card_for(card).source == PathSource(tmp_path / "net.onnx", "0" * 64)
    assert card_for(card).summary == "A net"


@pytest.mark.parametrize(
    "source",
    [
        'path = "exports/other.onnx"',
        f'wheel = "net==1.0"\nmember = "net/net.onnx"\nsha256 = "{"0" * 64}"',
    ],
)
def test_a_model_that_is_named_is_judged_though_its_card_describes_another_source(
    tmp_path: Path, source: str
) -> None:
    card = tmp_path / "net.model.toml"
    card.write_text(f'[model]\nsummary = "A net"\n[source]\n{source}')
    beside = card_for(tmp_path / "net.onnx")
    assert (beside.path, beside.name, beside.summary) == (card, "net", "A net")
    assert beside.source == PathSource(tmp_path / "net.onnx")
    assert card_for(card).source in (
        PathSource(tmp_path / "exports/other.onnx"),
        WheelSource("net==1.0", "net/net.onnx", "0" * 64),
    )


def test_a_bad_card_beside_a_model_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "net.model.toml").write_text("[modle]")
    with pytest.raises(CardError, match="Did you mean 'model'"):
        card_for(tmp_path / "net.onnx")


# --- variants


def test_the_default_group_is_the_default_variants_in_order() -> None:
    assert tuple(ids("default")) == DEFAULT


def test_each_variant_comes_once_in_the_order_asked_for() -> None:
    assert ids("fp16.io32", "default", "fp16.io32", "simplify")[:3] == [
        "fp16.io32",
        "original",
        "optimize",
    ]
    assert sorted(ids("fp16.io32", "default")) == sorted(DEFAULT)


@pytest.mark.parametrize(
    ("group", "some"),
    [
        ("ort", {"ort.disable", "ort.all"}),
        ("fp16", {"fp16", "fp16.io32"}),
        ("passes", {"pass.fuse_bn_into_conv", "pass.nop"}),
        ("all", {*DEFAULT, "ort.basic", "fp16"}),
    ],
)
def test_a_group_holds_what_it_says(group: str, some: set[str]) -> None:
    assert some <= set(ids(group))


def test_every_member_of_a_group_says_so() -> None:
    for group in set(GROUPS) - {"default", "all", "int8"}:
        assert all(group in transforms.registry()[name].groups for name in ids(group))


def test_all_includes_the_variants_of_the_project() -> None:
    assert "ours" in ids("all", ours="simplify+fp16")
    assert "ours" not in ids("default", ours="simplify+fp16")


def test_a_variant_of_the_project_goes_by_its_name() -> None:
    (variant,) = expand_variants(
        ["ours"], {"ours": "simplify+fp16.io32(max_finite_val=65504)"}
    )
    assert variant == parse_variant("simplify+fp16.io32(max_finite_val=65504)", id="ours")


def test_two_spellings_of_one_variant_are_one() -> None:
    assert ids("fp16(max_finite_val=1.0)", "fp16(max_finite_val=1)") == [
        "fp16.max_finite_val_1"
    ]
    assert (
        len(
            ids(
                "fp16(max_finite_val=9,min_positive_val=1)",
                "fp16(min_positive_val=1, max_finite_val=9)",
            )
        )
        == 1
    )


def test_two_variants_that_differ_in_a_sign_or_a_capital_are_two() -> None:
    assert len(ids("fp16(op_block_list=['Conv'])", "fp16(op_block_list=['conv'])")) == 2
    assert len(ids("fp16(min_positive_val=1e-3)", "fp16(min_positive_val=1e+3)")) == 2


def test_two_variants_of_one_name_are_refused_not_dropped() -> None:
    taken = "fp16.max_finite_val_1"
    said = refusal("fp16(max_finite_val=1)", taken, **{taken: "simplify"})
    assert said.startswith(
        f"'fp16(max_finite_val=1)' and 'simplify' would both be called '{taken}'. Ids are keys of"
    )


@pytest.mark.parametrize(
    "name", ["default", "all", "original", "simplify", "ort.disable", "fp16"]
)
def test_a_variant_of_the_project_cannot_take_a_name_that_is_built_in(name: str) -> None:
    assert f"'{name}' is called as one that is built in" in refusal(
        "optimize", **{name: "optimize"}
    )


@pytest.mark.parametrize(
    ("word", "named", "complaint"),
    [
        ("simplfy", {}, "there is no variant or group 'simplfy'. Did you mean 'simplify'?"),
        ("defualt", {}, "Did you mean 'default'?"),
        ("orginal", {}, "Did you mean 'original'?"),
        ("fp16_wid", {"fp16_wide": "fp16"}, "Did you mean 'fp16_wide'?"),
        ("simplify+fp61", {}, "there is no transform 'fp61'. Did you mean 'fp16'?"),
        ("simplfy()+fp16", {}, "there is no transform 'simplfy'. Did you mean 'simplify'?"),
        ("original+fp16", {}, "'original' is the empty chain"),
        ("simplify-fp16", {}, "isn't a name"),
        (
            "fp16(max_finite=1)",
            {},
            "has no option 'max_finite'. Did you mean 'max_finite_val'?",
        ),
        (
            "fp16(max_finite_val='1')",
            {},
            "option 'max_finite_val' of transform 'fp16' is a float; '1' isn't one",
        ),
        ("fp16(max_finite_val=True)", {}, "is a float; True isn't one"),
        ("fp16(max_finite_val=1e6)", {}, "can't be honoured: max_finite_val is 1e+06"),
        ("fp16(op_block_list='Conv')", {}, "is a tuple; 'Conv' isn't one"),
        (
            "pass.nop(times=2)",
            {},
            "transform 'pass.nop' has no option 'times'. It has none.",
        ),
        (
            "ours",
            {"ours": "simplfy"},
            "the project's variant 'ours' (simplfy): there is no transform 'simplfy'.",
        ),
        (
            "ours",
            {"ours": "fp16("},
            "the project's variant 'ours' (fp16(): the options of step",
        ),
    ],
)
def test_a_word_that_means_nothing_is_refused(
    word: str, named: Mapping[str, str], complaint: str
) -> None:
    assert complaint in refusal(word, **named)


@pytest.mark.parametrize("chain", ["ort.disable+ort.all", "ort.all+simplify+ort.all"])
def test_two_optimization_levels_in_one_chain_are_refused_before_anything_runs(
    chain: str,
) -> None:
    assert refusal(chain).startswith(
        "a session has one optimization level; this chain asks for ort."
    )
    assert refusal("ours", ours=chain).startswith(
        f"the project's variant 'ours' ({chain}): a session has one"
    )


def test_a_group_in_which_nothing_runs_here_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without("onnxoptimizer", monkeypatch)
    assert refusal("passes") == "the group 'passes' has no variant that can run here"


def test_a_variant_whose_library_is_missing_is_refused_with_the_mend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without("onnxslim", monkeypatch)
    assert refusal("onnxslim+onnxslim") == (
        "variant 'onnxslim+onnxslim' needs onnxslim, not installed here. Mend: pip install onnxslim"
    )


def test_a_group_leaves_out_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    without("onnxslim", monkeypatch)
    assert "onnxslim" not in ids("peers")
    assert "onnxslim" not in ids("all")
    assert "onnxsim" in ids("peers")


# --- providers


def test_each_provider_comes_once_in_order() -> None:
    assert check_providers(["openvino", "cpu", "openvino"]) == ("openvino", "cpu")


def test_a_misspelt_provider_is_told_what_there_is() -> None:
    with pytest.raises(
        UsageError,
        match=r"there is no execution provider 'cdua'\. Did you mean 'cuda'\? Known: cpu",
    ):
        check_providers(["cpu", "cdua"])
