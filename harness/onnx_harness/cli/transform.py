"""``onnx-harness transform``: write the model that a variant makes of another."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from onnx_harness import providers, transforms
from onnx_harness.cards.keep_float32 import write_keep_float32
from onnx_harness.cell import matrix
from onnx_harness.cell.matrix import GROUPS
from onnx_harness.cli import DONE, NEGATIVE
from onnx_harness.cli.applying import apply
from onnx_harness.cli.common import (
    add_json,
    add_limits,
    add_model,
    add_settings,
    find_model,
    named_death,
    refuse_provider,
    settings_of,
    shown_progress,
    started_worker,
)
from onnx_harness.cli.show import console, size, write_json
from onnx_harness.cli.transformed import show
from onnx_harness.cli.writing import check_output, find_objections, folder_for, publish
from onnx_harness.errors import UsageError
from onnx_harness.judging.card_options import takes_nodes
from onnx_harness.model.custom_ops import WithLibraries
from onnx_harness.model.file import INLINE_BYTES
from onnx_harness.names import CARD_SUFFIX, Step, Variant, parse_variant
from onnx_harness.settings import Settings
from onnx_harness.transforms.variant import BoundVariant, bind_variant

_EPILOG = (
    "The steps run one after another in a worker process, within its limits. A step such as "
    "int8.static is\n"
    "calibrated on the input sets that pytest would calibrate it on: those of a NAME.npz "
    "beside it, and\n"
    "generated ones; one such as fp16.mixed chooses by the verdicts that pytest would give.\n"
    "OUT appears whole or not at all;\n"
    f"above {size(INLINE_BYTES)} its weights go to OUT.data beside it, sooner where those of "
    "MODEL lie in such a file. When the ONNX checker "
    f"rejects what was\n"
    "written, or its inputs or outputs aren't what they were, OUT is there, the reason is "
    "told, and the exit\n"
    "code is 1."
)


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_model(parser)
    parser.add_argument(
        "--variant",
        metavar="V",
        required=True,
        help="such as simplify+fp16.io32, or a variant of pyproject.toml's",
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=Path, required=True, help="the .onnx to write"
    )
    parser.add_argument(
        "--overwrite-input-shape",
        metavar="NAME:DIMS",
        action="append",
        default=[],
        help=(
            "let an input have this shape alone, such as x:1,3,224,224; repeatable; for `simplify`"
        ),
    )
    parser.add_argument("--force", action="store_true", help="overwrite OUT")
    parser.add_argument(
        "--write-card",
        action="store_true",
        help=(
            "write the nodes that fp16.mixed keeps in float32 to the model's card, which every "
            "fp16 variant reads"
        ),
    )
    inputs = parser.add_argument_group(
        "inputs, for steps that are calibrated on them or choose by verdicts"
    )
    add_settings(inputs, "input_sets", "seed")
    parser.add_argument(
        "--provider",
        metavar="NAME",
        help=(
            "whose verdicts fp16.mixed chooses by: what it refuses stays float32 (default: cpu)"
        ),
    )
    add_settings(parser, "custom_ops")
    add_json(parser)
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="leave out what each step did, rule by rule",
    )
    add_limits(parser)
    parser.epilog = _EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Transform a model."""
    settings = settings_of(
        args,
        *("input_sets", "seed", "custom_ops"),
        *("cell_timeout", "cell_memory", "trust_models", "allow_read"),
    )
    variant = _with_shapes(one_variant(args.variant, settings), args.overwrite_input_shape)
    bound = bind_variant(variant)
    idle = [step.name for step in bound.steps if step.transform.session]
    steps = tuple(step for step in variant.steps if step.name not in idle)
    if not steps:
        why = "it is the empty chain"
        if idle:
            why = f"{', '.join(idle)} is an option of the session"
        raise UsageError(
            f"variant '{variant.spelling}' changes no file: {why}. Nothing was written."
        )
    _refuse_idle_options(args, bound)
    provider = providers.get(args.provider or "cpu")
    refuse_provider(provider.name, settings)
    card, path = find_model(args.model)
    out: Path = args.output
    check_output(out, path, force=args.force)
    libraries = (*card.custom_ops, *settings.custom_ops)
    readable = (path, card.path, *libraries)
    with (
        folder_for(out) as folder,
        started_worker(
            settings, provider.environment, readable=readable, writable=(folder,)
        ) as worker,
    ):
        unpublished = folder / out.name
        with (
            named_death(f"variant '{variant.spelling}' on {path.name}"),
            shown_progress(worker),
        ):
            output = (unpublished, INLINE_BYTES)
            arguments = (path, steps, *output, card, settings, out, provider.name)
            written = worker.call(WithLibraries(libraries, apply), *arguments)
        try:
            with named_death(f"{out} was written; checking it"):
                verdict = worker.call(find_objections, path, unpublished, variant)
        finally:
            publish(folder, out)
    if args.write_card and written.keeps_float32 is not None:
        write_keep_float32(_card_to_write(args.model), written.keeps_float32)
    if args.json:
        write_json(
            {"output": out, "variant": variant.spelling, "session_steps": idle}
            | asdict(written)
            | {"problems": verdict.problems(), "notes": [*written.remarks, *verdict.notes()]}
        )
    else:
        told = replace(written, did=()) if args.quiet else written
        show(console(), out, variant, told, verdict, idle)
    return NEGATIVE if verdict.problems() else DONE


def _refuse_idle_options(args: argparse.Namespace, bound: BoundVariant) -> None:
    """Raise UsageError for an option that no step of the variant asks for."""
    spelling = bound.variant.spelling
    calibrated = any(
        step.transform.calibrated or step.transform.chosen for step in bound.changing
    )
    if not calibrated and (args.input_sets is not None or args.seed is not None):
        raise UsageError(
            f"no step of '{spelling}' is calibrated: --input-sets and --seed have no effect"
        )
    if args.provider and not any(step.transform.chosen for step in bound.changing):
        raise UsageError(
            f"no step of '{spelling}' chooses by verdicts: --provider has no effect"
        )
    chooses = any(step.transform.chosen and takes_nodes(step) for step in bound.changing)
    if args.write_card and not chooses:
        raise UsageError(
            f"no step of '{spelling}' chooses nodes: --write-card has no effect. Mend: fp16.mixed"
        )


def _with_shapes(variant: Variant, shapes: list[str]) -> Variant:
    """The variant, the shapes handed to those of its steps that take some.

    Raises:
        UsageError: none does, or what was written is no shape.
    """
    if not shapes:
        return variant
    steps, replaced = [], False
    for step in variant.steps:
        option = transforms.bind(step).transform.input_shapes
        if option:
            replaced = True
            step = Step(
                step.name,
                tuple(sorted({**dict(step.options), option: tuple(shapes)}.items())),
            )
        transforms.bind(step)
        steps.append(step)
    if not replaced:
        raise UsageError(
            f"no step of '{variant.spelling}' takes shapes of inputs: --overwrite-input-shape has "
            f"no effect. "
            f"Mend: --variant simplify+{variant.spelling}"
        )
    return Variant(variant.id, tuple(steps))


def one_variant(word: str, settings: Settings) -> Variant:
    """The one variant that ``word`` names.

    Raises:
        UsageError: it's a group, unknown, or needs what isn't installed.
    """
    if word in GROUPS and word not in settings.variants:
        # `fp16` is a step and also a group. Where one model is made, the step is meant.
        if word not in transforms.registry():
            members = matrix.expand_variants([word], settings.variants)
            names = ", ".join(variant.id for variant in members[:6])
            raise UsageError(f"'{word}' is a group of variants; name one, such as {names}")
        return parse_variant(word)
    return matrix.expand_variants([word], settings.variants)[0]


def _card_to_write(model: Path) -> Path:
    return model if model.name.endswith(CARD_SUFFIX) else matrix.card_beside(model)
