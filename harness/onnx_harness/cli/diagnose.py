"""``onnx-harness diagnose``: the cause of a failure, in one sentence with its evidence."""

from __future__ import annotations

import argparse
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness import providers
from onnx_harness.cards.card import Card
from onnx_harness.cards.seeded import judged_file
from onnx_harness.cell.matrix import Cell, expand_variants, named_card
from onnx_harness.cell.state import Task
from onnx_harness.cli import DONE, INTERRUPTED, NEGATIVE
from onnx_harness.cli.common import (
    add_json,
    add_settings,
    find_model,
    refuse_provider,
    settings_of,
    started_worker,
)
from onnx_harness.cli.show import console, error_console, labelled, text, write_json
from onnx_harness.diagnose.budget import DEFAULT_SECONDS
from onnx_harness.errors import ModelError, UsageError, did_you_mean
from onnx_harness.names import Variant, is_model_file
from onnx_harness.settings import Settings
from onnx_harness.settings.project import nearest_settings

if TYPE_CHECKING:
    from onnx_harness.diagnose.search import Search
    from onnx_harness.results.diagnosis import Diagnosis

KEYS = (
    "input_sets",
    "seed",
    "rtol",
    "atol",
    "min_placement",
    "custom_ops",
    "cell_timeout",
    "cell_memory",
    "allow_read",
)

_MOST_WORDS = 1000


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    help_words = (
        "a cell's id, such as silero_vad-simplify-cpu; a model with --variant; or two "
        "models, A and B"
    )
    parser.add_argument("what", metavar="CELL | MODEL | A B", nargs="+", help=help_words)
    parser.add_argument(
        "--budget",
        type=float,
        default=DEFAULT_SECONDS,
        metavar="SECONDS",
        help=f"time to search (default: {DEFAULT_SECONDS:g})",
    )
    declare_subject(parser)
    parser.add_argument(
        "--repro",
        type=Path,
        metavar="DIR",
        help="where the smallest model that still fails goes (default: reports/repro/CELL)",
    )
    parser.add_argument(
        "--no-repro", action="store_true", help="don't look for the smallest model"
    )
    parser.add_argument(
        "--public",
        action="store_true",
        help="replace names, weights and inputs of the smallest model, to publish it",
    )
    parser.add_argument(
        "--package",
        metavar="NAME",
        help="also look for the release of this package since which the cell fails; takes minutes, "
        "beside the budget",
    )
    parser.add_argument(
        "--float16-io",
        action="store_true",
        help="B may take and give float16 where A has float32",
    )
    parser.epilog = (
        "Exits with 0 when a cause was found, with 1 when none was found within the budget (a "
        "cell that passes has\n"
        "none), with 2 on a usage error. What is known when it is interrupted is shown."
    )
    parser.set_defaults(run=run)


def declare_subject(parser: argparse.ArgumentParser) -> None:
    """Declare what names a cell, beside its words."""
    parser.add_argument("--variant", metavar="V", help="the variant of MODEL")
    parser.add_argument(
        "--provider", metavar="NAME", help="the execution provider (default: cpu)"
    )
    parser.add_argument(
        "--models",
        type=Path,
        nargs="+",
        default=[Path("models")],
        metavar="PATH",
        help="where the model of CELL is looked for (default: models)",
    )
    inputs = parser.add_argument_group("inputs and judging")
    inputs.add_argument(
        "--inputs", metavar="FILE.npz", type=Path, help="use these instead of generated ones"
    )
    add_settings(inputs, *KEYS)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Diagnose a cell, a model's variant, or two models."""
    if args.no_repro and (args.public or args.repro is not None):
        raise UsageError(
            "--no-repro looks for no smallest model: leave out --repro and --public, or it"
        )
    if not args.budget > 0:
        raise UsageError(f"--budget is {args.budget:g}; it has to be more than 0 seconds")
    settings = settings_of(args, *KEYS)
    if args.inputs is not None and not args.inputs.is_file():
        raise UsageError(f"there is no file {args.inputs}")
    task, candidate = named_task(args, settings)
    refuse_provider(task.cell.provider, settings)
    if args.package is not None and candidate is not None:
        raise UsageError("--package is for a cell: two models have no first bad release")

    from onnx_harness.diagnose.search import Search
    from onnx_harness.diagnose.trials import Question
    from onnx_harness.judging.card_options import with_card
    from onnx_harness.transforms.variant import bind_variant

    # Before the search, whose budget begins when it's made.
    released = "" if args.package is None else _first_bad_release(task, args.package)
    with tempfile.TemporaryDirectory(
        prefix="onnx-harness-diagnose-", ignore_cleanup_errors=True
    ) as name:
        bound = with_card(bind_variant(task.cell.variant), task.cell.card)
        question = Question(task, bound, Path(name), candidate, args.float16_io)
        folder = None if args.no_repro else args.repro or repro_folder(task, candidate)
        search = Search(question, args.budget, folder=folder, public=args.public)
        if released:
            search.findings.note(released)
        try:
            diagnosis, interrupted = search.run(), False
        except KeyboardInterrupt:
            diagnosis, interrupted = search.diagnosis(), True
    if args.json:
        write_json(diagnosis.as_json())
    else:
        show(diagnosis)
        _show_entry(search, diagnosis)
    _warn(diagnosis)
    if interrupted:
        error_console().print("interrupted: this is what is known so far", soft_wrap=True)
        return INTERRUPTED
    return DONE if diagnosis.found else NEGATIVE


def _first_bad_release(task: Task, package: str) -> str:
    """Search over the releases of a package, which is remembered; what came of it, in a line."""
    from onnx_harness.diagnose.releases import bisect

    return bisect(task, package).sentence


def _show_entry(search: Search, diagnosis: Diagnosis) -> None:
    """Show the entry of the ledger for the card: the file that has it, or the text itself."""
    if not diagnosis.found:
        return
    from onnx_harness.diagnose.ledger_entry import FILE

    file = None if diagnosis.smallest is None else Path(diagnosis.smallest.path) / FILE
    entry = search.known_failure()
    if file is not None and file.is_file():
        words = f"{file} is its entry for the card"
        console().print(labelled("known failure: ", "bold", words), soft_wrap=True)
    elif entry:
        console().print(labelled("known failure:", "bold", ""), soft_wrap=True)
        console().print(text(entry.rstrip(), "dim"), soft_wrap=True)


def _warn(diagnosis: Diagnosis) -> None:
    """Say what of the model is left in the smallest one, which was to be public."""
    if diagnosis.smallest is None or not diagnosis.smallest.kept:
        return
    words = "; ".join(diagnosis.smallest.kept)
    if len(words) > _MOST_WORDS:
        words = f"{words[:_MOST_WORDS]}... (--json has the whole list)"
    line = f"{diagnosis.smallest.path} still has of the original: {words}. Look before you publish."
    error_console().print(labelled("warning: ", "bold yellow", line), soft_wrap=True)


def repro_folder(task: Task, candidate: Path | None) -> Path:
    """Return the place of the smallest model: that of the cell among the reports."""
    from onnx_harness.diagnose.repro import FOLDER

    reports = nearest_settings({}).report_dir or Path("reports")
    return reports / FOLDER / (task.cell.id if candidate is None else candidate.stem)


def named_task(args: argparse.Namespace, settings: Settings) -> tuple[Task, Path | None]:
    """Return what is diagnosed, and the model that should compute the same where two were named."""
    provider = None if args.provider is None else providers.get(args.provider).name
    if len(args.what) == 2:
        if args.variant is not None:
            raise UsageError(
                "--variant is for one model: of two, B is what is diagnosed as it is"
            )
        card, a = _named_model(Path(args.what[0]))
        _, b = _named_model(Path(args.what[1]))
        a, b = _judged(a, card, settings), _judged(b, card, settings)
        return Task(
            Cell(card, Variant("original"), provider or "cpu"),
            a,
            settings,
            recorded=args.inputs,
        ), b
    if len(args.what) > 2:
        raise UsageError(
            f"one cell, one model or two models are diagnosed, and {len(args.what)} were named"
        )
    what = args.what[0]
    if is_model_file(Path(what)):
        if args.variant is None:
            raise UsageError(f"name the variant of {what} that fails: --variant V")
        card, model = _named_model(Path(what))
        model = _judged(model, card, settings)
        cell = Cell(card, _variant(args.variant, settings), provider or "cpu")
        return Task(cell, model, settings, recorded=args.inputs), None
    if args.variant is not None or args.provider is not None:
        raise UsageError(f"the id of a cell, {what}, names its variant and its provider")
    cell = _cell(what, args.models, settings)
    _, model = find_model(cell.card.path)
    model = _judged(model, cell.card, settings)
    return Task(cell, model, settings, recorded=args.inputs), None


def _named_model(path: Path) -> tuple[Card, Path]:
    """Return the card of a model and its file.

    Raises:
        UsageError: there is no such file. Exit code 1 says that no cause was found.
        ModelError: it can't be had or read.
    """
    try:
        return find_model(path)
    except ModelError as error:
        if path.exists():
            raise
        raise UsageError(str(error)) from None


def _judged(model: Path, card: Card, settings: Settings) -> Path:
    """Return the file that a card's cells are judged on; a worker makes it where it's another."""
    if card.random_seed is None:
        return model
    with started_worker(settings, readable=(model, card.path)) as worker:
        return worker.call(judged_file, model, card)


def _cell(name: str, paths: list[Path], settings: Settings) -> Cell:
    """The cell of that id, whose model lies in one of the paths."""
    parts = name.split("-")
    if len(parts) != 3:
        raise UsageError(
            f"'{name}' is neither a file of a model nor the id of a cell (MODEL-VARIANT-PROVIDER)"
        )
    cards = _cards(paths)
    card = cards.get(parts[0])
    if card is None:
        where = ", ".join(map(str, paths))
        hint = did_you_mean(parts[0], cards) if cards else "There is none."
        raise UsageError(
            f"there is no model '{parts[0]}' in {where}. {hint} --models names other places."
        )
    return Cell(card, _variant(parts[1], settings), providers.get(parts[2]).name)


def _cards(paths: list[Path]) -> dict[str, Card]:
    files: list[Path] = []
    for path in paths:
        files += sorted(path.iterdir()) if path.is_dir() else [path]
    cards: dict[str, Card] = {}
    for file in files:
        if is_model_file(file) and file.exists():
            card = named_card(file)
            cards.setdefault(card.name, card)
    return cards


def _variant(word: str, settings: Settings) -> Variant:
    variants = expand_variants(
        [word if "(" in word or word in settings.variants else _step(word)],
        settings.variants,
    )
    if len(variants) != 1:
        names = ", ".join(member.id for member in variants[:6])
        raise UsageError(f"'{word}' is a group of variants; name one, such as {names}")
    return variants[0]


def _step(word: str) -> str:
    """A word as the step that it names where a group is called alike: ``fp16`` is both."""
    from onnx_harness.cell.matrix import GROUPS
    from onnx_harness.transforms import registry

    return f"{word}()" if word in GROUPS and word in registry() else word


def show(diagnosis: Diagnosis) -> None:
    """Show the sentence, its evidence, and what it took."""
    out = console()
    style = "bold green" if diagnosis.found else "bold yellow"
    out.print(
        labelled("cause: " if diagnosis.found else "", style, diagnosis.sentence),
        soft_wrap=True,
    )
    for line in diagnosis.evidence:
        out.print(text(f"  {line}"), soft_wrap=True)
    if diagnosis.smallest is not None:
        out.print(
            labelled("smallest model: ", "bold", diagnosis.smallest.path), soft_wrap=True
        )
    if diagnosis.mend is not None:
        variant = shlex.quote(diagnosis.mend.variant)
        out.print(labelled("mend: ", "bold", f"--variant {variant}"), soft_wrap=True)
    spent = diagnosis.spent
    out.print(
        text(
            (
                f"  {spent.transforms} transforms, {spent.sessions} sessions, {spent.runs} runs, "
                f"{spent.seconds:.1f} s"
            ),
            "dim",
        ),
        soft_wrap=True,
    )
