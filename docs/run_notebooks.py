"""Run the notebooks in docs/notebooks, and keep their outputs.  `make notebooks`, after a change of what they show.

    python docs/run_notebooks.py [NAME ...]

Each runs in an empty folder. Kept are texts, tables and pictures; left out are logs and times, so that the files change
only if what a reader sees does.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent / "notebooks"
LIMIT = 900  # seconds for a cell


def executed(path: Path) -> NotebookNode:
    """The notebook with the outputs of a run.  Raises nbclient's CellExecutionError if a cell raises."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=LIMIT, resources={"metadata": {"path": folder}}).execute()
    return notebook


def is_kept(output: NotebookNode) -> bool:
    """Is it what a cell gives, prints or draws, and neither a log nor a bar of progress?"""
    is_bar = output.output_type == "display_data" and "image/png" not in output.data
    return not is_bar and output.get("name") != "stderr"


def tidied(notebook: NotebookNode) -> NotebookNode:
    """Without logs, and without what differs from one run to the next or from one machine to another."""
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if is_kept(output)]
            for output in cell.outputs:
                output.get("metadata", {}).clear()
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.ipynb")):
        if path.stem in sys.argv[1:] or not sys.argv[1:]:
            path.write_text(nbformat.writes(tidied(executed(path))) + "\n")
