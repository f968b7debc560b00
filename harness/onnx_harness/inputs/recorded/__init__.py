"""Input sets that somebody kept, read from files."""
