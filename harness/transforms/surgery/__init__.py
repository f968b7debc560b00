"""Graph surgery: what transforms of our own are made of. Its files import onnx: nothing here is for collection."""
