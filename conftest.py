"""Share the setup of every test run of this repository; the plugin comes by its entry point."""

pytest_plugins = ["pytester"]
