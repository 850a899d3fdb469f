"""Hyper-parameters: the defaults are the paper's, and bad ones are refused with value, rule and way out."""

import dataclasses
import math

import pytest

from bat_dist.methods.bat import Bat
from bat_dist.methods.erm import Erm
from bat_dist.methods.gairat import Gairat
from bat_dist.methods.mart import Mart
from bat_dist.methods.pgd_at import PgdAt
from bat_dist.methods.trades import Trades


def test_defaults():
    assert (Trades().beta, Mart().beta) == (5, 5)
    assert Gairat() == Gairat("tanh", "fixed", begin=0.5, initial_lambda=math.inf, final_lambda=-1)
    assert Bat() == Bat(1, 0.2, 0.15, 0.1, "misclassified", "pos_plus_neg", True, "pairs", False, None)


@pytest.mark.parametrize("method", [PgdAt, Trades, Mart, Gairat, Bat])
def test_settings_are_frozen(method):
    with pytest.raises(dataclasses.FrozenInstanceError):
        method().beta = 7


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (Erm, {"label_smoothing": 1.5}, r"label_smoothing must be in \[0, 1\), got 1.5"),
        (Erm, {"label_smoothing": -0.1}, r"label_smoothing must be in \[0, 1\), got -0.1"),
        (Erm, {"label_smoothing": math.nan}, r"label_smoothing must be in \[0, 1\), got nan"),
        (Trades, {"beta": -1}, "beta must be finite and at least 0, got -1: 0 is training on natural images"),
        (Trades, {"beta": math.nan}, "beta must be finite and at least 0, got nan"),
        (Mart, {"beta": math.inf}, "beta must be finite and at least 0, got inf"),
        (Bat, {"alpha": -0.1}, "alpha must be finite and at least 0, got -0.1: 0 turns the reweighting off"),
        (Bat, {"beta": -1}, "beta must be finite and at least 0, got -1: 0 turns the discrimination loss off"),
        (Bat, {"tau": 0}, "tau must be finite and above 0, got 0: it divides the similarities"),
        (Bat, {"sigma": math.nan}, "sigma must be finite, got nan: a threshold of memorization"),
        (Bat, {"downweight": "neq"}, "downweight must be one of misclassified, as_printed, all_atypical, got 'neq'"),
        (Bat, {"denominator": "all"}, "denominator must be one of pos_plus_neg, neg_only, supcon, got 'all'"),
        (Bat, {"average": "mean"}, "average must be one of pairs, anchors, got 'mean'"),
        (Bat, {"num_negatives": 0}, "num_negatives must be at least 1, got 0: none takes all"),
        (Bat, {"num_negatives": 2, "denominator": "supcon"}, "num_negatives has no meaning with denominator supcon"),
        (Gairat, {"function": "Tanh"}, "function must be one of tanh, sigmoid, discrete, got 'Tanh'"),
        (Gairat, {"schedule": "piecewise"}, "schedule must be one of fixed, linear, got 'piecewise'"),
        (Gairat, {"begin": 60}, r"begin must be in \[0, 1\], got 60: it is a share of the epochs"),
        (Gairat, {"begin": math.nan}, r"begin must be in \[0, 1\], got nan"),
        (Gairat, {"final_lambda": -1e9}, "final_lambda must be at least -20, got -1000000000.0: -1 is published"),
        (Gairat, {"initial_lambda": math.nan}, "initial_lambda must be at least -20, got nan"),
        (Gairat, {"schedule": "linear"}, "schedule linear needs finite lambdas, got initial_lambda inf"),
    ],
)
def test_bad_settings_are_refused(method, settings, message):
    with pytest.raises(ValueError, match=message):
        method(**settings)
