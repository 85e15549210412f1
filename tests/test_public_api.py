"""What users import, and which part may import which."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import tsprune
from tests.suites import small_suite, tiny

SOURCE = Path(tsprune.__file__).parent


def test_all_is_explicit_sorted_and_importable() -> None:
    assert tsprune.__all__ == sorted(tsprune.__all__)
    for name in tsprune.__all__:
        assert hasattr(tsprune, name)
    namespace: dict[str, object] = {}
    exec("from tsprune import *", namespace)
    assert set(tsprune.__all__) <= namespace.keys()


def test_every_public_object_is_documented() -> None:
    for name in tsprune.__all__:
        assert inspect.getdoc(getattr(tsprune, name)), name


def test_a_session_with_the_names_that_were_promised() -> None:
    model = tsprune.load("bundled:timesfm")
    components = model.anatomy.components()
    forecast = model.forecast([np.arange(50.0), np.arange(70.0)], horizon=5)
    assert forecast.quantiles.shape == (2, len(forecast.levels), 5)
    np.testing.assert_array_equal(forecast.median, forecast.quantiles[:, forecast.levels.index(0.5)])
    for what in ("stack.*.mlp", components[3], [components[3], "stack.0.mlp"]):
        with tsprune.ablate(model, what, mode="zero"):
            ablated = model.forecast([np.arange(50.0), np.arange(70.0)], horizon=5)
        assert not np.array_equal(ablated.quantiles, forecast.quantiles)
    heads = [c.address for c in components if c.kind == "head"]
    assert tsprune.rank(model, by="stable_rank")["address"].tolist() == heads
    assert len(tsprune.data.pocket()) > 0
    assert "configs" in inspect.signature(tsprune.data.gift_eval).parameters


def test_tables_of_the_promised_shape() -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    frame = tsprune.evaluate(model, suite)
    assert frame["configuration"].tolist() == [c.name for c in suite.configurations]
    layers = tsprune.sweep(model, suite, kind="layer")
    assert layers["address"].tolist() == ["stack.0", "stack.1", "stack.2"]
    at = tsprune.heads_at(model, suite, max_loss=0.01)
    assert sorted(set(at["selection"])) == ["calibration", "test"]


# --- who may import whom -------------------------------------------------------------------------

# design: cli -> report -> studies -> explain, pruning -> scores -> sweeps -> evaluation, cost, hooks,
# replay -> models -> anatomy (an exact effect is a score, so scores are above the sweeps); all may use `data`
# the ground: errors, arguments, options, text, files, and registries that other packages can add to
GROUND = {
    "errors",
    "arguments",
    "text",
    "files",
    "atomic",
    "folders",
    "progress",
    "run_options",
    "plugins",
    "lazy",
    "schema",
    "extras",
    "http_server",
    "choices",
    "memory",
}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "lazy": set(),
    "glossary": set(),
    "schema": {"errors"},
    "extras": set(),
    "http_server": {"errors", "extras"},
    "choices": set(),
    "arguments": {"errors"},
    "text": {"errors"},
    "memory": {"errors"},
    "files": {"errors"},
    "progress": {"errors"},
    "run_options": {"errors", "arguments", "progress"},
    "plugins": {"errors", "arguments", "lazy"},
    "atomic": {"errors", "files"},
    "folders": {"errors", "files", "atomic"},
    "statistics": set(),
    "anatomy": GROUND,
    "precision": GROUND,
    "models": {*GROUND, "anatomy", "precision"},
    "data": GROUND,
    "hooks": {*GROUND, "anatomy", "models", "data"},
    "replay": {*GROUND, "anatomy", "models"},
    "cost": {*GROUND, "models"},
    "evaluation": {*GROUND, "anatomy", "models", "data", "statistics"},
}
ALLOWED["sweeps"] = {*ALLOWED["hooks"], *ALLOWED["evaluation"], "hooks", "cost", "evaluation", "replay"}
ALLOWED["scores"] = {*ALLOWED["sweeps"], "sweeps"}
ALLOWED["verification"] = {*GROUND, "anatomy", "models", "scores", "evaluation", "statistics"}
ALLOWED["explain"] = {*ALLOWED["scores"], "scores"}
ALLOWED["pruning"] = {*ALLOWED["scores"], "precision", "scores"}
ALLOWED["deployment"] = {*GROUND, "models", "data", "evaluation"}
ALLOWED["testing"] = {*ALLOWED["pruning"], "pruning"}
ALLOWED["studies"] = {*ALLOWED["pruning"], "pruning", "explain"}
ALLOWED["frontiers"] = {*ALLOWED["pruning"], "pruning", "deployment"}
ALLOWED["report"] = {*ALLOWED["studies"], *ALLOWED["frontiers"], "studies", "frontiers", "glossary"}
ALLOWED["explorer"] = {*ALLOWED["report"], "report"}


def imported(path: Path) -> set[str]:
    """Parts of tsprune that a file imports, also within functions and for types only."""
    parts: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "tsprune" else [module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        parts |= {name.split(".")[1] for name in names if name.startswith("tsprune.")}
    return parts


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


FILES = sorted(path for path in SOURCE.rglob("*.py") if part_of(path) not in ("__init__", "cli"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_dependencies_point_down(path: Path) -> None:
    part = part_of(path)
    assert part in ALLOWED, f"{part} has no place in the design yet"
    assert imported(path) - {part} <= ALLOWED[part]


def test_the_order_has_no_cycle() -> None:
    placed: set[str] = set()
    while len(placed) < len(ALLOWED):
        ready = {part for part, below in ALLOWED.items() if part not in placed and below <= placed}
        assert ready, f"a cycle among {sorted(set(ALLOWED) - placed)}"
        placed |= ready


def test_the_reader_of_imports_finds_them() -> None:
    assert imported(SOURCE / "cli" / "study_command.py") >= {"report", "studies"}
    assert imported(SOURCE / "cli" / "options.py") >= {"data", "models"}
    assert imported(SOURCE / "models" / "timesfm.py") == {"anatomy", "errors", "models"}


def test_no_two_files_have_one_name() -> None:
    names = [path.name for path in SOURCE.rglob("*.py") if path.name != "__init__.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_the_wheel_takes_every_data_file_along() -> None:
    """Checkpoints, embedded series and templates are matched by patterns of pyproject.toml."""
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["tsprune"]
    packed = {path for pattern in patterns for path in SOURCE.glob(pattern)}
    files = (path for path in SOURCE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
    others = {
        path for path in files if "/." not in path.relative_to(SOURCE.parent).as_posix()
    }  # caches of tools
    assert sorted(path.as_posix() for path in others - packed) == []
    assert len(packed) > 10


def test_no_test_imports_another() -> None:
    """Not in the code that fresh processes run, either."""
    tests = Path(__file__).parent
    found = re.compile(r"from (tests(?:\.\w+)*\.test_\w+) import|import (tests(?:\.\w+)*\.test_\w+)")
    wrong = [
        f"{path.relative_to(tests)} imports {module}"
        for path in tests.rglob("*.py")
        for names in found.findall(path.read_text())
        if not (module := "".join(names)).endswith(f".{path.stem}")
    ]
    assert not wrong


def test_a_public_name_is_defined_once() -> None:
    homes: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
            for name in names:
                homes.setdefault(name, set()).add(str(path.relative_to(SOURCE)))
    several = {name: where for name, where in homes.items() if len(where) > 1 and not name.startswith("_")}
    assert not several
