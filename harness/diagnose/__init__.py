"""Finding out what a verdict is worth: cells are run again, changed on purpose."""
