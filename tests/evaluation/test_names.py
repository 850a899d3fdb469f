import pytest

from bat_dist.evaluation.names import check_attacks, fewest_classes, is_random, steps_of


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


def test_what_another_seed_changes() -> None:
    assert [name for name in ("clean", "fgsm", "pgd20", "fab-t", "square", "autoattack") if is_random(name)] == [
        "pgd20",
        "square",
        "autoattack",
    ]
