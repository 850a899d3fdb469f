"""The report's page in a real headless browser: silent, offline, sortable, safe, small, readable on a phone."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bat_dist.reporting.report import PAGE, write_report
from bat_dist.results.compare import compare
from bat_dist.results.find import find_results
from bat_dist.storage.files import Folder
from tests.helpers.made_results import study, write_evaluation

ATTACK = "<img src=x onerror=\"document.title='broken'\"></script><script>document.title='broken'</script>"

# Playwright's event loop closes its pipes when it likes.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods and three seeds, a sweep, scores, and hostile names of a network and of the folder."""
    from bat_dist.figures.charts import memorization_histogram
    from bat_dist.figures.style import save
    from bat_dist.memorization.estimate import estimate_memorization

    place = study(tmp_path_factory.mktemp("page") / "<b>runs & co</b>")
    facts = {"method": None, "model": ATTACK}
    write_evaluation(place / "own", {"clean": np.ones(200, bool)}, facts=facts)
    parts = {f"autoattack:{part}": np.arange(200) < 90 - 10 * at for at, part in enumerate(("apgd-ce", "apgd-t"))}
    write_evaluation(
        place / "aa", {"clean": np.arange(200) < 120, **parts, "autoattack": np.arange(200) < 70}, method="mart"
    )
    _sweep(place / "sweep")
    rng = np.random.default_rng(0)
    scores = place / "scores"
    (scores / "figures").mkdir(parents=True)
    mask, right = rng.random((40, 300)) < 0.7, rng.random((40, 300)) < 0.8
    mem = estimate_memorization(mask, right).mem
    np.savez(scores / "memorization.npz", mem=mem)
    (scores / "explorer.html").write_text("<title>the explorer</title>")
    summary = {"dataset": "digits", "num_train": 300, "num_test": 10, "warnings": [ATTACK]}
    (scores / "summary.json").write_text(json.dumps(summary))
    figure = memorization_histogram(mem, num_trials=40, dataset="digits", thresholds=(0.02, 0.15))
    save(figure, scores / "figures" / "extremes_gallery")
    found = find_results([str(place)])
    out = tmp_path_factory.mktemp("report")
    write_report(Folder(out), found, compare(found))
    return out / PAGE


def _sweep(place: Path) -> None:
    """Four points of alpha and beta, one seed."""
    points = [{"alpha": a, "beta": b} for a in (0.0, 1.0) for b in (0.0, 0.2)]
    place.mkdir(parents=True)
    asked = {"seeds": [0, 1], "metric": ["val_pgd"], "which": "best"}
    (place / "sweep.json").write_text(json.dumps({"points": points, "identity": {}, "asked": asked}))
    for number, point in enumerate(points):
        for seed in (0, 1):
            run = place / "runs" / f"alpha={point['alpha']:g},beta={point['beta']:g}" / f"seed{seed}"
            run.mkdir(parents=True)
            row = {"epoch": 3, "val_clean": 0.5 + number / 100 + seed / 50, "val_pgd": 0.3 + number / 50 + seed / 60}
            (run / "run.json").write_text(
                json.dumps({"finished": True, "best_by": "val_pgd", "best": row, "last": row, "seconds": 1.0})
            )


def opened(browser: Any, report: Path, width: int, scheme: str = "light") -> tuple[Any, list[str], list[str]]:
    """The page with every chart drawn, what the console said, what was asked of the network."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri(), timeout=120_000)
    page.evaluate("document.querySelectorAll('.chart').forEach(draw)")
    page.wait_for_function(
        "document.querySelectorAll('.chart').length === document.querySelectorAll('.chart.js-plotly-plot').length"
    )
    page.wait_for_timeout(500)
    return page, said, asked


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_is_silent_offline_and_fits(browser: Any, report: Path, width: int, scheme: str) -> None:
    page, said, asked = opened(browser, report, width, scheme)
    assert [line for line in said if line.startswith(("error", "assert", "trace"))] == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [report.as_uri()]
    assert page.evaluate("document.querySelectorAll('.chart').length") >= 7
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.title() == "Memorization and robustness: all results"  # no script of a name was run
    assert ATTACK in page.inner_text("body")
    is_dark = scheme == "dark"
    assert (brightness(page, "body", "backgroundColor") < 200) == is_dark
    assert (brightness(page, ".chart .xtick text", "fill") > 500) == is_dark
    page.get_by_role("button", name="Dark mode").click()
    page.wait_for_function("before => document.querySelector('.chart').dataset.drawn !== String(before)", arg=is_dark)
    assert (brightness(page, "body", "backgroundColor") < 200) != is_dark
    assert (brightness(page, ".chart .xtick text", "fill") > 500) != is_dark
    page.evaluate("localStorage.clear()")
    page.close()


def brightness(page: Any, selector: str, property: str) -> int:
    """Red, green and blue of a colour together, up to 765."""
    script = "(one, name) => getComputedStyle(one)[name].match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)"
    return page.locator(selector).first.evaluate(script, property)


def test_it_begins_with_what_was_found_and_leads_to_the_tables_and_samples(browser: Any, report: Path) -> None:
    page = browser.new_page()
    page.goto(report.as_uri(), timeout=120_000)
    box = page.locator(".findings")
    assert "PGD-20: better than PGD-AT: BAT" in box.inner_text()
    files = box.locator("a").evaluate_all("links => links.map(link => link.href)")
    assert [Path(one).name for one in files] == ["tables.md", "tables.csv", "tables.tex", "robustbench.json"]
    assert all((report.parent / Path(one).name).exists() for one in files)
    page.get_by_role("link", name="Sample explorer").click()
    page.wait_for_function("document.title === 'the explorer'")
    page.close()


def test_sorting_and_filtering_work(browser: Any, report: Path) -> None:
    page, _, _ = opened(browser, report, 1280)
    table = page.locator("#rows-1")
    column = [head.strip() for head in table.locator("thead th").all_inner_texts()].index("Clean")

    def shown() -> list[float]:
        script = "(rows, column) => rows.filter(r => !r.hidden).map(r => Number(r.cells[column].dataset.sort))"
        return table.locator("tbody tr").evaluate_all(script, column)

    assert len(shown()) == 5  # of all test images: the choice at the start
    heading = table.locator("thead th button").nth(column)
    heading.click()
    assert shown() == sorted(shown(), reverse=True)
    assert table.locator("thead th").nth(column).get_attribute("aria-sort") == "descending"
    heading.focus()
    page.keyboard.press("Enter")
    assert shown() == sorted(shown())
    page.get_by_label("Filter rows").first.fill("trad")
    assert len(shown()) == 1
    assert "1 of" in page.locator("form.filter output").first.inner_text()
    page.get_by_label("Filter rows").first.fill("")
    page.get_by_label("Test images").first.select_option("atypical")
    assert len(shown()) == 3
    page.close()


def test_a_number_leads_to_its_source(browser: Any, report: Path) -> None:
    page, _, _ = opened(browser, report, 1280)
    link = page.locator("#rows-1 tbody tr", has_text="PGD-AT").first.locator("td a").first
    link.click()
    source = page.locator(link.get_attribute("href"))
    source.locator("dl").wait_for(state="visible")  # it unfolds a moment later
    text = source.inner_text()
    for words in (
        "bat-dist evaluate --checkpoint runs/pgd_at",
        "bat-dist train --method pgd_at",
        "abcdef123456",
        "a processor",
    ):
        assert words in text
    page.close()


def test_it_is_accessible(browser: Any, report: Path) -> None:
    page, _, _ = opened(browser, report, 1280)
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("[...document.images].every(image => image.alt)")
    assert page.evaluate("[...document.querySelectorAll('input, select')].every(one => one.labels.length)")
    assert page.evaluate("[...document.querySelectorAll('.chart')].every(one => one.closest('[aria-label], section'))")
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    page.close()


def test_it_is_small(report: Path) -> None:
    assert report.stat().st_size < 10_000_000
