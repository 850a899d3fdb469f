import re
from html.parser import HTMLParser

import pytest

from bat_dist.figures.style import message_figure, save
from bat_dist.reporting import figures
from bat_dist.reporting.explanations import explained
from bat_dist.reporting.page import PageFigure, embedded_png, render_memorization_page

EVIL = """<script>alert("1")</script> & 'x' {{ 7 * 7 }}"""
VOID = {"meta", "link", "img", "br", "hr"}


class Outline(HTMLParser):
    """Tags with attributes, the text, and proof that every tag is closed in order."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def png(tmp_path):
    return embedded_png(save(message_figure("Title", "why"), tmp_path / "figure")[0])


def rendered(png, **changes):
    arguments = {
        "title": "Memorization of digits",
        "findings": ["61 of 500 training samples are atypical."],
        "files": {"Sample explorer": "explorer.html", "as a table": "scores.parquet"},
        "summary": {"trials": "40", "see": "https://example.org/summary"},
        "figures": [
            PageFigure("First", "What it is.", "A sentence.", png),
            explained("accuracy_by_trial", png),
        ],
        "warnings": ["12 samples are undefined."],
        "provenance": {"command": "bat-dist memorize --dataset digits", "seed": "0"},
    }
    return render_memorization_page(**arguments | changes)


def test_the_page_holds_everything_it_was_given(tmp_path, png):
    outline = Outline(rendered(png))
    for text in (
        "Memorization of digits",
        "61 of 500 training samples are atypical.",
        "40",
        "What it is.",
        "12 samples are",
        "bat-dist memorize --dataset digits",
    ):
        assert text in outline.text
    assert outline.all("html") == [{"lang": "en"}]
    assert len(outline.all("title")) == 1
    assert outline.all("img")[0]["alt"] == "A sentence."
    assert all(attrs["alt"] and attrs["src"].startswith("data:image/png;base64,") for attrs in outline.all("img"))
    assert (outline.all("img")[0]["width"], outline.all("img")[0]["height"]) == (
        "1872",
        "312",
    )  # 7.8 x 1.3 in
    assert all(attrs["scope"] in ("row", "col") for attrs in outline.all("th"))
    assert "viewport" in [attrs.get("name") for attrs in outline.all("meta")]


def test_ids_are_unique_and_every_reference_has_one(tmp_path, png):
    outline = Outline(rendered(png))
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"] for attrs in outline.all("a")}
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert {link for link in links if not link.startswith("#")} == {"explorer.html", "scores.parquet"}
    assert {attrs["aria-labelledby"] for attrs in outline.all("section")} <= set(ids)


def test_nothing_is_fetched(tmp_path, png):
    """Addresses may stand in the text, never in an attribute or the style sheet."""
    page = rendered(png)
    outline = Outline(page)
    for tag, attrs in outline.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "style"):
            assert re.match(r"#|data:|(explorer\.html|scores\.parquet)?$", attrs.get(name) or ""), (tag, attrs)
    assert not re.search(r"url\(|@import|<script src|<iframe|<object|<embed", page)
    assert page.count("https://") + page.count("http://") == 1  # the one in the summary's text


def test_everything_is_escaped(tmp_path, png):
    page = rendered(
        png,
        title=EVIL,
        findings=[EVIL],
        files={EVIL: "explorer.html"},
        summary={EVIL: EVIL},
        warnings=[EVIL],
        provenance={EVIL: EVIL},
        figures=[PageFigure(EVIL, EVIL, EVIL, png)],
    )
    assert page.count("<script") == 1  # the switch of light and dark
    outline = Outline(page)
    assert (
        outline.text.count(EVIL) == 12
    )  # title, finding and file; figure: menu, heading, caption; warning; two tables
    assert outline.all("img")[0]["alt"] == EVIL
    assert outline.all("div")[0]["aria-label"] == EVIL


def test_without_warnings_and_figures_no_empty_frame_is_left(tmp_path, png):
    outline = Outline(rendered(png, warnings=[], figures=[]))
    assert "Before you trust" not in outline.text
    assert outline.all("img") == []
    assert [link["href"] for link in outline.all("a")] == ["explorer.html", "scores.parquet"]


def test_the_same_page_is_the_same_bytes(tmp_path, png):
    assert rendered(png) == rendered(png)


def test_a_file_that_is_no_png_is_refused(tmp_path, png):
    (tmp_path / "not.png").write_text("<svg/>")
    with pytest.raises(ValueError, match=r"not\.png is not a PNG file"):
        rendered(png, figures=[PageFigure("t", "c", "a", embedded_png(tmp_path / "not.png"))])


@pytest.mark.parametrize("name", figures.__all__)
def test_every_figure_is_explained(name, png):
    entry = explained(name, png)
    assert entry.title
    assert len(entry.caption) > 80
    assert len(entry.alt) > 40
