"""Find out how a decoder is fed step by step: where tokens go, and what is fed back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from onnx_harness.cards.specs import GenerateSpec
from onnx_harness.errors import CardError, did_you_mean
from onnx_harness.model.file import Signature, ValueType


class Role(Enum):
    """The meaning of an input that counts tokens."""

    MASK = "1 for each token there is, 0 for each place that is free"
    POSITIONS = "the positions of the tokens that are fed"
    TOTAL = "how many tokens there are"
    LAST = "the position of the last token"
    PAST = "how many tokens are in the cache"
    HAS_PAST = "whether there is a cache"
    KINDS = "zeros beside the tokens"


# By the names that exporters give: optimum, torch.onnx, ONNX Runtime GenAI, Olive, Keras.
_ROLES: Sequence[tuple[re.Pattern[str], Role]] = (
    (re.compile(r"use_cache"), Role.HAS_PAST),
    (re.compile(r"total_seq"), Role.TOTAL),
    (re.compile(r"seqlens_k"), Role.LAST),
    (re.compile(r"(past|cache)_(seq|len)|start_pos"), Role.PAST),
    (re.compile(r"token_type|segment_ids"), Role.KINDS),
    (re.compile(r"mask"), Role.MASK),
    (re.compile(r"pos(ition)?s?(_ids?)?$|position|input_pos"), Role.POSITIONS),
)
_IDS = (
    "decoder_input_ids",
    "input_ids",
    "input_tokens",
    "token_ids",
    "tokens",
    "ids",
    "input",
)
_LOGITS = ("logits", "lm_logits", "scores")
# An input of a cache, and the output that is fed back to it: what is replaced in its name.
_PAIRS = (
    ("past_key_values", "present"),
    ("past_key_values", "present_key_values"),
    ("past", "present"),
    ("past", "new"),
    ("cache", "present"),
    ("cache", "new_cache"),
    ("cache", "cache_out"),
    ("_in", "_out"),
    ("in_", "out_"),
    ("input", "output"),
)
_PREFIXES = ("present_", "new_", "next_", "updated_")
_SUFFIXES = ("_out", "_output", "_new", "_next")
_LOOKS_CACHED = re.compile(r"past|cache")
# Keys and values of an encoder, which are the same in each step. What a decoder gives of them after
# the first step is empty, or a copy.
_OF_ENCODER = re.compile(r"(^|[._])(encoder|cross)([._]|$)")
_INTEGERS = ("tensor(int64)", "tensor(int32)")
_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)", "tensor(bfloat16)")


@dataclass(frozen=True, slots=True)
class Decoder:
    """The interface of a decoder.

    Attributes:
        ids: the input that takes tokens.
        whole: whether it takes any number of them at once; otherwise one.
        logits: the output with a score for each token of the vocabulary, in the last axis.
        cache: inputs of the cache to the outputs that are fed back to them.
        empty: the shapes of those inputs before the first step.
        roles: other inputs that count tokens.
        form: ``growing``, ``static`` or ``none``.
        places: how many tokens a cache of a fixed size can hold at most; None: no limit is known.
    """

    ids: ValueType
    whole: bool
    logits: str
    cache: Mapping[str, str]
    empty: Mapping[str, tuple[int, ...]]
    roles: Mapping[str, tuple[Role, ValueType]]
    form: str
    places: int | None


def decoder_of(signature: Signature, fed: Sequence[str], spec: GenerateSpec) -> Decoder:
    """Return the interface of a decoder, as the card and the names of its values tell.

    Args:
        signature: of the untouched model.
        fed: the inputs that have to be fed; those with a default aren't.
        spec: the card's ``[generate]``.

    Raises:
        CardError: the model is no decoder as far as the names tell; the message says which key of
            the card would.
    """
    inputs = {value.name: value for value in signature.inputs if value.name in fed}
    outputs = {value.name: value for value in signature.outputs}
    _check_names(spec, inputs, outputs)
    cache = _pairs(inputs, outputs, spec)
    roles = _roles(inputs, cache, spec)
    ids = _ids(inputs, roles, cache, spec)
    logits = _logits(outputs, cache, spec)
    for name in inputs:
        is_fed = name == ids.name or name in cache or name in roles
        if not is_fed and _LOOKS_CACHED.search(name) and not of_encoder(name):
            raise _error(
                spec,
                f"input '{name}' looks like a cache, and no output of its name is fed back. "
                f'Mend: [generate.cache] {name} = "OUTPUT"',
            )
    empty = {name: _empty_shape(inputs[name], ids) for name in cache}
    whole, form = _takes_any(ids, spec), _form(empty)
    if form == "none" and not whole:
        raise _error(
            spec,
            f"input '{ids.name}' takes one token and nothing is fed back: name the cache",
        )
    places = _places(empty) if form == "static" and _has(roles, Role.POSITIONS) else None
    length = len(spec.prompt) + spec.steps - 1
    if places is not None and length > places:
        raise _error(
            spec,
            f"prompt and steps take {length} places, and the cache has {places} at most",
        )
    return Decoder(ids, whole, logits, cache, empty, roles, form, places)


def of_encoder(name: str) -> bool:
    """Decide whether an input of a cache holds keys or values of an encoder."""
    return _OF_ENCODER.search(name) is not None


def _error(spec: GenerateSpec, words: str) -> CardError:
    return CardError(
        f"{spec.place}: generate: {words}" if spec.place else f"generate: {words}"
    )


def _check_names(
    spec: GenerateSpec, inputs: Mapping[str, ValueType], outputs: Mapping[str, ValueType]
) -> None:
    asked = [("input", spec.ids, inputs), ("output", spec.logits, outputs)]
    for name, output in spec.cache.items():
        asked += [("input", name, inputs), ("output", output, outputs)]
    for what, name_asked, there in asked:
        if name_asked is not None and name_asked not in there:
            hint = did_you_mean(name_asked, there)
            raise _error(spec, f"the model has no {what} '{name_asked}'. {hint}")


def _pairs(
    inputs: Mapping[str, ValueType], outputs: Mapping[str, ValueType], spec: GenerateSpec
) -> dict[str, str]:
    pairs = dict(spec.cache)
    taken = {*pairs.values(), spec.logits}
    for name, value in inputs.items():
        if name in pairs or name == spec.ids or len(value.shape or ()) < 2:
            continue
        for candidate in _fed_back(name):
            output = outputs.get(candidate)
            if output is not None and candidate not in taken and _alike(value, output):
                pairs[name] = candidate
                taken.add(candidate)
                break
    return pairs


def _fed_back(name: str) -> list[str]:
    """The names that an output may have which is fed back to an input, likeliest first."""
    names = []
    for old, new in _PAIRS:
        if old in name:
            names.append(name.replace(old, new, 1))
    names += [f"{prefix}{name}" for prefix in _PREFIXES]
    return names + [f"{name}{suffix}" for suffix in _SUFFIXES]


def _alike(value: ValueType, output: ValueType) -> bool:
    ranks = output.shape is None or len(output.shape) == len(value.shape or ())
    return value.kind == output.kind and ranks


def _roles(
    inputs: Mapping[str, ValueType], cache: Mapping[str, str], spec: GenerateSpec
) -> dict[str, tuple[Role, ValueType]]:
    roles = {}
    for name, value in inputs.items():
        role = next((role for pattern, role in _ROLES if pattern.search(name)), None)
        if name in cache or name == spec.ids or role is None or name in _IDS:
            continue
        rank = len(value.shape or ())
        if role is Role.MASK and rank != 2:
            raise _error(spec, f"input '{name}' is a mask of {rank} axes, and 2 are known")
        if role is Role.POSITIONS and value.kind not in _INTEGERS:
            continue
        roles[name] = (role, value)
    return roles


def _ids(
    inputs: Mapping[str, ValueType],
    roles: Mapping[str, tuple[Role, ValueType]],
    cache: Mapping[str, str],
    spec: GenerateSpec,
) -> ValueType:
    if spec.ids is not None:
        return inputs[spec.ids]
    integers = {}
    for name, value in inputs.items():
        is_free = name not in roles and name not in cache
        if is_free and value.kind in _INTEGERS and len(value.shape or ()) in (1, 2):
            integers[name] = value
    for name in _IDS:
        if name in integers:
            return integers[name]
    if len(integers) == 1:
        return next(iter(integers.values()))
    raise _error(spec, 'no input is certain to take the tokens. Mend: ids = "INPUT"')


def _logits(
    outputs: Mapping[str, ValueType], cache: Mapping[str, str], spec: GenerateSpec
) -> str:
    if spec.logits is not None:
        return spec.logits
    free = []
    for name, value in outputs.items():
        if name not in cache.values() and value.kind in _FLOATS:
            free.append(name)
    for name in _LOGITS:
        if name in free:
            return name
    if len(free) == 1:
        return free[0]
    raise _error(spec, 'no output is certain to be the logits. Mend: logits = "OUTPUT"')


def _takes_any(ids: ValueType, spec: GenerateSpec) -> bool:
    length = (ids.shape or (None,))[-1]
    if isinstance(length, int) and length > 1:
        raise _error(
            spec, f"input '{ids.name}' takes {length} tokens at once, and no single one"
        )
    return not isinstance(length, int)


def _empty_shape(value: ValueType, ids: ValueType) -> tuple[int, ...]:
    """The shape of a cache before the first step: one in the batch, none in a length that grows."""
    shape = value.shape or ()
    batch = ids.shape[0] if ids.shape is not None and len(ids.shape) == 2 else None
    dynamic = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
    named = [axis for axis in dynamic if batch is not None and shape[axis] == batch]
    batches = named or (dynamic[:1] if len(dynamic) > 1 else [])
    sizes = []
    for axis, size in enumerate(shape):
        sizes.append(size if isinstance(size, int) else int(axis in batches))
    return tuple(sizes)


def _form(empty: Mapping[str, tuple[int, ...]]) -> str:
    if not empty:
        return "none"
    return "growing" if any(0 in shape for shape in empty.values()) else "static"


def _places(empty: Mapping[str, tuple[int, ...]]) -> int:
    """The places that a cache of a fixed size has at most: no axis says that it is the length."""
    return max(max(shape) for shape in empty.values())


def _has(roles: Mapping[str, tuple[Role, ValueType]], role: Role) -> bool:
    return any(own is role for own, _ in roles.values())
