"""Model cards: what they say, and how the models that they describe are fetched."""
