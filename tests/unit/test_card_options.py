"""What a card says about every conversion of its model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from onnx import parser

from onnx_harness.cell.matrix import card_for
from onnx_harness.errors import NotApplicable
from onnx_harness.judging.card_options import with_card
from onnx_harness.names import parse_variant
from onnx_harness.transforms.variant import bind_variant

INTEGERS = (
    '<ir_version: 8, opset_import: ["": 17]> g (int64[3] x) => (int64[3] y) { y = Abs(x) }'
)


@pytest.mark.parametrize("variant", ["fp16", "fp16.io32", "bf16.io32"])
def test_a_case_of_a_suite_is_converted_even_in_vain(tmp_path: Path, variant: str) -> None:
    card = card_for(tmp_path / "m.onnx")
    bound = bind_variant(parse_variant(f"{variant}()"))
    (plain,) = with_card(bound, card).steps
    with pytest.raises(NotApplicable, match="no float32 tensor"):
        plain(parser.parse_model(INTEGERS))
    (of_case,) = with_card(bound, replace(card, suite="onnx")).steps
    assert of_case(parser.parse_model(INTEGERS)) == parser.parse_model(INTEGERS)


def test_other_steps_of_a_case_are_as_they_were(tmp_path: Path) -> None:
    card = replace(card_for(tmp_path / "m.onnx"), suite="onnx")
    bound = bind_variant(parse_variant("simplify"))
    assert with_card(bound, card) == bound
