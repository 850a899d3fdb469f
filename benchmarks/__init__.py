"""Measurements of speed and size against rivals and limits: `python -m benchmarks`, or `make bench`.

`catalogue` lists all measurements with their goals, `measurement` says what one is, and `record` keeps their results in
results.json.  Three programs have a form of their own: `gpu.py` (`make gpu`), `start_time.py`, which compares clones,
and `autoattack_agreement.py`, which compares flags on a network that is given.
"""
