"""Choose how far an output may lie from the reference.

There are defaults by precision, the card's word, and the command line's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from onnx_harness.cards.card import ToleranceSpec
from onnx_harness.errors import UsageError
from onnx_harness.transforms import Precision


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The bounds by which one output is judged.

    Element-wise, ``|candidate - reference| <= rtol * |reference| + atol``. The last term keeps
    values near zero from being judged by their own size: unless it's given it is ``k`` times the
    greatest finite magnitude of that output in that input set.

    Attributes:
        rtol: relative tolerance of an element.
        atol: absolute tolerance of an element; None: ``k * max|reference|``.
        k: see ``atol``.
        elementwise: whether the element-wise rule holds at all.
        sqnr_db: least signal to quantization noise ratio of the whole output in decibels; None: no
            such demand.
        signed_zero: whether +0 where the reference has -0 (or the reverse) is a failure.
        cosine: least cosine of the angle to the reference; None: no such demand.
        top_k: how many of the greatest elements along the last axis have to be the reference's;
            None: no such demand.
        agreement: the share of rows in which they have to be, in [0, 1].
        chosen: somebody set its bounds for this output: they hold to the letter. A default yields
            to the noise floor.
        integer_atol: greatest difference of an integer output's elements. Integers aren't
            measurements: a class index is right or wrong, so only an ``atol`` that a card gives
            loosens them, and ``rtol`` never does. Booleans and text are always exact.
        share_beyond: the share of a float output's elements, in [0, 1], that may be beyond the
            element-wise rule.
        most_times: how many times what is allowed those may be off.
        choices_changed: the share of rows in which the top choice may change, where an output is
            one to choose by (`distribution_axis`); None: that isn't asked.
        axis: along which the output is chosen by, since an ArgMax or TopK reads it; None: the
            values tell.
        are_levels: integers that floats were cast or quantized to: where the type explains that
            some differ, the signal to noise ratio says whether they're of use.
    """

    rtol: float
    atol: float | None = None
    k: float = 0.0
    elementwise: bool = True
    sqnr_db: float | None = None
    signed_zero: bool = True
    integer_atol: float = 0.0
    cosine: float | None = None
    top_k: int | None = None
    agreement: float = 1.0
    chosen: bool = False
    share_beyond: float = 0.0
    most_times: float = 1.0
    choices_changed: float | None = None
    axis: int | None = None
    are_levels: bool = False

    def __post_init__(self) -> None:
        for name in ("rtol", "atol", "k", "integer_atol"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UsageError(
                    f"a tolerance's {name} is a finite number that isn't negative; {value!r} isn't"
                )
        if self.sqnr_db is not None and not math.isfinite(self.sqnr_db):
            raise UsageError(
                f"a tolerance's sqnr_db is a finite number of decibels; {self.sqnr_db!r} isn't"
            )

    def bounds(self, scale: float) -> tuple[float, float]:
        """Return the (rtol, atol) of a floating-point output.

        Its greatest finite magnitude is ``scale``.
        """
        return self.rtol, self.k * scale if self.atol is None else self.atol

    @property
    def by_default(self) -> bool:
        """Nobody stated a bound, and the output is judged as a distribution."""
        return self.choices_changed is not None

    def scaled(self, factor: float) -> Tolerance:
        """Return the same rule with its element-wise bounds multiplied by ``factor``.

        It must not be negative.
        """
        atol = None if self.atol is None else self.atol * factor
        return replace(self, rtol=self.rtol * factor, atol=atol, k=self.k * factor)


# Where the defaults come from: an FP32 graph that is merely reordered moves by a few hundred units
# in the last place (2^-23 = 1.2e-7) after long sums; float16 and TF32 both keep 10 bits of fraction
# (2^-11 = 4.9e-4 per rounding), and bfloat16 keeps 7 (2^-8 = 3.9e-3 per rounding: 8 times as much,
# so 8 times the tolerance of float16). k is the share of the output's range that cancellation may
# leave on an element that is itself small. A quantized zero has no sign.
#
# In a reduced type an output is judged as a distribution, since the bounds above know nothing of
# its size: among 600,000 values the worst one lies far out. Of 55 trained models 9 failed by
# 0.0003% to 0.4% of their elements.
#
# Decibels: rounding normal numbers once leaves 74 dB in float16, 56 in bfloat16 and 39 in 256
# levels (measured on 2^20 of them; 6.02 dB for each bit, Bennett 1948). A network rounds a hundred
# times and cancels. The zoo's outputs as fp16.io32 have 41 dB (ppocr_v4_rec) to 83 (swift_f0), and
# 40 is a relative L2 error of 1%. bfloat16 has 18 dB less for its three bits, so 25 is 3 dB more
# lenient than float16's 40. The zoo's int8 outputs that are of use have 15.6 to 59, and those that
# its cards call unusable 12.9 and less; 15 is a noise power of 3%, a relative L2 error of 18%.
#
# Shares: one element of a thousand beyond the rule, none beyond 10 times it. Where a thousandth of
# a normal error is beyond the rule, its standard deviation is 0.30 of that, and the greatest of a
# million 1.5 times the rule: 10 times is no tail of a distribution but a fault.
#
# Choices: MLPerf Inference (Reddi et al. 2019, arXiv:1911.02549) asks reduced types for 99% of
# FP32's accuracy.
_SHARE, _TIMES, _CHOICES = 1e-3, 10.0, 0.01
_DEFAULTS: Mapping[Precision, Tolerance] = {
    Precision.FP32: Tolerance(rtol=1e-4, k=1e-5),
    Precision.FP16: Tolerance(
        rtol=1e-2,
        k=5e-3,
        sqnr_db=40.0,
        share_beyond=_SHARE,
        most_times=_TIMES,
        choices_changed=_CHOICES,
    ),
    Precision.BF16: Tolerance(
        rtol=8e-2,
        k=4e-2,
        sqnr_db=25.0,
        share_beyond=_SHARE,
        most_times=_TIMES,
        choices_changed=_CHOICES,
    ),
    Precision.INT8: Tolerance(
        rtol=0.0,
        elementwise=False,
        sqnr_db=15.0,
        signed_zero=False,
        choices_changed=_CHOICES,
    ),
}
# What somebody states holds to the letter.
_TO_THE_LETTER: Mapping[str, Any] = {
    "share_beyond": 0.0,
    "most_times": 1.0,
    "choices_changed": None,
}


# Bits of fraction of the element types that hold too few of them for 1e-6, as they are called in a
# value's kind.
_FRACTION_BITS = {"bfloat16": 7, "float16": 10, "float8e5": 2, "float8e4": 3, "float4": 1}


def same_values(kind: str) -> Tolerance:
    """Return the tolerance of a transform on single operators if it declares that it keeps values.

    1e-6 of the element, or one unit in the last place where the output's type is coarser, and 1e-6
    of the output's greatest magnitude: what ONNX Runtime's own optimizer does to the sum of a
    convolution.

    Args:
        kind: of the output, such as ``tensor(float16)``.
    """
    bits = next((bits for name, bits in _FRACTION_BITS.items() if name in kind), None)
    return Tolerance(rtol=1e-6 if bits is None else 2.0**-bits, k=1e-6)


def choose(
    precision: Precision, spec: ToleranceSpec | None, override: tuple[float, float] | None
) -> Tolerance:
    """Choose the tolerance of one output.

    It's the default of its precision, then the card's word, then the command line's.

    What a card leaves out keeps its default, with two exceptions that follow from the rules being
    several. A card that gives ``sqnr_db``, ``cosine`` or ``top_k`` and neither ``rtol`` nor
    ``atol`` replaces the element-wise rule, and one that gives both kinds demands both. On INT8,
    which has no element-wise rule of its own, an ``rtol`` or ``atol`` of the card adds one, and the
    bound that the card leaves out is 0.

    Args:
        precision: the arithmetic that the variant left behind.
        spec: the card's entry for this output, as `spec_for` finds it.
        override: (rtol, atol) of the command line: the element-wise rule with these, whatever the
            precision. It says nothing about integers and about the sign of zero.

    Raises:
        UsageError: a bound is negative, infinite or NaN.
    """
    tolerance = _DEFAULTS[precision]
    if spec is not None:
        tolerance = _with_card(tolerance, spec)
        if precision in spec.by_precision:
            tolerance = _with_card(tolerance, spec.by_precision[precision])
    if override is not None:
        rtol, atol = override
        tolerance = replace(
            tolerance,
            rtol=rtol,
            atol=atol,
            elementwise=True,
            sqnr_db=None,
            cosine=None,
            top_k=None,
            chosen=True,
            **_TO_THE_LETTER,
        )
    return tolerance


def spec_for(entries: Mapping[str, ToleranceSpec], output: str) -> ToleranceSpec | None:
    """The card's entry for ``output``: each value from its own entry, else from that of ``*``."""
    own, general = entries.get(output), entries.get("*")
    if own is None or general is None:
        return own or general
    chosen = {}
    for field in fields(ToleranceSpec):
        value = getattr(own, field.name)
        chosen[field.name] = getattr(general, field.name) if value is None else value
    chosen["by_precision"] = {**general.by_precision, **own.by_precision}
    return ToleranceSpec(**chosen)


def _with_card(tolerance: Tolerance, spec: ToleranceSpec) -> Tolerance:
    bounded = spec.rtol is not None or spec.atol is not None
    overall: dict[str, Any] = {
        "sqnr_db": spec.sqnr_db,
        "cosine": spec.cosine,
        "top_k": spec.top_k,
    }
    stated = {name: value for name, value in overall.items() if value is not None}
    if stated:  # the task's own measure takes the place of the default ones
        tolerance = replace(
            tolerance, **{"sqnr_db": None, "elementwise": False, **_TO_THE_LETTER, **stated}
        )
    if spec.agreement is not None:
        tolerance = replace(tolerance, agreement=spec.agreement)
    if bounded:
        # A default ratio makes way for a stated bound, but for INT8's, which was there beside it
        # before.
        ratio = tolerance.sqnr_db if stated or not tolerance.elementwise else None
        tolerance = replace(
            tolerance, elementwise=True, chosen=True, sqnr_db=ratio, **_TO_THE_LETTER
        )
    if spec.rtol is not None:
        tolerance = replace(tolerance, rtol=spec.rtol)
    if spec.atol is not None:
        tolerance = replace(tolerance, atol=spec.atol, integer_atol=spec.atol)
    if spec.signed_zero is not None:
        tolerance = replace(tolerance, signed_zero=spec.signed_zero)
    return tolerance
