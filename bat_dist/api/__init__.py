"""What the package's Python API does; `from bat_dist import ...` is how it is asked for.  The commands call the same."""
