"""The annotation page in a real headless browser: asked, answered, gone back, kept, saved, loaded and counted."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bat_dist.data.datasets import Dataset, load_dataset
from bat_dist.reporting.studies.annotation_page import annotation_page
from bat_dist.studies.annotation import answers_by_sample, questions, read_answers, table_of_answers
from bat_dist.studies.poisoning import PoisoningSamples
from tests.helpers.waiting import CHROMIUM_FORGETS

ATTACK = "</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"

# Playwright's event loop closes its pipes when it likes.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    names = ("zero", ATTACK, *["two", "three", "four", "five", "six", "seven", "eight", "nine"])
    return replace(load_dataset("digits", num_train=100, num_test=10), class_names=names)


@pytest.fixture(scope="module")
def samples(dataset: Dataset) -> PoisoningSamples:
    """Three samples of high score and three of low score; all are taken for class 1, which has a hostile name."""
    index = np.flatnonzero(dataset.train.labels != 1)[:7]
    y1 = dataset.train.labels[index]
    of = np.array(["high"] * 3 + ["neither"] + ["low"] * 3)
    return PoisoningSamples(index, y1, np.ones(7, np.int64), np.linspace(1, 0, 7)[:, None], of)


@pytest.fixture
def page_file(dataset: Dataset, samples: PoisoningSamples, tmp_path: Path) -> Path:
    file = tmp_path / "annotate.html"
    file.write_text(annotation_page(dataset, samples))
    return file


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    """The page as somebody opens it; at the end it has said and fetched nothing."""
    context = browser.new_context(viewport={"width": 390, "height": 800})
    opened, said, asked = context.new_page(), [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(page_file.as_uri())
    yield opened
    assert said == []
    assert {url for url in asked if not url.startswith(("data:", "blob:"))} == {page_file.as_uri()}
    context.close()


def begin(page: Any, name: str) -> None:
    page.fill("#name", name)
    page.keyboard.press("Enter")


def saved(page: Any, place: Path) -> Path:
    with page.expect_download() as download:
        page.click("#save")
    file = place / download.value.suggested_filename
    download.value.save_as(file)
    return file


def shown(page: Any) -> str:
    return page.get_attribute("#image", "src")


def test_answers_are_given_by_key_saved_and_counted(
    page: Any, dataset: Dataset, samples: PoisoningSamples, tmp_path: Path
) -> None:
    begin(page, "Ann Ö. 1")
    asked = questions(samples)
    place = {int(index): at for at, index in enumerate(samples.index)}
    for number, question in enumerate(asked):
        assert page.inner_text("#count") == f"{number} of 6 answered"
        texts = page.locator("#choices button").all_inner_texts()
        names = [dataset.class_names[question.first], dataset.class_names[question.second]]
        assert texts == [f"1It is: {names[0]}", f"2It is: {names[1]}", "3It may well be either", "4It is neither"]
        is_high = samples.of[place[question.sample]] == "high"
        page.keyboard.press("3" if is_high else "1" if question.first != 1 else "2")  # the given class
    assert page.is_visible("#done")
    file = saved(page, tmp_path)
    assert file.name == "answers-Ann_Ö_1.json"
    answered = answers_by_sample(read_answers([str(file)], dataset.fingerprint), samples)
    assert answered["Ann Ö. 1"].tolist() == ["both"] * 3 + [""] + ["y1"] * 3
    rows = {(row.annotator, row.of): row.percent for row in table_of_answers(answered, samples)}
    assert rows["Ann Ö. 1", "high"] == [0, 0, 100, 0]
    assert rows["pooled", "low"] == [100, 0, 0, 0]
    assert page.title() == "Which class is it? digits"  # no script of a name was run


def test_the_image_is_that_of_the_sample(page: Any, dataset: Dataset, samples: PoisoningSamples) -> None:
    begin(page, "Ann")
    pixels = page.evaluate(
        "() => { const i = byId('image'), c = document.createElement('canvas'); c.width = i.naturalWidth;"
        "c.height = i.naturalHeight; const t = c.getContext('2d'); t.drawImage(i, 0, 0);"
        "return [...t.getImageData(0, 0, c.width, c.height).data]; }"
    )
    image = dataset.train.images[questions(samples)[0].sample]
    np.testing.assert_array_equal(np.reshape(pixels, (*image.shape[:2], 4))[..., :3], image)
    assert page.evaluate("getComputedStyle(byId('image')).imageRendering") == "pixelated"
    assert page.evaluate("byId('image').getBoundingClientRect().width") > 250
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_neither_the_set_nor_the_given_class_is_in_the_page(page_file: Path, samples: PoisoningSamples) -> None:
    text = page_file.read_text()
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert set(data) == {"fingerprint", "classes", "questions"}
    assert all(set(one) == {"sample", "first", "second", "image"} for one in data["questions"])


def test_going_back_changes_an_answer(page: Any, tmp_path: Path) -> None:
    begin(page, "Ann")
    first = shown(page)
    page.keyboard.press("1")
    page.keyboard.press("4")
    assert shown(page) != first
    page.keyboard.press("Backspace")
    page.click("#back")
    assert shown(page) == first
    assert page.is_disabled("#back")
    assert page.locator('#choices [aria-pressed="true"]').all_inner_texts()[0].startswith("1")
    page.click("#choices button:nth-child(3)")
    assert page.inner_text("#count") == "2 of 6 answered"
    answers = json.loads(saved(page, tmp_path).read_text())["answers"]
    assert [one["answer"] for one in answers] == ["both", "neither"]


def test_answers_stay_in_the_browser_for_each_name(page: Any, tmp_path: Path) -> None:
    """Chromium itself forgets what a page has stored in some reloads on a busy machine: then once more."""
    for attempt in range(CHROMIUM_FORGETS):
        begin(page, f"Ann {attempt}")
        assert page.inner_text("#count") == "0 of 6 answered"
        page.keyboard.press("1")
        page.keyboard.press("2")
        page.reload()
        begin(page, f"Bob {attempt}")
        assert page.inner_text("#count") == "0 of 6 answered"
        page.keyboard.press("4")
        page.reload()
        begin(page, f"Ann {attempt}")
        if page.inner_text("#count") == "2 of 6 answered":
            break
        page.reload()
    answers = json.loads(saved(page, tmp_path).read_text())["answers"]
    assert [one["answer"] for one in answers] == ["first", "second"]


def test_saved_answers_are_loaded_again_elsewhere(page: Any, tmp_path: Path) -> None:
    begin(page, "Ann")
    for key in "123":
        page.keyboard.press(key)
    file = saved(page, tmp_path)
    page.evaluate("localStorage.clear()")
    page.reload()
    begin(page, "Ann")
    assert page.inner_text("#count") == "0 of 6 answered"
    page.set_input_files("#load", file)
    page.locator("#count", has_text="3 of 6 answered").wait_for()
    assert "3 answers loaded" in page.inner_text("#message")
    again = tmp_path / "again"
    again.mkdir()
    assert saved(page, again).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fingerprint": "other"}, "holds no answers about these images"),
        ({"annotator": "Bob"}, "holds the answers of Bob, not of Ann"),
        (None, "is no file of answers"),
    ],
)
def test_files_that_are_not_loaded(
    page: Any, dataset: Dataset, tmp_path: Path, change: dict[str, str] | None, said: str
) -> None:
    good = {"annotator": "Ann", "fingerprint": dataset.fingerprint, "answers": []}
    file = tmp_path / "answers.json"
    file.write_text("nothing" if change is None else json.dumps({**good, **change}))
    begin(page, "Ann")
    page.set_input_files("#load", file)
    page.locator("#message", has_text=said).wait_for()
    assert page.inner_text("#count") == "0 of 6 answered"


def test_keys_in_the_field_of_the_name_are_letters(page: Any) -> None:
    page.fill("#name", "")
    page.type("#name", "A1234")
    assert page.input_value("#name") == "A1234"
    assert page.is_hidden("#asking")
