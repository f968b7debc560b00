"""The keys of a model card: what the reader allows, and what the documentation says of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_INPUT_GENERATORS = (
    "the name of a signal generator; `onnx-harness inspect` shows the one in use"
)


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a card's table.

    Attributes:
        name: as it is written.
        type: the words for its values.
        meaning: one sentence in Markdown, without its full stop.
        default: what holds where the key is absent, in Markdown; empty for a key that is required.
    """

    name: str
    type: str
    meaning: str
    default: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a card.

    Attributes:
        heading: its headings as they are written, such as ``[inputs.NAME]``.
        meaning: one or two sentences in Markdown.
        keys: in the order of the documentation.
    """

    heading: str
    meaning: str
    keys: tuple[Key, ...]


_BOUNDS = (
    Key(
        "rtol",
        "number",
        "relative tolerance of the element-wise rule; needs `atol`",
        "by precision",
    ),
    Key("atol", "number", "absolute tolerance of the element-wise rule", "by precision"),
    Key(
        "sqnr_db",
        "number",
        "least signal to quantization noise ratio of the whole output, in decibels",
        "40 for FP16, 25 for BF16, 15 for INT8",
    ),
    Key(
        "cosine",
        "number, -1 to 1",
        "least cosine of the angle to the reference",
        "not asked",
    ),
    Key(
        "top_k",
        "whole number",
        "the k greatest elements along the last axis have to be the reference's (1: the argmax)",
        "not asked",
    ),
    Key(
        "agreement",
        "number, 0 to 1",
        "the share of rows in which `top_k` has to hold",
        "1.0",
    ),
    Key(
        "signed_zero",
        "true or false",
        "-0 instead of 0 is a failure",
        "true; false for INT8",
    ),
)

TOP_KEYS = (
    Key(
        "custom_ops",
        "list",
        "libraries of custom operators, relative to the card; every session of the model gets them",
        "none",
    ),
)
"""The keys above the first table."""

TABLES: Mapping[str, Table] = {
    "model": Table(
        "[model]",
        "What the model is. For listings alone.",
        (
            Key("summary", "text", "one line for listings", "none"),
            Key("license", "text", "SPDX expression of the model's licence", "none"),
        ),
    ),
    "source": Table(
        "[source]",
        "Where the model comes from: one of `path`, `wheel` and `builder`. Without this table it "
        "is "
        "`NAME.onnx` in the card's folder.",
        (
            Key("path", "text", "the `.onnx`, relative to the card", "`NAME.onnx`"),
            Key(
                "wheel", "text", "a pinned requirement, such as `silero-vad==6.2.3`", "none"
            ),
            Key(
                "member",
                "text",
                "the model's path within the wheel; required with `wheel`",
                "none",
            ),
            Key(
                "builder",
                "text",
                "`FILE.py:FUNCTION`; it is called with the path to write to",
                "none",
            ),
            Key(
                "sha256",
                "64 hexadecimal digits",
                "of the `.onnx`; checked before the model is opened; required with `wheel`",
                "not checked",
            ),
        ),
    ),
    "inputs": Table(
        "[inputs.NAME]",
        "What can't be read from the graph about the input NAME.",
        (
            Key("generator", "text", _INPUT_GENERATORS, "chosen from the graph"),
            Key(
                "values",
                "list",
                "input set k is filled with `values[k % len(values)]`",
                "none",
            ),
            Key(
                "low",
                "number",
                "inclusive lower bound of generated values",
                "from the graph",
            ),
            Key(
                "high",
                "number",
                "inclusive upper bound of generated values",
                "from the graph",
            ),
            Key(
                "shapes",
                "list of shapes",
                "input set k takes `shapes[k % len(shapes)]`",
                "none",
            ),
            Key(
                "sizes",
                "table",
                "sizes of a named dimension or an axis number, in rotation; with `by`: a value of "
                "that "
                "other input, as text, to the size of this input's last axis",
                "from the graph",
            ),
            Key(
                "by",
                "text",
                "the other input whose value decides the size; it needs `values`",
                "none",
            ),
        ),
    ),
    "tolerance": Table(
        '[tolerance.OUTPUT], [tolerance."*"]',
        "The bounds of an output, or of every output. `[tolerance.OUTPUT.fp16]` (`fp32`, `bf16`, "
        "`int8`) holds "
        "for variants of that precision alone. `sqnr_db`, `cosine` and `top_k` take the place of "
        "the "
        "element-wise rule, unless `rtol` or `atol` is given too.",
        _BOUNDS,
    ),
    "placement": Table(
        "[placement], [placement.PROVIDER]",
        "What is asked of every provider but the CPU. `[placement.webgpu]` goes before "
        "`[placement]` for that "
        "provider; its `allowed_cpu_ops` are added.",
        (
            Key(
                "min_share",
                "number, 0 to 1",
                "share of the nodes that the provider must own",
                "by provider",
            ),
            Key(
                "min_time_share",
                "number, 0 to 1",
                "share of the time in kernels that it must have",
                "not asked",
            ),
            Key(
                "max_memcpy",
                "whole number",
                "most nodes that copy between device and host",
                "not asked",
            ),
            Key(
                "allowed_cpu_ops",
                "list",
                "op types that may run on the CPU, in addition to those that compute shapes; "
                "outside the "
                "standard domain as `domain:op`",
                "none",
            ),
        ),
    ),
    "sensitivity": Table(
        "[sensitivity]",
        "For runs with `--sensitivity`.",
        (
            Key(
                "minimum",
                "number, 0 to 1",
                "the share of planted faults that a cell has to catch",
                "not asked",
            ),
        ),
    ),
    "vacuous": Table(
        "[vacuous]",
        "Outputs that don't have to react to the inputs. Each key is the name of an output.",
        (),
    ),
    "recorded": Table(
        "[recorded]",
        "Outputs that were recorded with the inputs, in a `.npz` or a `test_data_set_N`.",
        (
            Key(
                "outputs",
                "`fail` or `note`",
                "what follows when the untouched model doesn't give them",
                "`fail`",
            ),
        ),
    ),
    "generate": Table(
        "[generate]",
        "For decoders: every cell that passes is also judged by greedy decoding, in which the "
        "cache that a step gives is fed to the next one. Caches that grow and caches of a fixed "
        "size with a position are known, and models without a cache.",
        (
            Key("prompt", "list", "ids of the tokens that it begins with", ""),
            Key("steps", "whole number", "how many tokens are generated", ""),
            Key("ids", "text", "the input that takes tokens", "found by name and type"),
            Key(
                "logits",
                "text",
                "the output with a score for each token of the vocabulary",
                "found by name and type",
            ),
            Key(
                "cache",
                "table",
                "inputs of the cache to the outputs that are fed back to them",
                "found by the names that exporters give, such as `past_key_values.0.key` and "
                "`present.0.key`",
            ),
        ),
    ),
    "random": Table(
        "[random]",
        "For a model that draws at random (RandomNormalLike, Dropout in training mode and the "
        "like). Its nodes that draw are replaced, before anything else sees the model, by nodes "
        "that give values of the same distribution, the same in every run. So all its outputs are "
        "judged. `onnx-harness transform` writes the model as it is, with the nodes that draw.",
        (
            Key(
                "seed",
                "whole number, 0 or more",
                "of the values that take the place of drawn ones",
                "nothing is replaced",
            ),
        ),
    ),
    "fp16": Table(
        "[fp16]",
        "For every conversion to float16.",
        (
            Key(
                "keep_float32",
                "list",
                "names of nodes that stay in float32; `onnx-harness transform --variant "
                "fp16.mixed --write-card` "
                "finds them",
                "none",
            ),
        ),
    ),
    "known_failure": Table(
        "[[known_failure]]",
        "Cells that a released library breaks, in as many of these tables as needed. When such a "
        "cell passes, "
        "that is a failure: the card stays true. With versions outside the entry's ranges it "
        "passes, and is called mended.",
        (
            Key("stage", "text", "the stage that they end in: {stages}", ""),
            Key("reason", "text", "one sentence: the defect, and whose it is", ""),
            Key(
                "versions",
                "table",
                "distribution to the version that it was seen in, or to a range such as `<1.33`",
                "",
            ),
            Key("variants", "list", "ids of the variants that fail", "all"),
            Key("providers", "list", "names of the providers", "all"),
            Key("cause", "text", "what `onnx-harness diagnose` says", "none"),
            Key("repro", "text", "its folder, relative to the card, or an address", "none"),
        ),
    ),
}
"""The tables of a card by the key that they stand under."""


def names_of(table: str) -> tuple[str, ...]:
    """Return the names of the keys that ``table`` may hold."""
    return tuple(key.name for key in TABLES[table].keys)
