"""What each input gets: rules, sizes, and the search for sets that run."""
