"""Conversion to float16 and bfloat16. Its files import onnx: nothing here is for collection."""
