"""Comparing outputs with the reference: metrics, tolerances, and words for what differs."""
