"""Options of a run: checked once, frozen, and one signature of progress."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tsprune.errors import TspruneError
from tsprune.progress import showing, silent
from tsprune.run_options import RunOptions


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"memory": -1},
        {"seed": -1},
        {"seed": 2**64},
        {"progress": "yes"},
    ],
)
def test_values_out_of_range_are_one_line(options: dict[str, object]) -> None:
    with pytest.raises(TspruneError, match=next(iter(options))):
        RunOptions(**options)  # type: ignore[arg-type]


def test_options_are_frozen_and_replaced_by_copies() -> None:
    options = RunOptions(store="cells.sqlite")
    assert options.store == Path("cells.sqlite")
    assert options.replace(seed=3) == dataclasses.replace(options, seed=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.seed = 1  # type: ignore[misc]


def test_no_progress_is_silent() -> None:
    for nothing in (None, False):
        with showing(nothing) as progress:
            assert progress is silent
