"""``reports/repro/<cell id>/``: a failing cell by itself, to run anywhere and to hand on.

The folder is laid out as ONNX publishes models: ``model.onnx`` and ``test_data_set_N`` with inputs
and outputs, so that other tools, and this one, read it as it is. Beside them lie the transformed
model, a script and a page.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from onnx_harness import providers
from onnx_harness.cell.matrix import Cell
from onnx_harness.cell.pipeline import artifact_of
from onnx_harness.cell.state import Artifact, Judged, Task
from onnx_harness.cell.subjects import subject_of
from onnx_harness.errors import first_line
from onnx_harness.judging.emulation import half_as_hardware
from onnx_harness.judging.reference import Reference
from onnx_harness.model.file import Model
from onnx_harness.names import REPRO_FOLDER
from onnx_harness.providers.profile import EMULATED
from onnx_harness.providers.sessions import LEVELS, Purpose, provider_options
from onnx_harness.report.escape import printable
from onnx_harness.results.cells import CellResult, Stage, Status, Symptom
from onnx_harness.results.files import cannot_write, move_folder
from onnx_harness.results.run import gather
from onnx_harness.results.workbench import workbench
from onnx_harness.run.runner import Runner

if TYPE_CHECKING:
    import onnx

FOLDER = REPRO_FOLDER
MODEL, TRANSFORMED, SCRIPT, PAGE = (
    "model.onnx",
    "transformed/model.onnx",
    "repro.py",
    "README.md",
)
HALF = "float16/model.onnx"
_SCRIPT_TEMPLATE = "repro_script.txt"
MOST_SETS = 3
"""Of the input sets on which it fails, so many are kept.

One is enough to see it, and some are large.
"""
MOST_BYTES = 1 << 29
"""A larger model isn't copied for every cell that fails: the page says where it lies."""


def settle(runner: Runner, cell: Cell, result: CellResult) -> str | None:
    """Keep ``cell`` by itself where it fails, and forget what an earlier run kept of it.

    Returns:
        A line for the failure's message; None where nothing is kept: no reports are, the cell
        doesn't fail, or the untouched model itself is what fails.
    """
    reports = runner.settings.report_dir
    if reports is None or cell.card.suite:
        return None
    folder = reports / FOLDER / cell.id
    shutil.rmtree(folder, ignore_errors=True)
    if result.status is not Status.FAIL or result.stage is Stage.LOAD:
        return None
    try:
        made = (runner.given or folder.parent) / folder.name
        runner.ask(keep, cell, made, result)
        move_folder(made, folder)
    except (
        Exception
    ) as error:  # the worker's death or whatever it raised: the verdict stands without
        return f"it couldn't be kept by itself: {first_line(error)}"
    return f"kept by itself: {os.path.relpath(folder)}"


def keep(task: Task, judged: Judged, folder: Path, result: CellResult) -> None:
    """Write the folder, whole or not at all. Meant to run in the worker.

    Args:
        task: the cell.
        judged: what was found of it.
        folder: to make; it doesn't exist.
        result: what is said of the cell.

    Raises:
        ResultsError: it can't be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".", dir=folder.parent, ignore_cleanup_errors=True
        ) as name:
            handout = Path(name) / folder.name
            handout.mkdir()
            _fill(handout, task, judged, result)
            handout.rename(folder)
    except OSError as error:
        raise cannot_write("a failing cell", folder, error, "--report-dir") from error


def _fill(folder: Path, task: Task, judged: Judged, result: CellResult) -> None:
    original = Model(task.model)
    untouched = _copied(original, folder, MODEL)
    files = {untouched: "the untouched model"}
    subject, graph = subject_of(replace(task, skipped=())), original.skeleton.graph
    reference_sets = subject.reference
    # Where the untouched model itself misses what somebody recorded, the record is what it's
    # compared with.
    recorded = (
        reference_sets.recorded
        if subject.missed is not None and not task.cell.variant.steps
        else ()
    )
    for number, place in enumerate((judged.failing or reference_sets.usual)[:MOST_SETS]):
        into = folder / f"test_data_set_{number}"
        into.mkdir()
        _write_values(into, "input", graph.input, reference_sets.sets[place].values)
        _write_values(
            into,
            "output",
            graph.output,
            recorded[place] if place < len(recorded) else reference_sets.outputs[place],
        )
    outputs = (
        "the outputs recorded with them"
        if recorded
        else "what the untouched model makes of them"
    )
    files["test_data_set_N"] = (
        f"inputs, and {outputs}{'' if recorded else ', on the CPU and unoptimized'}"
    )
    crashed = result.symptom is Symptom.CRASH and result.stage is Stage.CHECK
    # Else nothing was made, or making it again would end the worker again.
    if result.stage is not Stage.TRANSFORM and not crashed:
        artifact = artifact_of(task)
        ran = (
            _copied(artifact.model, folder, TRANSFORMED)
            if artifact.transformed
            else untouched
        )
        if artifact.transformed:
            files[ran] = "the model as it ran"
        half = _half_as_hardware(result, original, reference_sets, artifact, folder)
        if half is not None:
            files[half] = (
                "the model as it ran, brought to float32 and rounded as float16 hardware rounds"
            )
        models = {"original": untouched, "transformed": ran, "half": half}
        script = _script(task, result, artifact, models, recorded=bool(recorded))
        (folder / SCRIPT).write_text(script, encoding="utf-8")
        files[SCRIPT] = f"runs them and prints how far apart they are: `python {SCRIPT}`"
    (folder / PAGE).write_text(_page(task, result, files), encoding="utf-8")


def _half_as_hardware(
    result: CellResult,
    original: Model,
    reference: Reference,
    artifact: Artifact,
    folder: Path,
) -> str | None:
    """Write the model that decided in float16's place; None where the one that ran decided.

    On a provider that computes float16 in float32 the model that ran may give what the untouched
    one gives, and fail.
    """
    ran_in = result.placement.precision if result.placement is not None else None
    if (
        ran_in not in EMULATED
        or result.stage is not Stage.COMPARE
        or artifact.model.size_bytes > MOST_BYTES
    ):
        return None
    model = half_as_hardware(original, reference, artifact.model, workbench().cache)
    if model is None:
        return None
    (folder / HALF).parent.mkdir()
    (folder / HALF).write_bytes(model.SerializeToString())
    return HALF


def _copied(model: Model, folder: Path, name: str) -> str:
    """Copy ``model`` with its external data.

    Its place in ``folder``, or where it lies if it's too large for that.
    """
    if model.size_bytes > MOST_BYTES:
        return str(model.path.resolve())
    target, source = folder / name, model.path.parent.resolve()
    for file in model.external_files:
        copy = target.parent / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(model.path, target)
    return name


def _write_values(
    folder: Path,
    what: str,
    declared: Iterable[onnx.ValueInfoProto],
    values: Mapping[str, Any],
) -> None:
    """Tensors, sequences and optionals, counted as the graph does.

    For a map ONNX Runtime's and ONNX's forms differ.
    """
    from onnx import numpy_helper

    forms: Mapping[str, Any] = {
        "tensor_type": numpy_helper.from_array,
        "sequence_type": numpy_helper.from_list,
        "optional_type": numpy_helper.from_optional,
    }
    for number, info in enumerate(declared):
        form = forms.get(str(info.type.WhichOneof("value")))
        if form is not None and values.get(info.name) is not None:
            proto = form(values[info.name], info.name)
            (folder / f"{what}_{number}.pb").write_bytes(proto.SerializeToString())


def _script(
    task: Task,
    result: CellResult,
    artifact: Artifact,
    files: Mapping[str, str | None],
    *,
    recorded: bool,
) -> str:
    provider = providers.get(task.cell.provider)
    prepare = ""
    if (
        provider.fallback
    ):  # what a device needs before its first session is known here and nowhere else
        prepare = (
            "from onnx_harness import providers\nfrom onnx_harness.providers.sessions import "
            "prepare\n\n"
            f"prepare(providers.get({provider.name!r}))\n"
        )
    where = [
        (provider.ort_name, provider_options(provider, Purpose.ACCURACY)),
        *provider.fallback,
    ]
    return Template(
        Path(__file__).with_name(_SCRIPT_TEMPLATE).read_text(encoding="utf-8")
    ).substitute(
        id=task.cell.id,
        verdict=repr(printable(f"{result.status} at {result.stage}: {result.reason}")),
        original=repr(files["original"]),
        transformed=repr(files["transformed"]),
        half=repr(files["half"]),
        recorded=repr(recorded),
        level=repr(LEVELS[artifact.level]),
        providers=repr(where),
        prepare=prepare,
    )


def _page(task: Task, result: CellResult, files: Mapping[str, str]) -> str:
    run = gather("", task.settings.seed)
    variant, provider = (
        shlex.quote(task.cell.variant.spelling or "original"),
        task.cell.provider,
    )
    lines = [
        f"# {result.id}",
        "",
        f"{result.status} at {result.stage}: {result.reason}",
        "",
        *(f"    {line}" for line in result.detail),
        "",
        f"Seed {task.settings.seed}; {run.host.cpu}, {run.host.os}; "
        + ", ".join(f"{name} {number}" for name, number in run.versions.items()),
        "",
        "| file | what it is |",
        "|---|---|",
        *(f"| `{name}` | {what} |" for name, what in files.items()),
        "",
        "The transform by itself, and the verdict without the model's card:",
        "",
        f"    onnx-harness transform {MODEL} --variant {variant} -o again.onnx",
        f"    pytest {MODEL} --variant {variant} --provider {provider} --seed {task.settings.seed}",
        "",
    ]
    return "\n".join(lines)
