"""The pinned options against the real CUDA and TensorRT option parsers, on stub libraries for
driver and TensorRT.

Needs onnxruntime-gpu with CUDA's libraries (2 GB) and a C compiler, and no GPU; run by `make
test-cuda-options`. Each session is opened in a process of its own: it has to load the stubs before
anything else.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from onnx_harness.providers import get
from onnx_harness.providers.sessions import Purpose, provider_options

pytestmark = pytest.mark.providers

STUBS = {
    "libcuda.so.1": "libcuda_stub.c",
    "libnvinfer.so.10": "libnvinfer_stub.c",
    "libnvonnxparser.so.10": "libnvonnxparser_stub.c",
}
OPEN = """
import ctypes, json, sys
folder, names, provider, options = json.loads(sys.argv[1])
for name in names:
    ctypes.CDLL(f"{folder}/{name}", ctypes.RTLD_GLOBAL)
import onnxruntime as ort
from tests.providers.small_models import cnn
ort.set_default_logger_severity(4)
ort.preload_dlls()
try:
    ort.InferenceSession(cnn(), providers=[(provider, options)], enable_fallback=0)
except Exception as error:
    print(error)
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stubs")
    for library, source in STUBS.items():
        code = Path(__file__).parent / "stubs" / source
        command = [
            "cc",
            "-shared",
            "-fPIC",
            "-Wall",
            "-Wextra",
            "-Werror",
            f"-Wl,-soname,{library}",
            str(code),
            "-o",
        ]
        subprocess.run([*command, str(folder / library)], check=True)
    return folder


def opening(stubs: Path, ort_name: str, options: dict[str, str]) -> str:
    """What ONNX Runtime says when a session is opened with these options."""
    arguments = json.dumps([str(stubs), list(STUBS), ort_name, options])
    done = subprocess.run(
        [sys.executable, "-c", OPEN, arguments], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_every_pinned_option_is_accepted(stubs: Path, name: str, purpose: Purpose) -> None:
    provider = get(name)
    told = opening(stubs, provider.ort_name, provider_options(provider, purpose))
    # Past the options, it asks for a device.
    assert "CUDA failure 100" in told


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("cuda", 'Unknown provider option: "use_tf23"'),
        ("tensorrt", "Invalid TensorRT EP option: use_tf23"),
    ],
)
def test_an_unknown_option_would_be_named(stubs: Path, name: str, complaint: str) -> None:
    told = opening(stubs, get(name).ort_name, {"use_tf23": "0"})
    assert complaint in told
    assert "CUDA failure 100" not in told


def test_tensorrt_takes_only_true_and_false(stubs: Path) -> None:
    assert "CUDA failure 100" in opening(
        stubs, "TensorrtExecutionProvider", {"trt_fp16_enable": "False"}
    )
    assert "CUDA failure 100" not in opening(
        stubs, "TensorrtExecutionProvider", {"trt_fp16_enable": "0"}
    )


def test_a_driver_that_sees_no_gpu_is_told_apart_from_a_missing_library(stubs: Path) -> None:
    code = (
        "import ctypes, sys\n"
        "for path in sys.argv[1:]: ctypes.CDLL(path, ctypes.RTLD_GLOBAL)\n"
        "from onnx_harness.providers.probe import probe\n"
        "print(probe('cuda').reason)"
    )
    paths = [str(stubs / library) for library in STUBS]
    told = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True
    ).stdout
    assert told == "the CUDA driver doesn't start: it sees no GPU (error 100)\n"
