"""Inputs that reach what a model decides by.

Thresholds and leaves of trees, categories, words, compared constants.
"""
