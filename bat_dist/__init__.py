"""bat_dist: distributed memorization estimation and Benign Adversarial Training."""

__version__ = "0.2.0"
