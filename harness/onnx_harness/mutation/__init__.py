"""The worth of a verdict: cells are run again, changed on purpose."""
