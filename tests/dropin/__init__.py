"""The libraries' own test suites, run with ours in the place of their functions."""
