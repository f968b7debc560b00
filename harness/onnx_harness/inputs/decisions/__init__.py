"""Inputs that reach what a model decides by: thresholds and leaves of trees, categories, words,
compared constants.
"""
