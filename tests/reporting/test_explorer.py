"""The sample explorer: its numbers are the arrays', and a reader finds, sorts, filters and follows samples."""

import json
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bat_dist.artifacts.scores import LeaveOutScores, Trials
from bat_dist.data.datasets import Dataset, Split, load_dataset
from bat_dist.memorization.estimate import estimate_memorization
from bat_dist.memorization.influence import InfluencePairs, influential_pairs
from bat_dist.memorization.typicality import typical_sets
from bat_dist.reporting.explorer import explorer_page, strongest_pairs
from tests.helpers.waiting import CHROMIUM_FORGETS

# Playwright's event loop closes its pipes when it likes.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

ATTACK = "</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"
SETTINGS = {"influence_threshold": 0.15, "influence_pairs": "same_class"}
NUM_TRAIN, NUM_TEST, NUM_TRIALS = 120, 60, 40


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Digits, of which a class and a sample have hostile names."""
    digits = load_dataset("digits", num_train=NUM_TRAIN, num_test=NUM_TEST)
    ids = np.array([ATTACK if i == 5 else f"digit-{i}" for i in range(NUM_TRAIN)])
    return replace(digits, train=replace(digits.train, ids=ids), class_names=(ATTACK, *digits.class_names[1:]))


@pytest.fixture(scope="module")
def scores(dataset: Dataset) -> LeaveOutScores:
    """Trials by chance; sample 7 is never left out, sample 9 always memorized."""
    rng = np.random.default_rng(0)
    mask = rng.random((NUM_TRIALS, NUM_TRAIN)) < 0.7
    mask[:, 7] = True
    correct = rng.random(mask.shape) < np.where(mask, 0.95, rng.random(NUM_TRAIN))
    correct[:, 9] = mask[:, 9]
    predicted = np.where(correct, dataset.train.labels, rng.integers(0, 10, mask.shape)).astype(np.uint16)
    test_correct = rng.random((NUM_TRIALS, NUM_TEST)) < 0.6
    trials = Trials(np.arange(NUM_TRIALS), mask, correct, test_correct, np.ones((NUM_TRIALS, 2)), predicted)
    labels = (dataset.train.labels, dataset.test.labels)
    found = estimate_memorization(mask, correct)
    pairs = influential_pairs(mask, test_correct, *labels, threshold=0.15)
    return LeaveOutScores(found, pairs, trials, typical_sets(found.mem, mask, test_correct, *labels))


class DataOfPage(HTMLParser):
    """The JSON of the script element whose id is data, as a browser reads it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.num_scripts, self._inside = "", 0, False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.num_scripts += tag == "script"
        self._inside = ("id", "data") in attrs

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        self.text += data if self._inside else ""


def data_of(page: str) -> dict[str, Any]:
    return json.loads(DataOfPage(page).text)


def test_its_numbers_are_those_of_the_trials(dataset: Dataset, scores: LeaveOutScores) -> None:
    """Sample by sample and pair by pair, from the rows of the trials."""
    data, trials = data_of(explorer_page(dataset, scores, SETTINGS)), scores.trials
    assert trials is not None
    mask, correct, test_correct = (np.asarray(one) for one in (trials.mask, trials.train_correct, trials.test_correct))
    train, test = data["train"], data["test"]
    assert (train["sample"], test["sample"]) == (list(range(NUM_TRAIN)), list(range(NUM_TEST)))
    assert train["id"] == dataset.train.ids.tolist()
    assert data["classes"] == list(dataset.class_names)
    low, high = scores.memorization.interval()
    for i in range(NUM_TRAIN):
        inside = mask[:, i]
        assert (train["n_in"][i], train["n_out"][i]) == (inside.sum(), (~inside).sum())
        if inside.all():
            assert train["mem"][i] is train["low"][i] is train["accuracy_out"][i] is None
            assert train["kind"][i] == 3
            continue
        right_in, right_out = correct[inside, i].mean(), correct[~inside, i].mean()
        mem = right_in - right_out
        assert train["mem"][i] == pytest.approx(mem, abs=6e-5)
        assert (train["low"][i], train["high"][i]) == (
            pytest.approx(low[i], abs=6e-5),
            pytest.approx(high[i], abs=6e-5),
        )
        assert train["accuracy_out"][i] == pytest.approx(right_out, abs=6e-5)
        assert train["kind"][i] == (0 if mem < 0.02 else 2 if mem > 0.15 else 1)
        said = np.bincount(np.asarray(trials.train_predicted)[~inside, i], minlength=10)
        assert train["taken"][i] == said.argmax()
        assert train["share"][i] == pytest.approx(said.max() / said.sum(), abs=6e-5)
        assert train["doubted"][i] == (said.argmax() != dataset.train.labels[i] and 2 * said.max() >= said.sum())
    for j in range(NUM_TEST):
        assert test["accuracy"][j] == pytest.approx(test_correct[:, j].mean(), abs=6e-5)
    found = list(zip(*(data["pairs"][name] for name in ("train", "test", "influence", "low", "high")), strict=True))
    assert len(found) > 50
    assert [pair[2] for pair in found] == sorted((pair[2] for pair in found), reverse=True)
    for i, j, influence, below, above in found:
        inside, right = mask[:, i], test_correct[:, j]
        assert dataset.train.labels[i] == dataset.test.labels[j]
        assert influence == pytest.approx(right[inside].mean() - right[~inside].mean(), abs=6e-5)
        assert influence > 0.15
        assert below < influence < above


def test_of_each_sample_the_strongest_pairs_are_kept() -> None:
    rng = np.random.default_rng(0)
    influence = np.sort(rng.random(400))[::-1]
    train, test = rng.integers(0, 6, 400), rng.integers(0, 9, 400)
    kept = strongest_pairs(InfluencePairs(train, test, influence, influence, 400), partners=3)
    expected = []
    for p in range(400):
        stronger = [sum(of[:p] == of[p]) for of in (train, test)]
        if min(stronger) < 3:
            expected.append(influence[p])
    assert kept.influence.tolist() == expected
    assert kept.num_found == 400
    most = strongest_pairs(InfluencePairs(train, test, influence, influence, 400), partners=3, most=5)
    assert most.influence.tolist() == expected[:5]


def test_a_large_data_set_is_cut_to_size_and_the_page_says_so(scores: LeaveOutScores, dataset: Dataset) -> None:
    """Both ends of the ranking and the strongest pairs stay; only of the first of them there are pictures."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_TRAIN, 200, 150, 3), dtype=np.uint8)
    large = replace(dataset, train=Split(images, dataset.train.labels, dataset.train.ids))
    page = explorer_page(large, scores, SETTINGS, max_samples=9_000, max_pictures=60_000)
    data = data_of(page)
    size = len(page) - len(explorer_page(large, scores, SETTINGS, max_samples=0, max_pictures=0))
    assert 40_000 < size < 70_000 + 60 * len(data["pairs"]["train"])
    kept = data["train"]["sample"]
    assert 20 < len(kept) < NUM_TRAIN
    mem = scores.memorization.mem
    assert {int(np.nanargmax(mem)), int(np.nanargmin(np.abs(mem))), int(scores.pairs.train_index[0])} <= set(kept)
    assert int(scores.pairs.test_index[0]) in data["test"]["sample"]
    assert f"{len(kept)} of {NUM_TRAIN} training samples" in page
    assert '<a href="scores.parquet">scores.parquet</a> has all' in page
    pictures = data["pictures"]["train"]
    assert 3 < len(pictures) < len(kept)
    assert pictures[str(kept.index(int(np.nanargmax(mem))))].startswith("data:image/webp;base64,")


def test_imported_scores_have_an_explorer_too(scores: LeaveOutScores, dataset: Dataset) -> None:
    nothing, zeros = np.full(NUM_TRAIN, np.nan), np.zeros(NUM_TRAIN, np.int64)
    memorization = replace(scores.memorization, n_in=zeros, n_out=zeros, accuracy_in=nothing, accuracy_out=nothing)
    data = data_of(explorer_page(dataset, LeaveOutScores(memorization, scores.pairs), SETTINGS))
    assert data["train"]["low"] == [None] * NUM_TRAIN
    assert "n_in" not in data["train"]
    assert data["pairs"]["low"][0] is None


# ---------------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def file(dataset: Dataset, scores: LeaveOutScores, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("explorer") / "explorer.html"
    file.write_text(explorer_page(dataset, scores, SETTINGS))
    return file


@pytest.fixture(params=[(1200, "light"), (390, "dark")], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Any, file: Path) -> Iterator[Any]:
    """The page as somebody opens it; at the end it has said and fetched nothing, and is as wide as the window."""
    width, scheme = request.param
    opened = browser.new_page(viewport={"width": width, "height": 850}, color_scheme=scheme)
    said: list[str] = []
    asked: set[str] = set()
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.add(request.url))
    opened.goto(file.as_uri())
    yield opened
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.title() == "Samples of digits"  # no script of a name was run
    opened.close()


def listed(page: Any, column: int = 3) -> list[str]:
    """The texts of a column: 1 is the id, 2 the class, 3 mem."""
    return page.locator(".samples tbody tr").evaluate_all("(rows, c) => rows.map(r => r.cells[c].textContent)", column)


def mem_listed(page: Any) -> list[float]:
    return [float(text.replace("−", "-")) for text in listed(page)]


def test_a_reader_finds_sorts_and_filters(page: Any, scores: LeaveOutScores, dataset: Dataset) -> None:
    mem, labels = scores.memorization.mem, dataset.train.labels
    in_order = np.sort(mem[~np.isnan(mem)])[::-1]
    assert mem_listed(page) == pytest.approx(in_order[:50], abs=0.0051)
    assert "120 training samples; 1 to 50 are shown" in page.inner_text("#count")
    page.get_by_text("Next", exact=True).first.click()
    assert mem_listed(page) == pytest.approx(in_order[50:100], abs=0.0051)
    page.locator("#filter [name=order]").select_option(label="lowest first")
    assert mem_listed(page) == pytest.approx(in_order[::-1][:50], abs=0.0051)
    page.locator("#filter [name=kind]").select_option(label="atypical")
    assert f"{(mem > 0.15).sum()} of 120" in page.inner_text("#count")
    page.locator("#filter [name=kind]").select_option(label="undefined")
    assert listed(page) == ["n/a"]
    page.locator("#filter [name=kind]").select_option(label="all")
    page.locator("#filter [name=label]").select_option(value="3")
    assert len(listed(page)) == (labels == 3).sum()
    page.locator("#filter [name=label]").select_option(value="")
    page.locator("#filter [name=key]").select_option(label="width of the interval")
    page.locator("#filter [name=order]").select_option(label="highest first")
    low, high = scores.memorization.interval()
    assert listed(page, 1)[0] == dataset.train.ids[np.nanargmax(np.round(high, 4) - np.round(low, 4))]
    page.locator("#filter [name=words]").fill("digit-1")
    assert listed(page, 1)[0] == "digit-1"  # the exact one first
    assert {name[:7] for name in listed(page, 1)} == {"digit-1"}
    page.locator("#filter [name=words]").fill("no such sample")
    assert "None of 120 training samples fits" in page.inner_text("#count")
    page.locator("#filter [name=words]").fill("document.title")  # the hostile id, and the hostile class
    assert ATTACK in listed(page, 1)
    assert ATTACK in listed(page, 2)


def shows(page: Any, heading: str | None) -> None:
    """Waits for the heading of the chosen sample; None: none is chosen."""
    page.wait_for_function("text => (document.querySelector('#detail h2')?.textContent ?? null) === text", arg=heading)


def test_a_sample_leads_to_those_that_it_influences_and_back(
    page: Any, scores: LeaveOutScores, dataset: Dataset
) -> None:
    i, j = int(scores.pairs.train_index[0]), int(scores.pairs.test_index[0])
    page.locator("#filter [name=key]").select_option(label="strongest influence")
    link = page.locator(".samples tbody a").first
    link.focus()
    page.keyboard.press("Enter")
    detail = page.locator("#detail")
    shows(page, f"Training sample {dataset.train.ids[i]}")
    size = detail.locator("img.picture").first.bounding_box()
    assert min(size["width"], size["height"]) >= 160
    assert (
        detail.locator("img.picture").first.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
    )
    text, (low, high) = detail.inner_text(), scores.memorization.interval()
    shown = " ".join([f"{scores.memorization.mem[i]:.2f}", f"[{low[i]:.2f}, {high[i]:.2f}]"]).replace("-", "−")
    assert shown in text
    assert f"{scores.pairs.influence[0]:.2f} [" in text
    mine = scores.pairs.train_index == i
    assert detail.locator(".partners li").count() >= min(8, int(mine.sum()))
    detail.locator(f'.partners a[href="#test-{j}"]').click()
    shows(page, f"Test sample {dataset.test.ids[j]}")
    assert detail.locator(f'.partners a[href="#train-{i}"]').count() == 1
    page.go_back()
    shows(page, f"Training sample {dataset.train.ids[i]}")
    page.keyboard.press("Escape")
    shows(page, None)
    page.keyboard.press("ArrowDown")  # from the link that has the focus again
    page.keyboard.press("Enter")
    shows(page, f"Training sample {listed(page, 1)[1]}")


def test_light_and_dark_are_the_system_s_until_one_is_chosen(page: Any) -> None:
    brightness = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((a, b) => a + +b, 0)"
    is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (page.evaluate(brightness) < 200) == is_dark
    switch = page.get_by_role("button", name="Dark mode")
    assert switch.get_attribute("aria-pressed") == str(is_dark).lower()
    for _ in range(CHROMIUM_FORGETS):
        switch.click()
        assert (page.evaluate(brightness) < 200) != is_dark
        page.reload()
        if (page.evaluate(brightness) < 200) != is_dark:  # the choice is kept
            break
    else:
        pytest.fail("the choice is not kept")
    switch.click()
    assert (page.evaluate(brightness) < 200) == is_dark
    page.evaluate("localStorage.clear()")


def test_everything_has_a_name(page: Any) -> None:
    assert page.evaluate("[...document.querySelectorAll('input, select')].every(one => one.labels.length)")
    assert page.evaluate("[...document.images].every(image => image.alt)")
    assert page.evaluate("[...document.querySelectorAll('button')].every(button => button.textContent)")
