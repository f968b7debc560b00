"""Input sets and the signals that fill them."""
