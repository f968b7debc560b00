"""Declarations: what is registered, how steps are bound, and that declaring imports nothing heavy."""

from __future__ import annotations

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from onnx_harness import providers, transforms
from onnx_harness.errors import UsageError
from onnx_harness.names import Step, parse_variant
from onnx_harness.names.extensions import Extension
from onnx_harness.transforms import (
    BoundStep,
    Precision,
    Transform,
    bind,
    left_out,
    ort,
    registry,
)

CLASH = Transform(summary="another one", apply=lambda model: model, forms={"ort.all": {}})


def bound(text: str) -> BoundStep:
    return bind(parse_variant(text).steps[0])


def test_declarations_import_neither_onnx_nor_numpy_nor_onnxruntime() -> None:
    code = (
        "import sys, onnx_harness.transforms as t; t.registry(); "
        "print({'onnx', 'numpy', 'onnxruntime'} & set(sys.modules))"
    )
    assert (
        subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
    )


def test_every_documented_form_is_registered() -> None:
    single = {name for name in registry() if not name.startswith("pass.")}
    assert single == {
        "optimize",
        "optimize.nobn",
        "simplify",
        "onnxoptimizer",
        "onnxscript",
        "onnxsim",
        "onnxslim",
        "fp16",
        "fp16.io32",
        "fp16.onnxmltools",
        "fp16.onnxmltools.io32",
        "bf16",
        "bf16.io32",
        "fp16.mixed",
        "bf16.mixed",
        "int8.mixed",
        "int8.dynamic",
        "int8.static",
        "int4",
        "ort.disable",
        "ort.basic",
        "ort.extended",
        "ort.layout",
        "ort.all",
    }


def test_groups_hold_what_they_are_called_after() -> None:
    members: dict[str, set[str]] = {}
    for name, transform in registry().items():
        for group in transform.groups:
            members.setdefault(group, set()).add(name)
    assert members["fp16"] == {
        "fp16",
        "fp16.io32",
        "fp16.onnxmltools",
        "fp16.onnxmltools.io32",
    }
    assert members["int8"] == {"int8.dynamic", "int8.static"}
    assert members["ort"] == {f"ort.{level}" for level in ort.LEVELS}
    assert members["peers"] == {
        *(
            "fp16.onnxmltools",
            "fp16.onnxmltools.io32",
            "onnxoptimizer",
            "onnxscript",
            "onnxsim",
            "onnxslim",
        )
    }
    assert len(members["passes"]) == 48


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp16", "float16"), ("fp16.io32", None), ("simplify", None)]
)
def test_only_a_form_that_says_so_may_change_input_and_output_types(
    name: str, dtype: str | None
) -> None:
    assert registry()[name].float_io == dtype


def test_float16_forms_say_their_precision() -> None:
    assert {
        registry()[name].precision for name in registry() if name.startswith("fp16")
    } == {Precision.FP16}


def test_presets_and_written_options_are_merged() -> None:
    step = bound("fp16.io32(max_finite_val=65504, op_block_list=['Softmax'])")
    assert step.options == {
        "keep_io_types": True,
        "max_finite_val": 65504.0,
        "op_block_list": ("Softmax",),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("simplfy", "Did you mean 'simplify'"),
        ("optimize(skip_bn=True)", "Did you mean 'skip_fuse_bn'"),
        (
            "optimize(skipped_optimizers=['eliminate_identiti'])",
            "Did you mean 'eliminate_identity'",
        ),
        ("fp16(max_finite_val=1e5)", "largest finite float16 is 65504"),
        ("fp16(min_positive_val='small')", "is a float"),
        ("simplify(max_growth_bytes=-1)", "by how much a model may grow"),
        ("pass.nop(name='nop')", "It has none"),
    ],
)
def test_what_cannot_be_honoured_is_refused_when_bound(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bound(text)


@pytest.mark.parametrize(
    ("extension", "told"),
    [
        (
            Extension("acme", "acme-onnx 1.2", SimpleNamespace(TRANSFORM=CLASH)),
            (
                "Entry point 'acme' of acme-onnx 1.2 can't be loaded: there is a transform called "
                "'ort.all' already."
            ),
        ),
        (
            Extension("acme", "acme-onnx 1.2", problem="ImportError: no acme"),
            "Entry point 'acme' of acme-onnx 1.2 can't be loaded: ImportError: no acme.",
        ),
    ],
)
def test_a_transform_of_another_package_is_never_in_the_way(
    extension: Extension, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transforms, "extensions", lambda _: (extension,))
    transforms._registered.cache_clear()
    try:
        assert registry()["ort.all"] is ort.TRANSFORM
        assert left_out() == (told,)
        with pytest.raises(UsageError, match=re.escape(told)):
            bound("acme.faster")
    finally:
        transforms._registered.cache_clear()


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (
            SimpleNamespace(PROVIDER=providers.get("cuda")),
            "there is a provider called 'cuda' already",
        ),
        (SimpleNamespace(), "its module declares no PROVIDER"),
    ],
)
def test_nor_is_a_provider_of_another_package(
    declared: object, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        providers, "extensions", lambda _: (Extension("acme", "acme-onnx 1.2", declared),)
    )
    providers._registered.cache_clear()
    try:
        assert providers.left_out() == (
            f"Entry point 'acme' of acme-onnx 1.2 can't be loaded: {problem}.",
        )
    finally:
        providers._registered.cache_clear()


def test_a_chain_without_a_level_runs_at_the_default() -> None:
    assert ort.level_of(parse_variant("simplify+fp16").steps) == "all"


@pytest.mark.parametrize("level", ort.LEVELS)
def test_a_chain_runs_at_the_level_that_it_names(level: str) -> None:
    assert ort.level_of(parse_variant(f"simplify+ort.{level}").steps) == level


def test_a_chain_has_one_level() -> None:
    with pytest.raises(UsageError, match=r"ort\.basic and ort\.all"):
        ort.level_of([Step("ort.basic"), Step("ort.all")])
