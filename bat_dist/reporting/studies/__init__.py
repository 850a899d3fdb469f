"""The end of a study: its data, its figures, and what they say of the paper's claims.

Each study is a module with `analyse`, which writes the study's data and returns its findings, and `draw`, which makes
the figures from these data alone.
"""
