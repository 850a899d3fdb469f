"""Counts of trials that have both of two samples: both ways are exact, and torch starts only where it pays."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bat_dist.memorization.bit_products import count_both, count_in_float32, count_in_int8

WAYS = [count_in_float32, count_in_int8]


@pytest.mark.parametrize("count", WAYS)
@settings(deadline=None, max_examples=40)
@given(st.integers(1, 700), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_counts_are_those_of_whole_numbers(count, num_trials, num_first, num_second, seed):
    rng = np.random.default_rng(seed)
    first, second = (rng.random((num_trials, size)) < rng.random() for size in (num_first, num_second))
    expected = first.astype(np.int64).T @ second.astype(np.int64)
    np.testing.assert_array_equal(count(first, second), expected)
    np.testing.assert_array_equal(count(first[::-1, ::-1], second[::-1]), expected[::-1])
    np.testing.assert_array_equal(count_both(np.asfortranarray(first), second, work=0), expected)


@pytest.mark.parametrize("count", WAYS)
def test_trials_that_all_count_do_not_overflow(count):
    """Sums beyond 8 and 16 bits."""
    ones = np.ones((70_000, 5), dtype=bool)
    np.testing.assert_array_equal(count(ones, ones), np.full((5, 5), 70_000))


@pytest.mark.parametrize(("work", "loaded"), [("1", False), ("2**38", True)])
def test_torch_starts_for_large_problems_alone(work, loaded):
    script = f"""
import sys
import numpy as np
from bat_dist.memorization.bit_products import count_both
assert count_both(np.ones((3, 2), bool), np.ones((3, 4), bool), work={work}).tolist() == [[3] * 4] * 2
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(loaded)
