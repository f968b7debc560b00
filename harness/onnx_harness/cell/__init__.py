"""One cell, from the file of its model to the comparison of its outputs."""
