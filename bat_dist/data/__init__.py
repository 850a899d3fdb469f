"""Datasets (one table), their sources, the beton cache and the loaders.

Empty on purpose: `data.table` is imported for `--help` and must not pull numpy or torch along.
"""
