"""Plan each input: rules, sizes, and the search for sets that run."""
