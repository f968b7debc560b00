"""The rules of ``simplify``. Its files import onnx: nothing here is for collection."""
