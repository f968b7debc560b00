"""The words of the option for ONNX's operator suite.

Apart, since pytest reads them in every run.
"""

NAME = "onnx-backend-suite"
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
ALL = "all"
