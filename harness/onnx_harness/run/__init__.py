"""A run: its cells one after another, and the account of their verdicts."""
