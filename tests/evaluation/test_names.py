import pytest

from bat_dist.evaluation.names import (
    check_attacks,
    fewest_classes,
    for_few_classes,
    is_random,
    num_draws_of,
    parts_of,
    passes,
    steps_of,
)


def test_names_once_and_in_order() -> None:
    assert check_attacks(("pgd20", "clean", "pgd20", "cw", "square")) == ("pgd20", "clean", "cw", "square")
    steps = [steps_of(name) for name in ("pgd7", "cw", "cw30", "clean", "pgd0", "autoattack", "square")]
    assert steps == [7, 100, 30, None, None, None, None]


@pytest.mark.parametrize(("name", "near"), [("auto_attack", "autoattack"), ("pgd", "pgd20"), ("fgms", "fgsm")])
def test_an_unknown_attack_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {near}"):
        check_attacks(("clean", name))
    with pytest.raises(ValueError, match="at least one"):
        check_attacks(())


def test_targeted_attacks_need_their_nine_wrong_classes() -> None:
    needed = {name: fewest_classes(name) for name in ("clean", "pgd20", "apgd-ce", "square", "autoattack", "apgd-t")}
    assert needed == {"clean": 2, "pgd20": 2, "apgd-ce": 2, "square": 2, "autoattack": 10, "apgd-t": 10}


def test_autoattack_with_fewer_targets_has_its_own_names_and_needs() -> None:
    assert parts_of("autoattack_t4") == ("apgd-ce", "apgd-t4", "fab-t4", "square")
    assert parts_of("autoattack") == ("apgd-ce", "apgd-t", "fab-t", "square")
    assert parts_of("fab-t2") == ("fab-t2",)
    needed = {name: fewest_classes(name) for name in ("autoattack_t4", "autoattack_t3", "apgd-t1", "fab-t2")}
    assert needed == {"autoattack_t4": 5, "autoattack_t3": 4, "apgd-t1": 4, "fab-t2": 3}
    for classes in range(4, 10):
        assert fewest_classes(for_few_classes(classes).partition(",")[0]) == classes
    assert "autoattack" not in for_few_classes(3)
    for name in ("autoattack_t", "autoattack_t9", "autoattack_t0", "apgd-t0", "fab-t12"):
        with pytest.raises(ValueError, match="there is no attack"):
            check_attacks((name,))


def test_attacks_of_randomized_networks() -> None:
    assert parts_of("autoattack_rand") == ("apgd-ce-eot20", "apgd-dlr-eot20")
    names = ("apgd-ce", "apgd-dlr", "apgd-ce-eot20", "apgd-dlr-eot7", "apgd-t", "square", "autoattack_rand")
    assert [num_draws_of(name) for name in names] == [1, 1, 20, 7, 0, 0, 0]
    assert check_attacks(names) == names
    assert [fewest_classes(name) for name in ("apgd-ce-eot20", "apgd-dlr", "autoattack_rand")] == [2, 3, 3]
    assert passes("apgd-ce-eot20") == 20 * passes("apgd-ce") == 6000
    for name in ("apgd-t-eot20", "apgd-ce-eot0", "apgd-ce-eot", "square-eot5"):
        with pytest.raises(ValueError, match="there is no attack"):
            check_attacks((name,))


def test_what_another_seed_changes() -> None:
    assert [name for name in ("clean", "fgsm", "pgd20", "fab-t", "square", "autoattack") if is_random(name)] == [
        "pgd20",
        "square",
        "autoattack",
    ]
