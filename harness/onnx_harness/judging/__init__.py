"""Measure what an honest conversion of a model does to its outputs.

It's measured on the model itself and with no transform of ours.

The noise floor is what isn't a change at all; the ideal conversions are what a type costs.
"""
