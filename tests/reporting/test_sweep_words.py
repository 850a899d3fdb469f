"""What a sweep says at its end: the sentences for the terminal and the page."""

from typing import Any

from bat_dist.evaluation.statistics import Accuracy
from bat_dist.reporting.sweep import in_words
from bat_dist.results.evaluation_file import AttackRow
from bat_dist.sweep.record import RunOutcome, SweepRun
from bat_dist.sweep.results import Results, summarize

PGD_AT: dict[str, Any] = {"alpha": 0.0, "beta": 0.0}
BAT: dict[str, Any] = {"alpha": 1.0, "beta": 0.2}


def done(point: dict[str, Any], pgd: list[float]) -> list[RunOutcome]:
    """The runs of a point, one for each seed."""
    rows = [{"epoch": 1, "val_clean": 0.4 + value, "val_pgd": value} for value in pgd]
    return [RunOutcome(SweepRun(point, seed), "done", epochs=1, best=row, last=row) for seed, row in enumerate(rows)]


def results_of(*outcomes: RunOutcome) -> Results:
    return summarize(outcomes, metric=("val_pgd",), which="best")


def judged(attack: str, accuracy: float) -> AttackRow:
    return AttackRow(attack, Accuracy(accuracy, 0.01, 1000), {}, 1.0, 0.0, ())


def test_test_accuracies_are_means_of_one_attack_over_all_seeds() -> None:
    results = results_of(*done(BAT, [0.4, 0.5]))
    first, second = (SweepRun(BAT, seed) for seed in (0, 1))
    tested = {
        first: [judged("clean", 0.9), judged("fgsm", 0.6), judged("pgd20", 0.4)],
        second: [judged("pgd20", 0.42), judged("clean", 0.92)],
    }
    *_, last = in_words(results, tested, num_val=100)
    assert "clean 91.0%" in last
    assert "pgd20 41.0%" in last
    assert "fgsm" not in last


def test_why_nothing_is_said_of_pgd_at() -> None:
    def last(pgd_at: list[float], bat: list[float]) -> str:
        *_, verdict, _ = in_words(results_of(*done(PGD_AT, pgd_at), *done(BAT, bat)), {SweepRun(BAT, 0): []}, num_val=1)
        return verdict

    assert last([0.5], [0.53]) == "whether it beats PGD-AT cannot be said from one seed a point: add seeds"
    assert "the differences are the same at every seed" in last([0.5, 0.52], [0.53, 0.55])
    assert "alpha=1,beta=0.2 against PGD-AT" in last([0.5, 0.52], [0.53, 0.56])


def test_a_tiny_p_value_is_not_zero() -> None:
    words = " ".join(
        in_words(results_of(*done(PGD_AT, [0.1, 0.1001] * 3), *done(BAT, [0.6, 0.6002] * 3)), {}, num_val=1)
    )
    assert "p < 0.0001, more than seeds make" in words
    assert "p = " not in words
