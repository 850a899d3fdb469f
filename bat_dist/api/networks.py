"""Trained networks from disk."""

from bat_dist.artifacts.checkpoints import load_model

__all__ = ["load_model"]
