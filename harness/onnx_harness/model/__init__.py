"""An ONNX model: its file, its interface, and how its graph is asked and changed."""
