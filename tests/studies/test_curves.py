"""Findings of Sec. 3.1 and 3.2 against arithmetic by hand and known answers."""

import numpy as np
import pytest
from scipy import stats

from bat_dist.studies.curves import Curve, atypical_findings, over_seeds, typical_findings

RNG = np.random.default_rng(0)


def history(values: list[float | None]) -> list[dict[str, float | None]]:
    return [{"epoch": epoch, "clean": value} for epoch, value in enumerate(values, 1)]


def test_a_curve_has_the_epochs_that_all_seeds_looked_at() -> None:
    curve = Curve.of([history([None, 0.2, None, 0.4]), history([None, 0.3, None, 0.5, 0.6])], "clean")
    assert list(curve.epochs) == [2, 4]
    assert curve.values.tolist() == [[0.2, 0.4], [0.3, 0.5]]
    assert curve.last.tolist() == [0.4, 0.5]


def test_early_is_the_end_of_the_first_fifth() -> None:
    values = np.arange(1, 21) / 20
    assert Curve(range(1, 21), np.array([values])).early.tolist() == [4 / 20]


def test_the_interval_over_seeds_is_students() -> None:
    values = np.array([0.1, 0.3, 0.2])
    found = over_seeds(values)
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert found == pytest.approx((values.mean(), low, high))
    assert np.isnan(over_seeds(values[:1]).low)


def test_what_section_3_1_says_of_made_curves() -> None:
    """PGD-AT fits, improves clean, and stays constant under attack, in all seeds alike but for a little noise."""
    epochs = np.arange(1, 51)

    def curve(end: float, begin: float) -> Curve:
        line = begin + (end - begin) * np.minimum(1, epochs / 40)
        return Curve(epochs.tolist(), line + RNG.normal(0, 0.002, (3, 50)))

    curves = {
        ("pgd_at", "clean_train_atypical"): curve(0.99, 0.1),
        ("pgd_at", "pgd_train_atypical"): curve(0.97, 0.1),
        ("pgd_at", "clean_test_atypical"): curve(0.4, 0.2),
        ("pgd_at", "pgd_test_atypical"): curve(0.1, 0.1),
        ("erm", "clean_test_atypical"): curve(0.5, 0.3),
    }
    found = {one.claim: one for one in atypical_findings(curves, num_train=30, num_test=20)}
    assert {one.verdict for one in found.values()} == {"reproduced"}
    assert found["at_clean_improves"].estimate == pytest.approx(0.2 * (1 - 10 / 40), abs=0.01)
    assert found["at_fits_clean"].based_on.startswith("3 seeds, 30 samples")
    assert found["at_adversarial_constant"].based_on.startswith("3 seeds, 20 samples")


def test_a_handful_of_samples_gives_no_verdict_even_if_all_seeds_agree_on_them() -> None:
    """One test sample that every seed has right at all epochs was "constant: reproduced"."""
    flat = Curve([1, 2, 3, 4, 5], np.ones((3, 5)))
    columns = [("pgd_at", f"{kind}_{split}_atypical") for kind in ("clean", "pgd") for split in ("train", "test")]
    curves = dict.fromkeys([*columns, ("erm", "clean_test_atypical")], flat)
    found = {one.claim: one for one in atypical_findings(curves, num_train=30, num_test=9)}
    assert found["at_adversarial_constant"].verdict == "not visible at this scale"
    assert found["at_adversarial_constant"].estimate == 0
    assert "fewer than 10 samples" in found["at_adversarial_constant"].based_on
    assert found["at_fits_clean"].verdict == "reproduced"
    enough = {one.claim: one for one in atypical_findings(curves, num_train=30, num_test=10)}
    assert enough["at_adversarial_constant"].verdict == "reproduced"


HARDNESS = RNG.random((3, 2000))  # of an image for the networks of a seed, but for a tenth that is drawn anew


def flags(rate: float) -> np.ndarray:
    return np.where(RNG.random((3, 2000)) < 0.1, RNG.random((3, 2000)), HARDNESS) < rate


def test_what_section_3_2_says_of_made_flags() -> None:
    rates = {
        ("pgd_at", "atypical0", "clean"): 0.95,
        ("pgd_at", "atypical20", "clean"): 0.93,
        ("pgd_at", "atypical100", "clean"): 0.88,
        ("pgd_at", "atypical0", "pgd"): 0.55,
        ("pgd_at", "atypical20", "pgd"): 0.52,
        ("pgd_at", "atypical100", "pgd"): 0.45,
        ("erm", "atypical0", "clean"): 0.97,
        ("erm", "atypical100", "clean"): 0.97,
        ("pgd_at", "random_removed", "pgd"): 0.46,
        ("pgd_at", "typical_removed", "pgd"): 0.44,
    }
    made = {key: flags(rate) for key, rate in rates.items()}
    found = {one.claim: one for one in typical_findings(made, [0.0, 20.0, 100.0])}
    assert {one.verdict for one in found.values()} == {"reproduced"}
    drop = made["pgd_at", "atypical0", "clean"].mean() - made["pgd_at", "atypical100", "clean"].mean()
    of_erm = made["erm", "atypical0", "clean"].mean() - made["erm", "atypical100", "clean"].mean()
    assert found["only_at_drops"].estimate == pytest.approx(drop - of_erm)
    means = [made["pgd_at", name, "pgd"].mean() for name in ("atypical0", "atypical20", "atypical100")]
    assert found["more_is_worse"].estimate == pytest.approx(np.polyfit([0, 0.2, 1], means, 1)[0])
    assert found["not_any_group"].estimate == pytest.approx(means[0] - made["pgd_at", "typical_removed", "pgd"].mean())


@pytest.mark.parametrize("shares", [[0, 20, 50, 100], [0, 25, 50, 75, 100], [0, 10, 20, 40, 80, 100]])
def test_networks_that_are_all_right_say_nothing_of_the_share(shares: list[float]) -> None:
    """The weights of the slope sum to zero but for rounding, whose sign was taken for a verdict."""
    names = [("pgd_at", f"atypical{share:g}", kind) for share in shares for kind in ("clean", "pgd")]
    names += [("erm", name, "clean") for name in ("atypical0", "atypical100")]
    found = {one.claim: one for one in typical_findings(dict.fromkeys(names, np.ones((3, 40), bool)), shares)}
    assert found["more_is_worse"][1:4] == (0, 0, 0)
    assert found["more_is_worse"].verdict == "not visible at this scale"


def test_without_controls_they_are_not_judged_and_one_seed_gives_no_interval() -> None:
    names = [("pgd_at", f"atypical{share}", kind) for share in (0, 100) for kind in ("clean", "pgd")]
    made = {key: flags(0.5)[:1] for key in [*names, ("erm", "atypical0", "clean"), ("erm", "atypical100", "clean")]}
    found = list(typical_findings(made, [0.0, 100.0]))
    assert not {"not_the_number", "not_any_group"} & {one.claim for one in found}
    assert {one.verdict for one in found} == {"not visible at this scale"}
