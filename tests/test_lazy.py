"""Names are imported when they are first used."""

from __future__ import annotations

import ast
import gc
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import tsprune
from tsprune.lazy import importing, lazily


def child(program: str, **environment: str) -> str:
    """What a new Python prints."""
    variables = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=variables, check=True
    )
    return done.stdout


def homes(tree: ast.AST) -> dict[str, str]:
    """Name -> module, of the imports in an `if TYPE_CHECKING`."""
    blocks = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    ]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


@pytest.mark.parametrize("module", [tsprune, tsprune.models])
def test_every_name_comes_from_where_type_checkers_see_it(module: object) -> None:
    path = Path(str(module.__file__))  # type: ignore[attr-defined]
    found = homes(ast.parse(path.read_text()))
    assert found
    for name, home in found.items():
        if home != "tsprune":  # submodules
            assert getattr(module, name) is getattr(sys.modules[home], name), name
        assert name in module.__all__  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_large() -> None:
    program = (
        "import sys, tsprune; tsprune.TspruneError; tsprune.__version__; dir(tsprune)\n"
        "print({'torch', 'numpy', 'pandas', 'scipy'} & sys.modules.keys())"
    )
    assert child(program) == "set()\n"


def test_the_environment_is_set_before_torch_is_imported() -> None:
    program = (
        "import tsprune, os, sys\n"
        "print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'], os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    )
    variables = dict.fromkeys(("HF_HUB_DISABLE_TELEMETRY",), "")
    assert child(program, OMP_WAIT_POLICY="ACTIVE", **variables).split() == ["False", "ACTIVE"]
    program = f"import os; os.environ.pop('OMP_WAIT_POLICY', None)\n{program}"
    assert child(program, HF_HUB_DISABLE_TELEMETRY="1").split() == ["False", "PASSIVE", "1"]


def test_submodules_are_attributes_and_other_names_are_not() -> None:
    assert tsprune.evaluation.evaluate is tsprune.evaluate
    for name in ("nonsense", "__wrapped__", "_private"):
        with pytest.raises(AttributeError, match=f"module 'tsprune' has no attribute '{name}'"):
            getattr(tsprune, name)
    with pytest.raises(AttributeError, match="no attribute 'x'"):
        lazily("tsprune", {})("x")
    assert {*tsprune.__all__, "os"} <= set(dir(tsprune))


def test_the_version_is_that_of_the_package() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert f'\nversion = "{tsprune.__version__}"\n' in text


@pytest.mark.parametrize("enabled", [True, False])
def test_after_an_import_garbage_is_collected_as_before(enabled: bool) -> None:
    try:
        if not enabled:
            gc.disable()
        with importing(), importing():
            assert not gc.isenabled()
        assert gc.isenabled() is enabled
        with pytest.raises(ModuleNotFoundError), importing():
            import_module("nothing_of_that_name")
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


def test_a_family_is_imported_without_a_look_for_garbage() -> None:
    """But for one when it is over; else there are hundreds."""
    program = """
import gc, sys, tsprune
bolt, looked = tsprune.models.FAMILIES["chronos-bolt"], []
gc.callbacks.append(lambda phase, info: looked.append(phase) if phase == "start" else None)
bolt.forecaster
print(len(looked) <= 1, "chronos" in sys.modules, gc.isenabled())
"""
    assert child(program).split() == ["True", "True", "True"]
