"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.threads import single_thread

if TYPE_CHECKING:
    from tsprune.deployment import Exported
    from tsprune.models import Forecaster


# Files that take long for the number of their tests. They begin first, so that at the end no process is left
# with one of them while the other has nothing to do.
LONG = (
    "sweeps/test_cluster.py",
    "test_notebooks.py",
    "deployment/test_exported.py",
    "test_example_plugin.py",
    "studies/test_processes.py",
    "studies/test_resume_study.py",
    "studies/test_one_model.py",
    "conformance/test_laws.py",
    "conformance/test_replay.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of long files first; else the order stays, also within a file."""
    root = Path(__file__).parent
    place = {root / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path, len(LONG)))


@pytest.fixture(scope="module", autouse=True)
def _kept_objects_are_not_searched() -> None:
    """Python looks for garbage among new objects only.

    Packages stay: a million objects that no collection need look at, and some upstream code asks for one at
    every forecast.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch computes with one thread (see `single_thread`)."""
    with single_thread():
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The directory of real data next to the repository (or at TSPRUNE_SHARED).

    Tests that need it are skipped where it is missing, and fail if TSPRUNE_REQUIRE_SHARED=1.
    """
    repository = Path(__file__).resolve().parents[1]
    directory = Path(os.environ.get("TSPRUNE_SHARED", repository.parent / "shared"))
    if not (directory / "data").is_dir():
        message = (
            f"no real data at {directory}; set TSPRUNE_SHARED to the directory that holds data/gift_eval"
        )
        if os.environ.get("TSPRUNE_REQUIRE_SHARED") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return directory


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Forecaster, Exported]:
    """A tiny Chronos-Bolt, pruned, and its export."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from tests.exporting import exported_once

    return exported_once(tmp_path_factory, "pruned chronos-bolt")
