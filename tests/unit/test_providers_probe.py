"""What a person is told about providers that can't be used here."""

import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnx_harness.errors import UsageError
from onnx_harness.providers import Problem, get, sessions
from onnx_harness.providers import probe as probing
from onnx_harness.providers.cuda import DRIVER_MEND, mend
from onnx_harness.providers.placement import Placement
from onnx_harness.providers.probe import Availability, conflict, doctor, probe, refusal
from onnx_harness.providers.sessions import open_session
from tests.providers.small_models import Watched


@pytest.fixture(autouse=True)
def _unprepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in which no provider was asked for yet."""
    monkeypatch.setattr(sessions, "_prepared", set())


def test_the_cpu_is_usable() -> None:
    found = probe("cpu")
    assert (found.usable, found.reason, found.mend) == (True, None, None)
    assert found.details["distribution"].startswith("onnxruntime ")


def test_a_refusal_says_why_and_what_would_mend_it() -> None:
    found = probe("cuda")
    assert refusal(found) == (
        "provider 'cuda' was asked for and can't be used here: the installed distribution of ONNX "
        "Runtime"
        f" ({found.details['distribution']}) was built without CUDAExecutionProvider."
        " Mend: in an environment of its own, pip install 'onnx-harness[cuda]' (the distributions "
        "of ONNX Runtime"
        " exclude one another).\n`onnx-harness doctor` shows every provider. Nothing was run."
    )


def test_a_plugin_package_that_isnt_installed_is_named() -> None:
    found = probe("webgpu")
    assert found.reason == "the plugin package onnxruntime-ep-webgpu isn't installed"
    assert found.mend == "pip install 'onnx-harness[webgpu]'"


def test_an_unknown_provider_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="there is no execution provider 'gpu'"):
        probe("gpu")


def test_without_onnxruntime_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = probe("cpu")
    assert (found.name, found.usable) == ("cpu", False)
    assert found.mend == "pip install 'onnx-harness[cpu]'"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"load": lambda: 1 / 0}, "it failed to start: division by zero"),
        ({"diagnose": lambda: Problem("it is Sunday", "wait")}, "it is Sunday"),
        (
            {"ort_name": "NoneExecutionProvider"},
            (
                "ONNX Runtime leaves it out of a session (its own message about that went to "
                "standard "
                "error)"
            ),
        ),
    ],
)
def test_a_provider_that_fails_is_reported_and_not_raised(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, object], reason: str
) -> None:
    broken = replace(get("cpu"), name="broken", **change)  # type: ignore[arg-type]
    monkeypatch.setattr("onnx_harness.providers.probe.get", lambda _: broken)
    found = probe("broken")
    assert (found.usable, found.reason, found.device) == (False, reason, None)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_provider_that_executes_less_than_a_whole_product_is_not_usable(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    lenient = replace(get("cpu"), min_share=0.0)
    monkeypatch.setattr(probing, "get", lambda _: lenient)
    monkeypatch.setattr(
        probing,
        "placement",
        lambda *_: Placement(lenient.ort_name, {}, {"MatMul": 1}, share),
    )
    assert str(probe("cpu").reason).startswith("it doesn't execute even a matrix product: ")


def test_a_provider_that_leaves_a_product_to_the_cpu_is_not_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    idle = replace(get("cpu"), ort_name="AzureExecutionProvider", min_share=0.0)
    monkeypatch.setattr(probing, "get", lambda _: idle)
    assert "elsewhere: MatMul x1 (nodes by provider: CPUExecutionProvider 1)" in str(
        probe("azure").reason
    )


def test_a_provider_that_computes_a_product_wrongly_is_not_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Wrong(Watched):
        def run(self, *feeds: Any) -> list[Any]:
            return [product + 1 for product in self._session.run(*feeds)]

    opened = open_session
    monkeypatch.setattr(
        "onnx_harness.providers.probe.open_session",
        lambda *model, **options: Wrong(opened(*model, **options)),
    )
    assert probe("cpu").reason == (
        "it computes a matrix product wrongly: [[6.0, 15.0], [15.0, 51.0]], not [[5.0, 14.0], "
        "[14.0, 50.0]]"
    )


def opening(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a probe get a session that was made of a real one."""
    opened = open_session
    monkeypatch.setattr(
        probing, "open_session", lambda *model, **options: session(opened(*model, **options))
    )


def test_what_is_in_force_and_the_device_are_among_the_details(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Telling(Watched):
        def get_provider_options(self) -> dict[str, dict[str, str]]:
            own = {"use_tf32": "0", "stream": "", "algorithm": "BEST"}
            return {"CPUExecutionProvider": own, "OtherExecutionProvider": {"other": "1"}}

    opening(Telling, monkeypatch)
    named = replace(
        get("cpu"),
        describe=lambda: "a GPU",
        accuracy_options={"option": "1"},
        environment={"VARIABLE": "2"},
    )
    monkeypatch.setattr(probing, "get", lambda _: named)
    monkeypatch.setattr("onnx_harness.providers.sessions.provider_options", lambda *_: {})
    found = probe("cpu")
    assert (found.usable, found.device) == (True, "a GPU")
    details = dict(found.details)
    del details["distribution"], details["providers"]
    assert details == {
        "option option": "1",
        "variable VARIABLE": "2",
        "in force use_tf32": "0",
        "in force algorithm": "BEST",
        "device": "a GPU",
    }


def test_a_provider_that_does_not_tell_its_options_is_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Silent(Watched):
        def get_provider_options(self) -> dict[str, dict[str, str]]:
            raise RuntimeError("no options")

    purposes: list[object] = []

    def opens(*model: Any, **options: Any) -> Any:
        purposes.append(options["purpose"])
        return Silent(open_session(*model, **options))

    monkeypatch.setattr(probing, "open_session", opens)
    assert probe("cpu").usable
    assert purposes == [sessions.Purpose.ACCURACY]


def test_a_session_that_cannot_be_opened_says_why_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of\n  memory " + "x" * 400)

    monkeypatch.setattr(probing, "open_session", fails)
    reason = "a session on it can't be opened: out of memory "
    assert probe("cpu").reason == reason + "x" * (300 - len("out of memory "))
    assert probing._one_line(RuntimeError()) == "RuntimeError"


def test_the_tiny_model_is_one_that_old_versions_of_onnx_runtime_read() -> None:
    tiny = onnx.load_from_string(probing._tiny_model())
    [standard] = tiny.opset_import
    assert (standard.version, tiny.ir_version) == (13, 8)


def test_an_availability_travels_between_processes() -> None:
    found = probe("tensorrt")
    assert pickle.loads(pickle.dumps(found)) == found


def test_doctor_looks_at_every_provider() -> None:
    def look(name: str) -> Availability:
        return Availability(name, usable=True)

    assert [found.name for found in doctor(look)] == [
        "cpu",
        "cuda",
        "openvino",
        "tensorrt",
        "webgpu",
    ]


def test_two_distributions_in_one_environment_are_told() -> None:
    problem = conflict(["numpy", "onnxruntime", "onnxruntime_gpu", "onnxruntime-ep-webgpu"])
    assert problem is not None
    assert problem.reason.startswith(
        "onnxruntime and onnxruntime-gpu are installed in one environment"
    )
    assert problem.mend is not None
    assert problem.mend.startswith("pip uninstall -y onnxruntime onnxruntime-gpu")


def test_plugins_and_companions_are_no_second_distribution() -> None:
    assert (
        conflict(
            [
                "onnxruntime",
                "onnxruntime-ep-webgpu",
                "onnxruntime-extensions",
                "onnxruntime-genai",
            ]
        )
        is None
    )
    assert conflict() is None  # the environment of the tests


def test_the_environment_is_looked_at_by_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime_gpu-1.24.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    problem = conflict()
    assert problem is not None
    assert problem.reason.startswith("onnxruntime and onnxruntime-gpu are installed")


def test_a_missing_driver_isnt_mended_by_a_wheel() -> None:
    assert (
        mend("libonnxruntime_providers_cuda.so needs libcuda.so.1, which …", "pip install x")
        == DRIVER_MEND
    )
    assert "pip install x" in mend(
        "libonnxruntime_providers_cuda.so needs libcudart.so.13, …", "pip install x"
    )
