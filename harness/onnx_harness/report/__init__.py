"""Showing results. No model is run here, and nothing is measured."""
