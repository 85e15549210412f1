"""Runs the notebooks in examples/ and stores their outputs.

    python scripts/notebooks.py            all of them
    python scripts/notebooks.py deploy     these

Each runs in an empty folder. The documentation shows the stored outputs, and tests/test_notebooks.py runs the
cells again.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def execute(path: Path) -> None:
    """Runs one notebook and writes it with its outputs, without the times and versions of this machine."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata = nbformat.NotebookNode()
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    nbformat.write(notebook, path)


def main() -> None:
    for name in sys.argv[1:] or sorted(path.stem for path in EXAMPLES.glob("*.ipynb")):
        execute(EXAMPLES / f"{name}.ipynb")


if __name__ == "__main__":
    main()
