"""Steps that turn a model into another: one file each, declared here, loaded when asked for.

Importing this package or any file in it imports neither onnx nor onnxruntime: collection stays
cheap. A file does its heavy imports inside ``apply``.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

from onnx_harness.errors import NotApplicable, UsageError, did_you_mean
from onnx_harness.names import OptionValue, Step
from onnx_harness.names.extensions import extensions, registered

if TYPE_CHECKING:
    import onnx

    from onnx_harness.model.file import Model

ENTRY_POINTS = "onnx_harness.transforms"


class Precision(StrEnum):
    """The arithmetic that a transform leaves behind: what decides the tolerance. Loosest last."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


_log = logging.getLogger(__name__)
_collecting: ContextVar[list[str] | None] = ContextVar("collecting", default=None)
_detailing: ContextVar[list[str] | None] = ContextVar("detailing", default=None)

# What a transform does: a checked ModelProto and its options in, a ModelProto out. The one passed
# in may be changed.
Apply = Callable[..., "onnx.ModelProto"]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a transform, each of which can be left out by name: what a diagnosis searches.

    Attributes:
        kind: of all parts: ``pass``, ``rule`` or ``node``.
        names: the parts, of the model that the step is applied to and the step's options.
        without: the options that leave parts out, from the step's options and the parts' names.
    """

    kind: str
    names: Callable[[onnx.ModelProto, Mapping[str, Any]], Sequence[str]]
    without: Callable[[Mapping[str, Any], Sequence[str]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Transform:
    """The declaration of a transform file, ``TRANSFORM``.

    It's one, or a tuple where forms differ in more than options.

    Attributes:
        summary: one line for listings.
        apply: the function.
        forms: step names, each with the options that it presets: ``{"fp16.io32": {"keep_io_types":
            True}}``.
        options: names and types of the options a user may write in parentheses.
        requires: distributions whose versions decide the result, and which must be installed.
        precision: of the result.
        float_io: the dtype that float32 inputs and outputs may change to (``"float16"``), or None:
            none may change.
        keeps_values: on single operators every value is the original's, to 1e-6 or one unit in the
            last place.
        input_shapes: the option, if any, in which the user fixes the shapes of inputs:
            ``"x:1,3,224,224"`` for each.
        session: the step is an option of the session, not a change of the model: ``apply`` is never
            called.
        groups: the variant groups that all forms belong to.
        calibrated: ``apply`` also takes ``samples``: input sets, a value by input name in each.
        chosen: ``apply`` also takes ``choose``, which chooses by verdicts the nodes that stay as
            they are. What it's asked is the transform's own: see ``half.mixed`` and
            ``quantization.mixed``.
        check: called with the options when a step is bound, so that a value that can't be honoured
            is refused before anything runs: it raises ValueError.
        parts: what it consists of, where that can be switched by name.
        most_bytes: of a model with its external data that it takes; None: any. A larger one isn't
            even read.
        larger: a sentence on what takes its place then.
        streams: weights of the model that it takes may still be external, in the folder that
            ``model.streaming`` names.
    """

    summary: str
    apply: Apply
    forms: Mapping[str, Mapping[str, OptionValue]]
    options: Mapping[str, type] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    precision: Precision = Precision.FP32
    float_io: str | None = None
    keeps_values: bool = False
    input_shapes: str | None = None
    session: bool = False
    groups: tuple[str, ...] = ()
    calibrated: bool = False
    chosen: bool = False
    check: Callable[..., object] | None = None
    parts: Parts | None = None
    most_bytes: int | None = None
    larger: str = ""
    streams: bool = False


@dataclass(frozen=True, slots=True)
class BoundStep:
    """A step, looked up: the transform and all its options, presets and written ones merged."""

    name: str
    transform: Transform
    options: Mapping[str, OptionValue]

    def __call__(
        self,
        model: onnx.ModelProto,
        samples: Sequence[Mapping[str, Any]] = (),
        choose: Callable[..., Any] | None = None,
    ) -> onnx.ModelProto:
        """Apply the transform with its options.

        Args:
            model: it may be changed.
            samples: reach the transform if it's calibrated.
            choose: reaches it if it declares that nodes are chosen.

        Raises:
            UsageError: nodes are to be chosen, and nobody is here who judges.
        """
        further: dict[str, Any] = {"samples": samples} if self.transform.calibrated else {}
        if self.transform.chosen:
            if choose is None:
                raise UsageError(
                    f"step '{self.name}' needs verdicts to choose by, and a call of the transform "
                    f"alone has none. "
                    "Mend: onnx-harness transform, or pytest"
                )
            further["choose"] = choose
        result = self.transform.apply(model, **further, **self.options)
        if self.transform.streams:
            from onnx_harness.model.streaming import complete

            complete(result)
        return result

    @contextlib.contextmanager
    def opened(self, before: Model) -> Iterator[onnx.ModelProto]:
        """Load the model that the step is the first to change, for the length of the block.

        Large external weights aren't read where the step reads them one at a time.

        Raises:
            NotApplicable: the model is larger than the step takes.
            ModelError: it can't be read.
        """
        transform = self.transform
        if transform.most_bytes is not None and before.size_bytes > transform.most_bytes:
            words = f"up to {transform.most_bytes / 2**30:.0f} GB"
            raise NotApplicable(
                f"'{self.name}' takes models {words} and this one has "
                f"{before.size_bytes / 2**30:.1f} GB. {transform.larger}".rstrip()
            )
        if not (transform.streams and before.external_files):
            yield before.load()
            return
        from onnx_harness.model.streaming import streamed

        with streamed(before) as model:
            yield model


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """The name and the shape that ``"x:1,3,224,224"`` says; ``"x:"`` is a scalar's.

    Raises:
        ValueError: it doesn't say both.
    """
    # A name may hold colons itself: many exporters end it in ":0".
    name, colon, dims = text.rpartition(":")
    sizes = [dim.strip() for dim in dims.split(",")] if dims.strip() else []
    if not colon or not name or not all(size.isdecimal() for size in sizes):
        raise ValueError(
            f"{text!r} is no shape of an input; one is written NAME:1,3,224,224"
        )
    return name, tuple(int(size) for size in sizes)


@contextlib.contextmanager
def remarks() -> Iterator[list[str]]:
    """Collect, in the list that it gives, what transforms remark meanwhile."""
    collected: list[str] = []
    token = _collecting.set(collected)
    try:
        yield collected
    finally:
        _collecting.reset(token)


def remark(text: str) -> None:
    """Say, from inside a transform, what whoever reads its result should know.

    Logged where nobody collects it.
    """
    collected = _collecting.get()
    if collected is None:
        _log.warning("%s", text)
    else:
        collected.append(text)


@contextlib.contextmanager
def details() -> Iterator[list[str]]:
    """Collect, in the list that it gives, what transforms did, in their own words."""
    collected: list[str] = []
    token = _detailing.set(collected)
    try:
        yield collected
    finally:
        _detailing.reset(token)


def detail(text: str) -> None:
    """Say, from inside a transform, what it did.

    For those who asked, as ``onnx-harness transform`` does.
    """
    collected = _detailing.get()
    if collected is not None:
        collected.append(text)


@cache
def registry() -> Mapping[str, Transform]:
    """Return every transform by step name.

    Those of other packages (entry point ``onnx_harness.transforms``) are included.

    What can't be loaded, or claims a name that is taken, is left out: see :func:`left_out`.
    """
    return _registered()[0]


def left_out() -> tuple[str, ...]:
    """A sentence for each transform of another package that can't be used, and why."""
    return _registered()[1]


@cache
def _registered() -> tuple[Mapping[str, Transform], tuple[str, ...]]:
    modules = []
    for info in pkgutil.iter_modules(__path__):
        modules.append(importlib.import_module(f"{__name__}.{info.name}"))
    ours = {}
    for module in modules:
        for forms, transform in _declared(module):
            for form in forms:
                ours[form] = transform
    return registered(ours, extensions(ENTRY_POINTS), _declared, "transform")


def _declared(module: object) -> Iterable[tuple[Iterable[str], Transform]]:
    """Give each transform that a module declares with the names of its forms."""
    declared: Transform | tuple[Transform, ...] = getattr(module, "TRANSFORM", ())
    transforms = (declared,) if isinstance(declared, Transform) else declared
    return [(transform.forms, transform) for transform in transforms]


def bind(step: Step) -> BoundStep:
    """Look a step up and check its options.

    Raises:
        UsageError: there's no such step or option, or a value is of the wrong type.
    """
    transform = registry().get(step.name)
    if transform is None:
        words = (
            f"there is no transform '{step.name}'.",
            did_you_mean(step.name, registry()),
            *left_out(),
        )
        raise UsageError(" ".join(words))
    options = dict(transform.forms[step.name])
    for key, value in step.options:
        option_type = transform.options.get(key)
        if option_type is None:
            suggestion = (
                did_you_mean(key, transform.options) if transform.options else "It has none."
            )
            raise UsageError(f"transform '{step.name}' has no option '{key}'. {suggestion}")
        if option_type is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not option_type:
            raise UsageError(
                f"option '{key}' of transform '{step.name}' is a {option_type.__name__}; {value!r} "
                f"isn't one"
            )
        options[key] = value
    if transform.check is not None:
        try:
            transform.check(**options)
        except ValueError as error:
            raise UsageError(f"step '{step}' can't be honoured: {error}") from None
    return BoundStep(step.name, transform, options)
