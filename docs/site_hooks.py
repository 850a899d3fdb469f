"""What the site has beyond the Markdown files in docs/: notebooks, and documents of the repository's first folder.

MkDocs calls these functions by their names (`hooks` in mkdocs.yml).
"""

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]
OUTSIDE = ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")
"""Documents beside docs/ that are pages of the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents of the repository's first folder, and each notebook as a page with its stored pictures."""
    for name in OUTSIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        place = PurePosixPath(notebook.src_uri)
        exporter = MarkdownExporter(exclude_output_prompt=True, exclude_input_prompt=True)
        pictures = {"output_files_dir": f"{place.stem}_files", "unique_key": place.stem}
        text, resources = exporter.from_filename(str(notebook.abs_src_path), resources=dict(pictures))
        title, _, rest = text.lstrip().partition("\n")
        page = f'{title}\n\n[Download this notebook]({place.name} "{place.name}")\n{rest}'
        files.append(File.generated(config, str(place.with_suffix(".md")), content=page))
        for name, content in resources["outputs"].items():
            files.append(File.generated(config, str(place.parent / name), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that are right in the repository be right in the site, where docs/ is the first folder."""
    folder = PurePosixPath("docs") / PurePosixPath(page.file.src_uri).parent
    if page.file.src_uri in OUTSIDE:
        folder = PurePosixPath()
    here = PurePosixPath(page.file.src_uri).parent

    def relocated(link: re.Match[str]) -> str:
        target = os.path.normpath(folder / link[1])
        target = target.removeprefix("docs/")
        target = re.sub(r"\.ipynb$", ".md", target)
        return f"]({os.path.relpath(target, here)}{link[2]})"

    return re.sub(r"\]\(((?!https?:|mailto:)[^)#\s\"]+)((?:#[^)\s]*)?)\)", relocated, markdown)
