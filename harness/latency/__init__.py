"""Paired timing of a variant against the baseline."""
