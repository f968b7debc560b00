"""The records of a run: of a cell, results.json, the history, the cache of artifacts."""
