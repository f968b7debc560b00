"""The folder of a smallest model.

The model, its input, what is right, a script that shows the fault, an issue.

The script needs onnx, onnxruntime and the library at fault, and nothing of this package.
"""

from __future__ import annotations

import math
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import onnx

from onnx_harness.diagnose.checks import run_once
from onnx_harness.diagnose.fault import Fault
from onnx_harness.diagnose.library_calls import Call, library_call
from onnx_harness.diagnose.reduce import Reduced
from onnx_harness.diagnose.smaller_case import copied
from onnx_harness.judging.half_range import computes_in_half
from onnx_harness.judging.simulation import simulated
from onnx_harness.providers.sessions import LEVELS
from onnx_harness.results.cells import Stage

MODEL, INPUTS, EXPECTED, SCRIPT, ISSUE = (
    "model.onnx",
    "inputs.npz",
    "expected.npz",
    "repro.py",
    "ISSUE.md",
)
TRANSFORMED, CONTROL, WHOLE = "transformed.onnx", "control.onnx", "whole"
_TEMPLATE = "handout_script.txt"
_RELEASE = "## First bad release"
_SECONDS = 60
_RIGHT = 1e-6
_MOST_TEXT = 6000
_FILE = (
    'name = "control.onnx" if control else "transformed.onnx"',
    "return onnx.load(HERE / name)",
)


def write(folder: Path, fault: Fault, reduced: Reduced, sentence: str) -> bool:
    """Write the folder. Meant for the worker; `place` moves it to where it belongs.

    Args:
        folder: to make; what is there goes.
        fault: the cause.
        reduced: the smallest case.
        sentence: the cause in words; empty where names of the whole model mustn't be told.

    Returns:
        Whether its script, run by itself, shows the fault and is right in the control.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".", dir=folder.parent, ignore_cleanup_errors=True
    ) as name:
        handout = Path(name) / "made"
        handout.mkdir()
        _data(handout, fault, reduced)
        call = library_call(fault)
        shown = call is not None and _attempt(handout, fault, reduced, call)
        if not shown:
            call = None
            if not fault.runtime:
                _models(handout, fault, reduced)
            shown = _attempt(handout, fault, reduced, None)
        (handout / ISSUE).write_text(
            _issue(fault, reduced, call, sentence), encoding="utf-8"
        )
        shutil.rmtree(folder, ignore_errors=True)
        handout.rename(folder)
    return shown


def place(made: Path, folder: Path, *, public: bool) -> None:
    """Move a written folder to its place; what lies there already goes to ``whole`` in it.

    Args:
        made: what `write` wrote.
        folder: the place.
        public: keep the whole cell beside the folder, which is to be published.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".", dir=folder.parent, ignore_cleanup_errors=True
    ) as name:
        handout = Path(name) / "made"
        shutil.move(made, handout)  # perhaps from another file system
        _place(handout, folder, public=public)


def tell_release(folder: Path, sentence: str) -> bool:
    """Add a first bad release, found afterwards, to the page of a smallest model.

    Args:
        folder: of the smallest model.
        sentence: the answer of the search; it takes the place of an earlier one.

    Returns:
        Whether there is such a page that can be written.
    """
    page = folder / ISSUE
    try:
        text = page.read_text(encoding="utf-8").partition(f"\n{_RELEASE}\n")[0]
        page.write_text(f"{text.rstrip()}\n\n{_RELEASE}\n\n{sentence}\n", encoding="utf-8")
    except OSError:
        return False
    return True


def _place(handout: Path, folder: Path, *, public: bool) -> None:
    if public:
        apart = folder.with_name(f"{folder.name}-{WHOLE}")
        former = folder if not (folder / ISSUE).exists() else folder / WHOLE
        if former.exists():
            shutil.rmtree(apart, ignore_errors=True)
            shutil.move(former, apart)
    elif folder.exists() and not (folder / ISSUE).exists():
        shutil.move(folder, handout / WHOLE)
    elif (folder / WHOLE).exists():
        shutil.move(folder / WHOLE, handout / WHOLE)
    shutil.rmtree(folder, ignore_errors=True)
    handout.rename(folder)


def _data(folder: Path, fault: Fault, reduced: Reduced) -> None:
    case = reduced.case
    onnx.save(case.model, str(folder / MODEL))
    _save_arrays(folder / INPUTS, case.inputs)
    _save_arrays(
        folder / EXPECTED, run_once(case.model, case.inputs, "disable", fault=fault)
    )


def _save_arrays(file: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays by name, whatever the names.

    Numpy's own function takes some of them for its arguments.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                values = np.asarray(array)
                if values.dtype == object:  # strings, which are a pickle otherwise
                    values = values.astype(str)
                np.lib.format.write_array(member, values, allow_pickle=False)


def _models(folder: Path, fault: Fault, reduced: Reduced) -> None:
    """Write the model as the fault makes it, and as it is made with the fault taken away."""
    case = reduced.case
    control = copied(case.model)
    if fault.step is not None and fault.parts:
        control = _rounded(fault, fault.applied(case, fault.parts))
    onnx.save(control, str(folder / CONTROL))
    if (
        reduced.sign.stage is not Stage.TRANSFORM
    ):  # else nothing is made, and making it may end this process
        onnx.save(_rounded(fault, fault.applied(case)), str(folder / TRANSFORMED))


def _rounded(fault: Fault, model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model that computes in float32 what float16 hardware would.

    Any other stays as it is.
    """
    if fault.halves and computes_in_half(model):
        return simulated(copied(model), model)
    return model


def _attempt(folder: Path, fault: Fault, reduced: Reduced, call: Call | None) -> bool:
    """Write the script, and return whether it exits 1, and 0 with the fault taken away."""
    (folder / SCRIPT).write_text(_script(fault, reduced, call), encoding="utf-8")
    codes = []
    for words in ((), ("--control",)):
        command = [sys.executable, "-I", SCRIPT, *words]  # the folder may be relative
        codes.append(
            subprocess.run(command, capture_output=True, check=False, cwd=folder).returncode
        )
    return codes == [1, 0]


def _script(fault: Fault, reduced: Reduced, call: Call | None) -> str:
    lines = _lines(fault, call)
    checked = reduced.sign.stage is Stage.CHECK
    config = []
    for key, entry in fault.config:
        config.append(f"    options.add_session_config_entry({key!r}, {entry!r})\n")
    return Template(
        Path(__file__).with_name(_TEMPLATE).read_text(encoding="utf-8")
    ).substitute(
        title=f"{_title(fault, call)}: {_seen(reduced)}",
        needs=_needs(call),
        control_words=_control_words(fault, call),
        seconds=5 if reduced.sign.manner == "hang" else _SECONDS,
        bound=repr(bound_of(reduced)),
        level=repr(LEVELS[fault.level]),
        disabled=repr(fault.disabled),
        optimizers=repr(fault.optimizers),
        rounded=repr(fault.halves),
        transform="".join(f"    {line}\n" for line in lines),
        config="".join(config),
        check=_CHECK if checked else "",
    )


def _lines(fault: Fault, call: Call | None) -> tuple[str, ...]:
    load = 'model = onnx.load(HERE / "model.onnx")'
    if fault.runtime:
        return (load, "return model")
    if call is None:
        return _FILE
    return (load, "if control:", *(f"    {line}" for line in call.control), *call.fault)


_CHECK = """    onnx.checker.check_model(other, full_check=True)
    names = [[info.name for info in each.graph.output] for each in (model, other)]
    ranks = [
        [len(info.type.tensor_type.shape.dim) for info in each.graph.output]
        for each in (model, other)
    ]
    if names[0] != names[1] or ranks[0] != ranks[1]:
        print(f"outputs {names[0]} of ranks {ranks[0]} became {names[1]} of ranks {ranks[1]}")
        return 1
"""


def bound_of(reduced: Reduced) -> float:
    """Return the distance between right and wrong.

    The geometric mean of the control's and the fault's.
    """
    gap = reduced.sign.gap if math.isfinite(reduced.sign.gap) else 1.0
    mean = math.sqrt(max(reduced.sign.right, _RIGHT) * gap)
    return float(f"{min(mean, gap / 2):.3g}")


def _title(fault: Fault, call: Call | None) -> str:
    if fault.runtime:
        named = (
            " and ".join(fault.optimizers)
            or f"graph optimization level {LEVELS[fault.level]}"
        )
        return f"ONNX Runtime, {named}"
    if fault.step is None:
        return "a changed model"
    name = fault.step.name if call is None else call.distribution
    parts = []
    for part in fault.parts:
        if call is None or part != fault.step.name:
            parts.append(part)
    is_node = (
        fault.step.transform.parts is not None and fault.step.transform.parts.kind == "node"
    )
    return (
        name if is_node or not parts or len(parts) > 4 else f"{name}, {' and '.join(parts)}"
    )


def _seen(reduced: Reduced) -> str:
    sign = reduced.sign
    return sign.reason if sign.stage is Stage.COMPARE else f"{sign.reason} (at {sign.stage})"


def _needs(call: Call | None) -> str:
    return (
        "onnx and onnxruntime"
        if call is None
        else f"onnx, onnxruntime and {call.distribution}"
    )


def _control_words(fault: Fault, call: Call | None) -> str:
    if fault.runtime:
        return (
            "without its optimizers at fault"
            if fault.optimizers
            else "without optimizations"
        )
    return (
        f"{CONTROL} in the place of {TRANSFORMED}" if call is None else "the model as it is"
    )


def _issue(fault: Fault, reduced: Reduced, call: Call | None, sentence: str) -> str:
    """Return the page to paste where the library's issues are kept."""
    case, sign = reduced.case, reduced.sign
    text = onnx.printer.to_text(case.model)
    names = [
        "onnx",
        "onnxruntime",
        "numpy",
        *([call.distribution] if call is not None else []),
    ]
    versions = ", ".join(f"{name} {_version(name)}" for name in dict.fromkeys(names))
    inputs = [
        f"{name} {array.dtype}{list(array.shape)}" for name, array in case.inputs.items()
    ]
    lines = [
        f"# {_title(fault, call)}: {_seen(reduced)}",
        "",
        f"Versions: {versions}, Python {platform.python_version()}, {platform.platform()}",
        "",
        f"## Model ({case.nodes} {'node' if case.nodes == 1 else 'nodes'})",
        "",
        "```",
        text if len(text) <= _MOST_TEXT else f"see {MODEL}",
        "```",
        "",
        f"Inputs (`{INPUTS}`): {', '.join(inputs) or 'none'}",
        "",
        "## Expected",
        "",
        f"What ONNX Runtime computes with optimizations off, on the CPU: `{EXPECTED}`.",
        "",
        "## Actual",
        "",
        f"{_seen(reduced)}. `python {SCRIPT}` shows it and exits with 1; it needs {_needs(call)}.",
        "",
        "## Cause",
        "",
        sentence or _title(fault, call),
        "",
        "## Controls",
        "",
        (
            f"- `python {SCRIPT} --control`, {_control_words(fault, call)}: right, "
            f"{sign.right:.2g} "
            f"apart."
        ),
        (
            f"- {reduced.checks} models were checked on the way down, each with the fault and "
            f"with it "
            f"taken away. This"
        ),
        "  one fails as the whole model does, and is right without the fault.",
        "",
    ]
    return "\n".join(lines)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # ONNX Runtime has distributions by other names
        return str(getattr(sys.modules.get(name), "__version__", "unknown"))
