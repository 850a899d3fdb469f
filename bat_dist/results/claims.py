"""What the paper says of atypical samples, as data: each statement, its place, its study, and what bears it out."""

import math
from typing import NamedTuple

from bat_dist.results.claim import COST_CLAIMS, FROM_TRAINING, OURS, POINTS, Claim, Verdict


class Finding(NamedTuple):
    """The estimate of a claim's quantity, with the bounds of a 95% interval, and what it is based on."""

    claim: str
    estimate: float
    low: float
    high: float
    based_on: str  # n, seeds and the kind of interval

    @property
    def verdict(self) -> Verdict:
        """Whether the interval bears the statement out, leaves it open, or contradicts it."""
        claim = CLAIMS[self.claim]
        if math.isnan(claim.bound):
            return "not tested"
        if math.isnan(self.low) or math.isnan(self.high):
            return "not visible at this scale"
        if claim.expected == "near":
            inside = claim.bound - claim.margin <= self.low and self.high <= claim.bound + claim.margin
            outside = self.high < claim.bound - claim.margin or self.low > claim.bound + claim.margin
        else:
            above, below = self.low > claim.bound, self.high < claim.bound
            inside, outside = (above, below) if claim.expected == "above" else (below, above)
        return "reproduced" if inside else "contradicted" if outside else "not visible at this scale"


CLAIMS: dict[str, Claim] = {
    "share_atypical": Claim(
        "Sec. 2.1",
        "Common datasets have a large fraction of atypical samples",
        "histogram",
        "share of training samples with mem > 0.15",
        "above",
        math.nan,  # the paper has no number for other data
    ),
    "share_atypical_cifar10": Claim(
        "Sec. 2.1",
        "More than 11% of CIFAR-10 are atypical",
        "histogram",
        "share of training samples with mem > 0.15",
        "above",
        0.11,
    ),
    "share_atypical_cifar100": Claim(
        "Sec. 2.1",
        "More than 40% of CIFAR-100 are atypical",
        "histogram",
        "share of training samples with mem > 0.15",
        "above",
        0.4,
    ),
    "share_atypical_tiny_imagenet": Claim(
        "Sec. 2.1",
        "More than 49% of Tiny ImageNet are atypical",
        "histogram",
        "share of training samples with mem > 0.15",
        "above",
        0.49,
    ),
    "at_fits_clean": Claim(
        "Sec. 3.1",
        "PGD adversarial training memorizes almost all atypical training samples",
        "atypical",
        "clean accuracy of PGD-AT on the train atypical set after the last epoch",
        "above",
        0.95,
    ),
    "at_fits_adversarial": Claim(
        "Sec. 3.1",
        "PGD adversarial training memorizes their adversarial counterparts, too",
        "atypical",
        "adversarial accuracy of PGD-AT on the train atypical set after the last epoch",
        "above",
        0.9,
    ),
    "at_clean_improves": Claim(
        "Sec. 3.1",
        "The clean accuracy of PGD-AT on the test atypical set improves as it trains on",
        "atypical",
        "last epoch minus the end of the first fifth",
        "above",
    ),
    "at_adversarial_constant": Claim(
        "Sec. 3.1",
        "The adversarial accuracy of PGD-AT on the test atypical set stays constant",
        "atypical",
        "last epoch minus the end of the first fifth",
        "near",
        margin=POINTS,
    ),
    "erm_clean_improves": Claim(
        "App. B.1 (i)",
        "In ERM, fitting atypical samples improves the clean accuracy on the test atypical set",
        "atypical",
        "last epoch minus the end of the first fifth",
        "above",
    ),
    "at_clean_drops": Claim(
        "Sec. 3.2",
        "Atypical training samples lower the clean accuracy of PGD-AT on the test typical set",
        "typical",
        "without atypical samples minus with all of them",
        "above",
    ),
    "at_adversarial_drops": Claim(
        "Sec. 3.2",
        "Atypical training samples lower the adversarial accuracy of PGD-AT on the test typical set",
        "typical",
        "without atypical samples minus with all of them",
        "above",
    ),
    "erm_does_not_drop": Claim(
        "Sec. 3.2",
        "In ERM this does not appear: the accuracy on the test typical set is equal",
        "typical",
        "clean accuracy without atypical samples minus with all of them",
        "near",
        margin=POINTS,
    ),
    "only_at_drops": Claim(
        "Sec. 3.2",
        "PGD-AT drops and ERM does not",
        "typical",
        "drop of clean accuracy of PGD-AT minus that of ERM (interaction)",
        "above",
    ),
    "more_is_worse": Claim(
        "Sec. 3.2",
        "The more atypical samples there are in the training set, the poorer the model",
        "typical",
        "slope of the adversarial accuracy of PGD-AT on the test typical set over the share of atypical samples",
        "below",
    ),
    "not_the_number": Claim(
        OURS,
        "It is the atypical samples, not the number of samples",
        "typical",
        "adversarial accuracy of PGD-AT without atypical samples minus that with as many left out at random",
        "above",
    ),
    "not_any_group": Claim(
        OURS,
        "Leaving the most typical samples out does not have the same effect",
        "typical",
        "adversarial accuracy of PGD-AT without atypical samples minus that without as many of the most typical",
        "above",
    ),
    "separation_degrades": Claim(
        "App. B.2 (iii)",
        "In adversarial training, atypical samples degrade the discrimination between classes",
        "separation",
        "ratio of distances between and within classes: without atypical samples minus with all of them",
        "above",
    ),
    "poisoning_look_alike": Claim(
        "App. B.3",
        "People assign samples of high poisoning score to another class more often than samples of low score",
        "poisoning",
        "share of people's labels that differ from the given one: high scores minus low scores",
        "above",
    ),
    "poisoning_named_class": Claim(
        "App. B.3",
        "People then choose the class that the network confuses them with",
        "poisoning",
        "share of people's labels that name that class: high scores minus low scores",
        "above",
    ),
    "poisoning_answers": Claim(
        "App. B.3",
        "People who are asked say more often of samples of high score that they are of that class, or of both",
        "poisoning",
        "share of the answers that are the other class or both: high scores minus low scores",
        "above",
    ),
    "people_disagree_on_memorized": Claim(
        "Sec. 2.1",
        "Samples that must be memorized are ambiguous or labelled wrong",
        "poisoning",
        "Spearman correlation of mem with the share of people's labels that differ, over training samples",
        "above",
    ),
    "disagreement_aligns": Claim(
        "App. A.1",
        "The disagreement of an ensemble finds the samples that are memorized",
        "alignment",
        "Spearman correlation with mem",
        "above",
    ),
    "confidence_aligns": Claim(
        "App. A.1",
        "The confidence of an ensemble finds the samples that are memorized",
        "alignment",
        "Spearman correlation with mem",
        "above",
    ),
    **{
        f"{score}_aligns": Claim(
            OURS,
            f"{words} finds the samples that are memorized",
            "attribution",
            "Spearman correlation with mem",
            "above",
        )
        for score, words in FROM_TRAINING.items()
    },
    **{
        f"lds_{name}": Claim(OURS, statement, "attribution", "LDS: Spearman over trials, mean over samples", "above")
        for name, statement in {
            "trak": "TRAK predicts on which test samples networks trained on subsets are right",
            "influence": "The influence estimated from half of the trials predicts the other half",
        }.items()
    },
    "bat_with_disagreement": Claim(
        "App. A.1",
        "BAT with ensemble disagreement in place of memorization is as robust",
        "alignment",
        "adversarial accuracy on the test set: with disagreement minus with mem",
        "near",
        margin=POINTS,
    ),
    "bat_with_confidence": Claim(
        "App. A.1",
        "BAT with confidence in place of memorization is as robust",
        "alignment",
        "adversarial accuracy on the test set: with confidence minus with mem",
        "near",
        margin=POINTS,
    ),
    **{
        f"bat_with_{score}": Claim(
            OURS,
            f"BAT with {score} in place of memorization is as robust",
            "alignment",
            f"adversarial accuracy on the test set: with {score} minus with mem",
            "near",
            margin=POINTS,
        )
        for score in FROM_TRAINING
    },
    "theorem_1": Claim(
        "Theorem 1",
        "An atypical sample can be fitted with at most 1% error on both classes",
        "theory",
        "share of the grid where no linear model does so",
        "near",
    ),
    "theorem_2": Claim(
        "Theorem 2",
        "Fitting its adversarial examples costs at least half of the other class",
        "theory",
        "share of the grid where a linear model does better",
        "near",
    ),
    **COST_CLAIMS,
}
