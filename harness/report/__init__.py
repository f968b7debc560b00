"""Showing results; computes none."""
