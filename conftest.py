"""What every test run of this repository shares; the plugin itself comes by its entry point."""

pytest_plugins = ["pytester"]
