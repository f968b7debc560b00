"""What ``int8`` and ``int4`` need beside the library.

Its files import onnx: nothing here is for collection.
"""
