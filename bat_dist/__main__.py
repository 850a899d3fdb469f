"""`python -m bat_dist VERB ...` is `bat-dist VERB ...`."""

from bat_dist.cli import program

program()
