"""The model, in place of an export."""

from pathlib import Path

import onnx.parser


def net(path: Path) -> None:
    """Write `y = Relu(x @ w)`."""
    made = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> net (float[n,2] x) => (float[n,2] y)'
        " <float[2,2] w = {1, 2, 3, 4}> { product = MatMul(x, w)  y = Relu(product) }"
    )
    onnx.save(made, path)
