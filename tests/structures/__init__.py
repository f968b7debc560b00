"""Structures of trained models that people report, each built at two sizes."""
