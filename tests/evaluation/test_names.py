import pytest

from bat_dist.evaluation.names import check_attacks, rows_of, steps_of


def test_names_and_their_rows() -> None:
    assert check_attacks(("pgd20", "clean", "pgd20", "cw")) == ("pgd20", "clean", "cw")
    assert [steps_of(name) for name in ("pgd7", "cw", "cw30", "clean", "pgd0", "autoattack")] == [7, 100, 30] + [
        None
    ] * 3
    assert rows_of(("clean", "autoattack_fast", "pgd1")) == (
        "clean",
        "autoattack_fast:apgd-ce",
        "autoattack_fast:apgd-t",
        "autoattack_fast",
        "pgd1",
    )


@pytest.mark.parametrize(("name", "near"), [("auto_attack", "autoattack"), ("pgd", "pgd20"), ("fgms", "fgsm")])
def test_an_unknown_attack_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {near}"):
        check_attacks(("clean", name))
    with pytest.raises(ValueError, match="at least one"):
        check_attacks(())
