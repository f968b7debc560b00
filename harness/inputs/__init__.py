"""Random inputs for any model: what its graph and its card allow, seeded."""
