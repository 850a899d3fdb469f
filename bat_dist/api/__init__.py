"""The Python API of the package, which `from bat_dist import ...` gives; the commands call the same functions."""
