"""The notebooks run, on fewer windows and components, and their stored outputs are those of a whole run."""

from __future__ import annotations

import warnings
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


# what takes long in them, and what is run in its place
LESS = {
    "heads": {"sample(26,": "sample(6,", "per_configuration=26": "per_configuration=6"},
    "your-own-data": {'kinds=("layer", "mlp")': 'kinds=("mlp",)'},
}


def test_both_notebooks_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["heads", "your-own-data"]


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_of_one_whole_run(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert path.stat().st_size < 200_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for long, short in LESS[path.stem].items():
        assert any(long in cell.source for cell in notebook.cells)
        for cell in notebook.cells:
            cell.source = cell.source.replace(long, short)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Jupyter's packages, in this process
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = [output for output in outputs(notebook) if output.output_type == "stream"]
    assert not [output.text for output in said if output.name == "stderr"]
    text = "".join(output.text for output in said)
    expected = {
        "heads": "equal to the last bit: True",
        "your-own-data": "shown to be worse: nothing",
    }
    assert expected[path.stem] in text
    if path.stem == "your-own-data":
        assert (tmp_path / "recovered" / "model.safetensors").is_file()
