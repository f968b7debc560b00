"""The operators that onnxruntime.quantization quantizes."""

from __future__ import annotations

FLOAT16_SINCE = 19
"""The opset from which on QuantizeLinear takes float16, and DequantizeLinear gives it."""

# What each mode can quantize; written down because collection must not import onnxruntime. A test
# compares them.
DYNAMIC_OPS = (
    "Attention",
    "Conv",
    "EmbedLayerNormalization",
    "Gather",
    "LSTM",
    "MatMul",
    "Transpose",
)


STATIC_OPS = (
    "Add",
    "ArgMax",
    "AveragePool",
    "BatchNormalization",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "CumSum",
    "EmbedLayerNormalization",
    "Flatten",
    "Gather",
    "GatherElements",
    "Gemm",
    "GlobalAveragePool",
    "InstanceNormalization",
    "LayerNormalization",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Mul",
    "Pad",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Split",
    "Squeeze",
    "TopK",
    "Transpose",
    "Unsqueeze",
    "Where",
)


# A softmax shares 1 among its classes. Its range is fixed at 0 to 1, in steps of 1/255: among a
# thousand classes most probabilities are less than half a step and become 0 (a shufflenet keeps 0.3
# dB with it, 21.6 dB without).
DEFAULT_OP_TYPES_TO_EXCLUDE = ("Softmax",)
