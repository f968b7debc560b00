"""Random models, for whatever is claimed of every model."""
