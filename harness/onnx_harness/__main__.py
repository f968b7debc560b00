"""``python -m onnx_harness`` is ``onnx-harness``."""

# PYTHON_ARGCOMPLETE_OK
import sys

from onnx_harness.cli import main

if __name__ == "__main__":
    sys.exit(main())
