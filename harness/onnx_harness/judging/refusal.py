"""Say why ONNX Runtime doesn't open a model, and what would mend it."""

from __future__ import annotations

import onnx

from onnx_harness.errors import HarnessError, MachineError, ModelError, first_line
from onnx_harness.model.ops import imports_standard, opset_of

# What ONNX Runtime promises: docs/Versioning.md of its repository.
_FIRST_OPSET = 7
_NO_KERNEL = "Could not find an implementation"


def refusal(error: Exception, model: onnx.ModelProto, runtime: str) -> HarnessError:
    """Return what to raise for a model that ONNX Runtime doesn't open, with the mend.

    Args:
        error: ONNX Runtime's.
        model: the untouched model, or its skeleton.
        runtime: ONNX Runtime's version.
    """
    words = first_line(error)
    kind: type[HarnessError] = ModelError
    mend = ""
    if "not a registered function/op" in words:
        mend = (
            ". Mend: name the library that has it, in the card (custom_ops = [...]) or with "
            "--custom-ops FILE, "
            "or export the model with standard operators"
        )
    elif "construct locale" in words:
        kind = MachineError
        mend = (
            " Mend: `locale-gen en_US.UTF-8` (Debian: the package locales): its StringNormalizer "
            "needs that locale on this machine, and the model isn't at fault"
        )
    elif _NO_KERNEL in words and _imported(model) < _FIRST_OPSET:
        mend = (
            f". It promises kernels from opset {_FIRST_OPSET} on, and the model imports "
            f"{_imported(model)}. Mend: export it in a newer opset, or convert it "
            "(onnx.version_converter)"
        )
    elif _NO_KERNEL in words:
        mend = (
            ". Each model is judged by what ONNX Runtime's CPU provider makes of it, which has no "
            "kernel of that operator for these types. Mend: export it in float32, and judge that"
        )
    elif "opset" in words.lower():
        mend = (
            " Mend: a newer ONNX Runtime, or the model in an older opset "
            "(onnx.version_converter)"
        )
    return kind(
        f"ONNX Runtime {runtime} can't open the untouched model, so nothing can be "
        f"judged: {words}{mend}"
    )


def _imported(model: onnx.ModelProto) -> int:
    """Return the opset of the standard operators; one that is no reason where there are none."""
    return opset_of(model) if imports_standard(model) else _FIRST_OPSET
