"""What people are asked and what they answered: blind questions, files that fit no question, the paper's table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from bat_dist.errors import UserError
from bat_dist.studies.annotation import (
    ANSWERS,
    AnswerFile,
    GivenAnswer,
    agreements,
    answers_by_sample,
    questions,
    read_answers,
    share_of_other_class,
    table_of_answers,
)
from bat_dist.studies.poisoning import PoisoningSamples


def made(each: int = 40, neither: int = 5) -> PoisoningSamples:
    total, rng = 2 * each + neither, np.random.default_rng(0)
    y1 = rng.integers(10, size=total)
    of = np.array(["high"] * each + ["neither"] * neither + ["low"] * each)
    return PoisoningSamples(
        rng.permutation(300)[:total], y1, (y1 + rng.integers(1, 10, total)) % 10, np.ones((total, 2)), of
    )


def test_each_sample_of_both_sets_is_asked_about_once_and_blind() -> None:
    samples = made()
    asked = questions(samples)
    assert asked == questions(samples)
    place = {int(index): at for at, index in enumerate(samples.index)}
    assert sorted(place[one.sample] for one in asked) == [*range(40), *range(45, 85)]
    given_first = 0
    for one in asked:
        at = place[one.sample]
        assert {one.first, one.second} == {samples.y1[at], samples.y2[at]}
        given_first += one.first == samples.y1[at]
    assert 25 <= given_first <= 55
    high_in_first_half = sum(samples.of[place[one.sample]] == "high" for one in asked[:40])
    assert 10 <= high_in_first_half <= 30


def answer_file(samples: PoisoningSamples, annotator: str, meanings: dict[int, str]) -> AnswerFile:
    """meanings: of rows of `samples`."""
    given = []
    for row, meaning in meanings.items():
        index, y1, y2 = (int(values[row]) for values in (samples.index, samples.y1, samples.y2))
        first, second = (y1, y2) if row % 2 else (y2, y1)
        named = {"y1": y1, "y2": y2}.get(meaning)
        answer: Any = meaning if named is None else "first" if named == first else "second"
        given.append(GivenAnswer(index, first, second, answer))
    return AnswerFile(annotator, "data", given)


def test_the_table_is_a_count_by_hand() -> None:
    samples = made(each=4, neither=1)
    ann = answer_file(samples, "Ann", {0: "y1", 1: "y2", 2: "y2", 3: "both", 5: "y1", 6: "y1", 7: "y1", 8: "y1"})
    bob = answer_file(samples, "Bob", {0: "y1", 2: "both", 6: "neither"})
    answered = answers_by_sample([ann, bob], samples)
    assert answered["Ann"].tolist() == ["y1", "y2", "y2", "both", "", "y1", "y1", "y1", "y1"]
    rows = {(row.annotator, row.of): (row.n, [*row.percent]) for row in table_of_answers(answered, samples)}
    assert rows == {
        ("Ann", "high"): (4, [25, 50, 25, 0]),
        ("Ann", "low"): (4, [100, 0, 0, 0]),
        ("Bob", "high"): (2, [50, 0, 50, 0]),
        ("Bob", "low"): (1, [0, 0, 0, 100]),
        ("pooled", "high"): (6, pytest.approx([100 / 3, 100 / 3, 100 / 3, 0])),
        ("pooled", "low"): (5, [80, 0, 0, 20]),
    }
    shares = share_of_other_class(answered)
    np.testing.assert_array_equal(shares, [0, 1, 1, 1, np.nan, 0, 0, 0, 0])


def test_kappa_is_of_the_samples_that_both_have_answered() -> None:
    samples, rng = made(), np.random.default_rng(4)
    rows = [row for row in range(85) if samples.of[row] != "neither"]
    files = [
        answer_file(samples, name, {row: str(rng.choice(ANSWERS, p=[0.5, 0.2, 0.2, 0.1])) for row in part})
        for name, part in (("Ann", rows[:60]), ("Bob", rows[20:]), ("Cy", []))
    ]
    answered = answers_by_sample(files, samples)
    found = {(one.first, one.second): one for one in agreements(answered)}
    assert list(found) == [("Ann", "Bob"), ("Ann", "Cy"), ("Bob", "Cy")]
    both = rows[20:60]
    truth = cohen_kappa_score(answered["Ann"][both], answered["Bob"][both])
    assert found["Ann", "Bob"].n == 40
    assert found["Ann", "Bob"].kappa == pytest.approx(truth)
    assert np.isnan(found["Ann", "Cy"].kappa)
    table = {(row.annotator, row.of): row for row in table_of_answers(answered, samples)}
    assert np.isnan(table["Cy", "low"].percent).all()


def test_nobody_has_answered() -> None:
    assert table_of_answers({}, made()) == []
    assert agreements({}) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"sample": 999}, "training sample 999 is not asked about"),
        ({"first": 11}, "is asked about with other classes in this study"),
    ],
)
def test_answers_to_other_questions(change: dict[str, int], problem: str) -> None:
    samples = made()
    given = {"sample": int(samples.index[0]), "first": int(samples.y1[0]), "second": int(samples.y2[0])}
    one = GivenAnswer(**{**given, **change}, answer="both")
    with pytest.raises(UserError, match=f"answers of 'Ann': .*{problem}"):
        answers_by_sample([AnswerFile("Ann", "data", [one])], samples)


def test_answers_about_a_sample_of_neither_set_and_two_answers_to_one_question() -> None:
    samples = made()
    with pytest.raises(UserError, match="is not asked about"):
        answers_by_sample([answer_file(samples, "Ann", {41: "y1"})], samples)
    one = answer_file(samples, "Ann", {0: "y1"})
    with pytest.raises(UserError, match="is answered twice"):
        answers_by_sample([AnswerFile("Ann", "data", [*one.answers, *one.answers])], samples)


ANSWER = {"sample": 1, "first": 2, "second": 3, "answer": "both"}
GOOD = {"annotator": "Ann", "fingerprint": "data", "answers": [ANSWER]}


def test_files_are_read_in_their_order(tmp_path: Path) -> None:
    for name in ("Zoe", "Ann"):
        (tmp_path / f"{name}.json").write_text(json.dumps({**GOOD, "annotator": name}))
    found = read_answers([str(tmp_path / "Zoe.json"), str(tmp_path / "Ann.json")], "data")
    assert [one.annotator for one in found] == ["Zoe", "Ann"]
    assert found[0].answers == [GivenAnswer(1, 2, 3, "both")]
    with pytest.raises(UserError, match="about other data"):
        read_answers([str(tmp_path / "Ann.json")], "other")
    with pytest.raises(UserError, match="second file of annotator 'Ann'"):
        read_answers([str(tmp_path / "Ann.json")] * 2, "data")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no file of answers"),
        ("[]", "no file of answers"),
        (json.dumps({**GOOD, "answers": [{"sample": 1}]}), r"answers\.0\.first: Field required"),
        (json.dumps({**GOOD, "answers": [{**ANSWER, "answer": "cat"}]}), r"answers\.0\.answer"),
        (json.dumps({**GOOD, "answers": [{**ANSWER, "sample": "1"}]}), r"answers\.0\.sample"),
        (json.dumps({**GOOD, "annotator": " "}), "cannot be called ' '"),
        (json.dumps({**GOOD, "annotator": "pooled"}), "cannot be called 'pooled'"),
    ],
)
def test_files_that_hold_no_answers(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "answers.json").write_text(text)
    with pytest.raises(UserError, match=problem):
        read_answers([str(tmp_path / "answers.json")], "data")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no file"):
        read_answers([str(tmp_path / "none.json")], "data")
