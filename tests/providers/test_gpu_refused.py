"""onnxruntime-gpu on a machine without CUDA's libraries: it must refuse and say why.

Needs .venv-gpu.
"""

import pytest

from onnx_harness.errors import ProviderError
from onnx_harness.providers import get
from onnx_harness.providers.probe import probe, refusal
from onnx_harness.providers.sessions import Purpose, open_session
from tests.providers.small_models import cnn

pytestmark = pytest.mark.providers


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_the_missing_library_is_named_with_what_brings_it(name: str) -> None:
    found = probe(name)
    assert not found.usable
    assert refusal(found) == (
        f"provider '{name}' was asked for and can't be used here: "
        f"libonnxruntime_providers_cuda.so needs"
        " libcublasLt.so.13, which is not on this machine."
        f" Mend: pip install 'onnx-harness[{name}]' (brings CUDA 13 and cuDNN 9; driver r580 or "
        f"newer).\n"
        "`onnx-harness doctor` shows every provider. Nothing was run."
    )


def test_the_cpu_session_that_onnx_runtime_opens_instead_is_refused() -> None:
    with pytest.raises(
        ProviderError,
        match=r"would run on CPUExecutionProvider: .* needs libcublasLt\.so\.13",
    ):
        open_session(cnn(), get("cuda"), purpose=Purpose.ACCURACY)


def test_the_cpu_works_beside_it() -> None:
    assert probe("cpu").usable
