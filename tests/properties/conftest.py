"""Profiles of the property-based tests: ``pytest tests/properties --hypothesis-profile nightly`` digs deeper."""

from hypothesis import settings

settings.register_profile("quick", max_examples=50, deadline=None)
settings.register_profile("nightly", max_examples=20_000, deadline=None)
settings.load_profile("quick")
