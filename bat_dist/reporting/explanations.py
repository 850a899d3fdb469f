"""What a reader of the page is looking at: title, caption and alternative text of every figure."""

from bat_dist.reporting.page import EmbeddedImage, PageFigure

_TEXTS = {
    "memorization_histogram": (
        "How much is memorized",
        "The memorization value (mem) of a training sample is how much more often models get it right when they "
        "trained on it than when it was left out. Near 0 the rest of the data explains the sample: it is typical. "
        "Near 1 only memorizing it helps: it is atypical. Left: how the values are distributed; right: the share of "
        "samples above each value. The dashed lines are the thresholds of typical and atypical.",
        "Histogram of memorization values in three colours (typical, between, atypical) beside a falling curve of "
        "the share of samples above each value.",
    ),
    "memorization_gallery": (
        "What low and high memorization look like",
        "Each column is one class; the rows are the samples whose value is nearest to 0, 0.5 and 1, and within 0.1 of "
        "it, with Newcombe's 95% interval. Expect clear examples at the top, and unusual, "
        "ambiguous or wrongly labelled ones at the bottom.",
        "Three rows of training images at memorization near 0, 0.5 and 1, each with its id, class and value.",
    ),
    "extremes_gallery": (
        "The two ends of the ranking",
        "Above the highest values, whatever the class: expect unusual, cut off, ambiguous and wrongly labelled "
        "images. Below the values nearest to 0, first those that are always right when left out, the classes in "
        "turn: expect plain ones. The most negative values are not shown: they are noise.",
        "Training images with the highest memorization, then those nearest to 0, each with its id, class and value.",
    ),
    "influence_pairs_gallery": (
        "Memorized samples that pay off",
        "The influence (infl) of a training sample on a test sample is how much more often models get the test "
        "sample right when they trained on that training sample. High influence and a pair that looks alike: without "
        "the one, models fail on the other. Shown are the strongest pairs of an atypical training sample. With few "
        "trials chance alone makes large values: read them with their intervals.",
        "Pairs of a training image and a test image side by side, with their influence and the training image's "
        "memorization.",
    ),
    "accuracy_by_trial": (
        "Can these trials be trusted?",
        "Every trial trains on a random part of the training set. To its model the samples left out are as new as "
        "the test set, so those two accuracies should be close; if they are not, the test set is of another kind, or "
        "something is wrong. The gap between trained on and left out is the average memorization.",
        "Three rows of points, one point per trial: accuracy on samples trained on, left out, and on the test set.",
    ),
    "undecided_by_trials": (
        "When were there enough trials?",
        "With each further trial more samples are decided: their interval, which holds at all times at once, is wholly "
        "above the threshold of atypical, or wholly below it. What remains undecided is near the threshold. The run "
        "ended at the first look at which its goal was reached, by the trials in the order of their numbers.",
        "Areas of the shares of samples decided above, decided below and undecided, by number of trials; beside them "
        "the median width of the intervals and the reliability.",
    ),
    "alignment_scatter": (
        "A cheaper score against memorization",
        "Training samples (their number, where there are many) by a score from a few models and by their "
        "memorization from leave-out trials. Spearman (with its interval) says how well the order agrees; AUROC how "
        "well the score finds the atypical samples, 0.5 being chance.",
        "Density plot of the cheaper score, across, against memorization, up, with a dashed line at the threshold of "
        "atypical.",
    ),
}


def explained(name: str, image: EmbeddedImage) -> PageFigure:
    """The page's entry for the figure made by the function `name` of `reporting.figures`."""
    return PageFigure(*_TEXTS[name], image)
