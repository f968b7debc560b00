"""The terms of the report, explained once: a tooltip where one is used, a list at the end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Term:
    """A term of the report.

    Attributes:
        meaning: a sentence or two.
        page: of the repository that tells more.
    """

    name: str
    meaning: str
    page: str


_JUDGED = "docs/verdict.md"
_TIMED = "docs/latency.md"
_PLACED = "docs/providers.md"
_DIAGNOSED = "docs/diagnose.md"
_SENSITIVITY = "docs/trust.md"
_NIGHTLY = "docs/gate.md"
_FED = "docs/inputs.md"

TERMS: dict[str, Term] = {
    "reference": Term(
        "reference",
        "The untouched model on the CPU provider in float32, with graph optimizations disabled. "
        "Accuracy is judged against it.",
        _JUDGED,
    ),
    "baseline": Term(
        "baseline",
        "The untouched model on the same provider with ONNX Runtime's default optimizations. "
        "Latency is judged against it.",
        _TIMED,
    ),
    "faithful": Term(
        "faithful",
        "The departure is explained by the model's own noise, or by what the type costs: "
        "at most 4 times that, as a relative L2 error.",
        _JUDGED,
    ),
    "usable": Term("usable", "The outputs are within your tolerance.", _JUDGED),
    "departure": Term(
        "departure",
        "What a difference from the reference is: exact (the same bits), noise (no further than "
        "the untouched model's own noise), or change.",
        _JUDGED,
    ),
    "floor": Term(
        "noise floor",
        "How far the untouched model itself moves when its last bits do, as a relative L2 error.",
        _JUDGED,
    ),
    "ideal": Term(
        "ideal conversion",
        "The original graph with every weight, input and intermediate rounded through the "
        "narrower type: what the type alone costs.",
        _JUDGED,
    ),
    "tolerance": Term(
        "error, of the tolerance",
        "The smallest relative tolerance that would pass, over the one used: above 100% it fails.",
        _JUDGED,
    ),
    "minimum": Term(
        "would pass at",
        "The smallest relative tolerance that would pass, the absolute one scaled along with it.",
        _JUDGED,
    ),
    "rtol": Term(
        "rtol, atol",
        "An element may depart by atol + rtol times the magnitude of the reference's element.",
        _JUDGED,
    ),
    "factor": Term(
        "times",
        "The relative L2 error over what explains it, the greater of noise floor and ideal "
        "conversion. Up to 4 times is faithful.",
        _JUDGED,
    ),
    "greatest": Term(
        "max abs, max rel",
        "The greatest absolute error of an element, and the greatest relative one where the "
        "reference isn't 0.",
        _JUDGED,
    ),
    "cosine": Term(
        "cosine",
        "The cosine of the angle between output and reference: 1 is equal.",
        _JUDGED,
    ),
    "nonfinite": Term(
        "NaN/inf",
        "Elements that are NaN or infinite here or in the reference, and not the same in both.",
        _JUDGED,
    ),
    "simulated": Term(
        "simulated float16",
        "The converted model, run with each float16 value rounded as hardware rounds it.",
        _JUDGED,
    ),
    "coverage": Term(
        "coverage of inputs",
        "Of the places by which a model decides (leaves of trees, branches, rows of tables), "
        "those that the input sets reach.",
        _FED,
    ),
    "l2": Term(
        "relative L2 error",
        "The norm of the difference over the norm of the reference.",
        _JUDGED,
    ),
    "sqnr": Term(
        "SQNR",
        "Signal to quantization noise ratio in decibels: 20 dB are a relative L2 error of 10%.",
        _JUDGED,
    ),
    "speedup": Term(
        "speedup",
        "Time of the baseline over time of the variant, the median over fresh pairs of sessions; "
        "above 1 the variant is faster. In brackets the 95% interval over the pairs.",
        _TIMED,
    ),
    "pairs": Term(
        "pairs",
        "Two fresh sessions, variant and baseline, that take turns on the same inputs. A pair is "
        "one reading.",
        _TIMED,
    ),
    "placement": Term(
        "placement",
        "Which provider executes which nodes, by ONNX Runtime's own records. The share is that "
        "of the provider asked for, of the nodes that aren't allowed elsewhere.",
        _PLACED,
    ),
    "sensitivity": Term(
        "sensitivity",
        "Of the faults planted in the model that change anything, the share that made the cell "
        "fail: how much a pass is worth.",
        _SENSITIVITY,
    ),
    "emulated": Term(
        "emulated",
        "The model asks for float16, and the provider computes in float32. Its accuracy is that "
        "of a simulated run; its speed says nothing of float16.",
        _JUDGED,
    ),
    "diagnosis": Term(
        "diagnosis",
        "The cause of a failure, searched for by trials: the transform, its pass or rule, the "
        "first node that departs on its own, and a variant that passes.",
        _DIAGNOSED,
    ),
    "own": Term(
        "own error",
        "The relative L2 error of a node's output when its inputs are the reference's. The error "
        "of its inputs as the candidate runs is inherited.",
        _DIAGNOSED,
    ),
    "night": Term(
        "nights",
        "Each run of the history on this processor. Time is counted in that of the pinned "
        "reference, which slows with the machine; without one, in that of the baseline.",
        _NIGHTLY,
    ),
    "level": Term(
        "accepted level",
        "What a cell took when somebody last said that it is as it should be.",
        _NIGHTLY,
    ),
    "change_point": Term(
        "change point",
        "A night at which the level of a cell's times seems to have moved. Advice, no verdict.",
        _NIGHTLY,
    ),
    "slower": Term(
        "slower operators",
        "Nodes that take longer than with the accepted versions, profiled side by side; "
        "the share is that of the whole slowdown.",
        _NIGHTLY,
    ),
    "vacuous": Term(
        "vacuous",
        "The comparison could not have failed: the output doesn't react to the inputs.",
        _JUDGED,
    ),
}
