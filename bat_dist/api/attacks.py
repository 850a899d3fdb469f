"""Attacks on a batch, as training and evaluation use them."""

from bat_dist.attacks.autoattack import autoattack
from bat_dist.attacks.pgd import pgd

__all__ = ["autoattack", "pgd"]
