"""All figures by name: each takes plain arrays and returns a matplotlib Figure for `style.save`."""

from bat_dist.figures.charts import accuracy_by_trial, alignment_scatter, memorization_histogram, undecided_by_trials
from bat_dist.figures.galleries import extremes_gallery, influence_pairs_gallery, memorization_gallery

__all__ = [
    "accuracy_by_trial",
    "alignment_scatter",
    "extremes_gallery",
    "influence_pairs_gallery",
    "memorization_gallery",
    "memorization_histogram",
    "undecided_by_trials",
]
