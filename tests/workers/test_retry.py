"""The rules of what is tried again: three attempts, thirty lost machines, four failures alike."""

import pytest

from bat_dist.workers.retry import RetryPolicy, UnitHistory

OTHERS = ["not tried yet"]


def test_the_third_failure_of_a_unit_is_its_last() -> None:
    retries = RetryPolicy()
    for number in (1, 2):
        assert retries.next_attempt("a") == number
        again, _ = retries.failed("a", f"reason {number}")
        assert again == "a"
    again, history = retries.failed("a", "reason 3")
    assert again is None
    assert (history.attempts, history.reason) == (3, "reason 3")
    assert retries.histories == {}


def test_a_hopeless_failure_is_not_tried_again_and_others_keep_their_attempts() -> None:
    retries = RetryPolicy()
    retries.failed("b", "bad luck")
    again, history = retries.failed("a", "loss nan", hopeless=True)
    assert again is None
    assert history.attempts == 1
    assert retries.next_attempt("b") == 2


def test_only_a_unit_whose_process_died_is_tried_again_smaller_and_keeps_its_history() -> None:
    retries = RetryPolicy(smaller=lambda size: size // 2)
    assert retries.failed(8, "ValueError: bad luck")[0] == 8
    retries.history(8).records.append({"event": "lost"})
    assert retries.failed(8, "worker lost", died=True)[0] == 4
    assert retries.next_attempt(8) == 1
    assert retries.next_attempt(4) == 3
    assert retries.histories == {4: UnitHistory(2, 0, "worker lost", [{"event": "lost"}])}


def test_thirty_lost_machines_cost_a_unit_no_attempt_and_the_next_is_held_against_it() -> None:
    retries = RetryPolicy()
    assert [retries.forgives_loss("a") for _ in range(31)] == 30 * [True] + [False]
    assert retries.next_attempt("a") == 1
    assert retries.forgives_loss("b")


def test_a_unit_that_is_done_leaves_nothing_behind() -> None:
    retries = RetryPolicy()
    retries.forgives_loss("a")
    retries.failed("a", "bad luck")
    retries.history("a").records.append({"event": "done"})
    assert retries.done("a").records == [{"event": "done"}]
    assert retries.histories == {}


def failing(*failures: tuple[str, str]) -> RetryPolicy:
    retries = RetryPolicy()
    for unit, (host, reason) in enumerate(failures):
        retries.count_failure(host, reason)
        retries.failed(unit, reason)
    return retries


def test_four_failures_of_one_kind_are_all_alike() -> None:
    failures = [("here", f"OSError: no such library: {unit}") for unit in range(4)]
    assert not failing(*failures[:3]).all_fail_alike({"here"}, OTHERS)
    retries = failing(*failures)
    assert retries.all_fail_alike({"here"}, OTHERS)
    assert (retries.num_failures, retries.last_reason) == (4, "OSError: no such library: 3")


@pytest.mark.parametrize(
    ("failures", "at_work", "waiting"),
    [
        (3 * [("here", "OSError: a")] + [("here", "ValueError: a")], {"here"}, OTHERS),
        (4 * [("here", "OSError: a")], {"here", "there"}, OTHERS),
        (4 * [("here", "OSError: a")], {"here"}, [0, 1, 2, 3]),
        (4 * [("here", "OSError: a")], {"here"}, []),
    ],
    ids=["two kinds", "another machine has not answered yet", "all were tried", "no others"],
)
def test_more_can_be_hoped_for(failures: list[tuple[str, str]], at_work: set[str], waiting: list) -> None:
    assert not failing(*failures).all_fail_alike(at_work, waiting)


def test_one_machine_on_which_all_fails_stops_nothing_until_the_others_fail_too() -> None:
    retries = failing(*5 * [("bad", "OSError: no such library")])
    assert not retries.all_fail_alike({"good", "bad"}, OTHERS)
    retries.count_failure("good", "OSError: neither here")
    assert retries.all_fail_alike({"good", "bad"}, OTHERS)


def test_after_one_unit_is_done_no_number_of_failures_stops_the_job() -> None:
    retries = failing(*4 * [("here", "OSError: a")])
    retries.history("a")
    retries.done("a")
    for _ in range(10):
        retries.count_failure("here", "OSError: a")
    assert not retries.all_fail_alike({"here"}, OTHERS)
