"""What every test run of this repository shares; the plugin itself comes by its entry point."""

from hypothesis import settings

settings.register_profile("quick", max_examples=50, deadline=None)
settings.register_profile("nightly", max_examples=20_000, deadline=None)
settings.load_profile("quick")

pytest_plugins = ["pytester"]
