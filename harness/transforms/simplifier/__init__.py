"""The rules of ``simplify``, on an editable graph. Its files import onnx: nothing here is for collection."""
