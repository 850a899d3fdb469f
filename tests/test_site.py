"""`make docs` builds the site with warnings as errors, and its pages need nothing from other servers."""

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LOADED = r"<(?:script|link|img|iframe|source|video)\b[^>]*?(?:src|href)=\"?((?:https?:)?//[^\"\s>]+)"
FORMULA = '<div class="arithmatex">'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built."""
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def test_no_page_loads_from_another_server(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        assert not re.findall(LOADED, page.read_text()), page.name
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"url\([\"']?(?:https?:)?//", sheet.read_text()), sheet.name


def test_pages_hold_what_they_are_made_of(site: Path) -> None:
    assert (site / "concepts/bat.html").read_text().count(FORMULA) == 5
    assert 'id="bat_dist.api.memorize.memorize"' in (site / "api.html").read_text()
    assert "Adversarial logit pairing" in (site / "search/search_index.js").read_text()  # for pages opened from a disk
    notebook = (site / "notebooks/network_from_elsewhere.html").read_text()
    assert 'href="network_from_elsewhere.ipynb"' in notebook
    assert "network_from_elsewhere_files/" in notebook, "make notebooks"
    assert (site / "notebooks/network_from_elsewhere.ipynb").exists()


def test_links_that_leave_docs_lead_to_pages_of_the_site(site: Path) -> None:
    assert 'href="SECURITY.html"' in (site / "cluster.html").read_text()
    assert 'href="gpu.html"' in (site / "CHANGELOG.html").read_text()
    assert 'href="notebooks/own_images.html"' in (site / "index.html").read_text()


def test_every_page_is_in_the_navigation() -> None:
    config = yaml.unsafe_load(re.sub(r"!ENV \[.*\]", "none", (ROOT / "mkdocs.yml").read_text()))
    shown = set(re.findall(r"[\w/-]+\.md", str(config["nav"])))
    docs = ROOT / "docs"
    pages = {str(page.relative_to(docs)) for page in docs.rglob("*.md") if page.parent.name != "assets"}
    assert pages <= shown


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium: make page-tools")
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_a_browser_draws_formulas_and_searches_and_asks_no_other_server(address: str, width: int, scheme: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # pyright: ignore[reportArgumentType]
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        for name in ("notebooks/network_from_elsewhere", "reference", "concepts/bat"):
            page.goto(f"{address}/{name}.html")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.locator(".katex-display").count() == 5
        assert (
            page.locator("body").get_attribute("data-md-color-scheme") == {"light": "default", "dark": "slate"}[scheme]
        )
        if width < 1000:
            page.locator("label[for=__search]").first.click()
        page.locator("input.md-search__input").press_sequentially("reliability")
        page.locator(".md-search-result__link").first.wait_for()
        assert not said
        assert all(url.startswith((address, "data:", "blob:")) for url in asked)
        browser.close()
