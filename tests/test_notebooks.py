"""The notebooks run, on fewer windows or smaller models, and their stored outputs are those of a whole run.

Their cells run in this process, one namespace a notebook: a kernel each would import torch again.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plotly.io as pio
import pytest

from tests.exporting import GONE, exported_once
from tests.tiny import TINY

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))

# a line that each of them prints
EXPECTED = {
    "deploy": "equal to the model's forecasts: True",
    "heads": "equal to the last bit: True",
    "study": "undecided",
    "your-own-data": "shown to be worse: nothing",
}


def less(name: str, factory: pytest.TempPathFactory) -> dict[str, str]:
    """What takes long in a notebook, and what is run in its place."""
    if name == "deploy":
        _, exported = exported_once(factory, "pruned chronos-bolt")
        return {
            "bundled:chronos-bolt": str(Path(exported.name).parent / "model"),
            "tsprune.plan(model, saving=0.3)": repr(GONE["chronos-bolt"]),
            "tsprune.export(small,": f"__import__('shutil').copytree({exported.name!r},",
        }
    if name == "study":
        folder = factory.mktemp("tiny")
        TINY["tiny-timesfm"](folder)
        return {"bundled:timesfm": str(folder), "sample(30,": "sample(8,"}
    if name == "heads":
        return {"sample(26,": "sample(6,", "per_configuration=26": "per_configuration=6"}
    return {'kinds=("layer", "mlp")': 'kinds=("mlp",)'}


def code(path: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook, which a page of the documentation shows with their outputs."""
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def test_the_notebooks_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(EXPECTED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_of_one_whole_run(path: Path) -> None:
    cells = code(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert any(EXPECTED[path.stem] in "".join(output.get("text", "")) for output in outputs)
    assert path.stat().st_size < 200_000


@pytest.fixture
def notebook_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of its own, and no setting of a notebook left afterwards."""
    monkeypatch.chdir(tmp_path)
    renderer = pio.renderers.default
    with warnings.catch_warnings():
        yield
    pio.renderers.default = renderer


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("notebook_like")
def test_a_notebook_runs(
    path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    cells = ["".join(cell["source"]) for cell in code(path)]
    for long, short in less(path.stem, tmp_path_factory).items():
        assert any(long in cell for cell in cells), long
        cells = [cell.replace(long, short) for cell in cells]
    names: dict[str, object] = {}
    capsys.readouterr()
    for number, cell in enumerate(cells):
        run(cell, f"{path.stem} {number}", names)
    said = capsys.readouterr()
    assert said.err == ""
    assert EXPECTED[path.stem] in said.out
    if path.stem == "your-own-data":
        assert (tmp_path / "recovered" / "model.safetensors").is_file()


def run(cell: str, place: str, names: dict[str, object]) -> None:
    """Runs a cell; the value of its last line is shown, as a notebook does."""
    body = ast.parse(cell).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), place, "exec"), names)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), place, "eval"), names)
        for show in ("_repr_html_", "_repr_mimebundle_"):
            if hasattr(value, show):
                assert getattr(value, show)()
