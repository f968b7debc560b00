"""What is kept of a run: the record of a cell, results.json, the history, the cache of artifacts."""
