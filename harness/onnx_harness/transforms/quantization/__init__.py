"""Parts that ``int8`` and ``int4`` need in addition to the library.

Its files import onnx: nothing here is for collection.
"""
