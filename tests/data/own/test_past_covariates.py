"""Columns that are read beside the target, from tables, lists, arrays and fev tasks to windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsprune.data import Suite, from_arrays, from_fev, from_file, from_frame
from tsprune.errors import TspruneError


def table() -> pd.DataFrame:
    """Two series of 10 days; the load of B is unknown on its third day, its price on the first."""
    parts = []
    for number, name in enumerate("AB"):
        steps = np.arange(10.0) + 100 * number
        days = pd.date_range("2024-01-01", periods=10, freq="D")
        parts.append(pd.DataFrame({"item_id": name, "timestamp": days, "load": steps, "price": steps + 0.5}))
    whole = pd.concat(parts, ignore_index=True)
    whole.loc[10, "price"] = np.inf
    whole.loc[12, "load"] = np.nan
    return whole.assign(heat=whole["load"] * 2)


HOW: dict[str, Any] = {"horizon": 2, "windows": 2, "context": 4, "target": "load"}


def past(suite: Suite) -> list[list[list[float]]]:
    (c,) = suite.configurations
    assert c.covariates is not None
    return [one.tolist() for one in c.covariates]


def test_windows_by_hand() -> None:
    suite = from_frame(table(), past_covariates=["price", "heat"], **HOW)
    (c,) = suite.configurations
    assert [context.tolist() for context in c.contexts[:2]] == [[2, 3, 4, 5], [4, 5, 6, 7]]
    assert past(suite)[:2] == [
        [[2.5, 3.5, 4.5, 5.5], [4, 6, 8, 10]],
        [[4.5, 5.5, 6.5, 7.5], [8, 10, 12, 14]],
    ]
    assert (c.num_covariates, c.num_variates, c.groups, len(c)) == (2, 1, None, 4)
    assert suite.about.endswith("values: load; past covariates: price, heat")
    assert suite.describe()["num_covariates"].tolist() == [2]
    assert suite.has_covariates
    assert not suite.univariate().has_covariates


def test_they_change_the_fingerprint() -> None:
    prints = {
        from_frame(table(), past_covariates=names, **HOW).fingerprint
        for names in ([], ["price"], ["heat"], ["price", "heat"])
    }
    assert len(prints) == 4


def test_a_gap_of_a_covariate_is_missing_and_does_not_cut_the_series() -> None:
    frame = table()
    frame.loc[[0, 1, 9], "price"] = np.nan
    suite = from_frame(frame, past_covariates="price", **(HOW | {"context": None, "windows": 1}))
    assert [len(context) for context in suite.configurations[0].contexts] == [8, 8]
    assert np.isnan(past(suite)[0][0][:2]).all()
    assert np.isnan(past(suite)[1][0][0])  # infinite in the table


def test_variates_share_their_covariates() -> None:
    how = HOW | {"target": ["load", "heat"]}
    (c,) = from_frame(table(), past_covariates="price", **how).configurations
    assert c.covariates is not None
    for rows in c.together:
        assert len(rows) == 2
        np.testing.assert_array_equal(*(c.covariates[row] for row in rows))
    kept = c.select(np.arange(len(c)) >= 4)
    assert kept.covariates is not None
    assert len(kept.covariates) == len(kept) == 4


def test_every_form_gives_the_same_windows(tmp_path: Path) -> None:
    expected = from_frame(table(), past_covariates="price", **HOW)
    table().to_csv(tmp_path / "own.csv", index=False)
    table().sort_values("timestamp", kind="stable").to_parquet(tmp_path / "own.parquet")
    listed = table().groupby("item_id", as_index=False).agg(list)
    forms = [
        from_file(tmp_path / "own.csv", past_covariates="price", **HOW),
        from_file(tmp_path / "own.parquet", past_covariates="price", **HOW),
        from_frame(listed, past_covariates="price", **HOW),
    ]
    arrays = [[np.array(row[name]) for _, row in listed.iterrows()] for name in ("load", "price")]
    how = {name: value for name, value in HOW.items() if name != "target"}
    forms.append(from_arrays(arrays[0], covariates=arrays[1], freq="D", **how))
    for form in forms:
        np.testing.assert_array_equal(past(form), past(expected))
        np.testing.assert_array_equal(form.configurations[0].targets, expected.configurations[0].targets)


def test_lists_of_lists_are_several_covariates() -> None:
    frame = pd.DataFrame(
        {
            "start": [pd.Timestamp("2024-01-01")],
            "freq": ["D"],
            "target": [np.arange(8.0)],
            "past_feat_dynamic_real": [[np.arange(8.0) + 10, np.arange(8.0) + 20]],
        }
    )
    suite = from_frame(frame, past_covariates="past_feat_dynamic_real", horizon=2, context=2)
    assert past(suite) == [[[14, 15], [24, 25]]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"past_covariates": "pric"}, r"no column 'pric' for --past-covariate; columns: price"),
        ({"past_covariates": "load"}, "column load is named as a target and as a past covariate"),
        ({"past_covariates": "item_id"}, "row 0: .A. in column item_id is not a number"),
        ({"past_covariates": ["timestamp"]}, "column timestamp holds ids or times"),
        ({"past_covariates": 3}, "a column's name must be text"),
    ],
)
def test_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TspruneError, match=message):
        from_frame(table(), **(HOW | options))


def test_arrays_of_unlike_lengths_are_refused() -> None:
    with pytest.raises(TspruneError, match="array 0: 9 steps, and past covariates of 8"):
        from_arrays([np.arange(9.0)], covariates=[np.arange(8.0)], freq="D", horizon=2)
    with pytest.raises(TspruneError, match=r"give the past covariates of 2 arrays as covariates=\[...\]"):
        from_arrays(np.ones((2, 9)), covariates=[np.arange(9.0)], freq="D", horizon=2)


@dataclasses.dataclass
class Task:
    """A stand-in for `fev.Task` with one window and past-only columns."""

    horizon: int = 2
    seasonality: int = 7
    freq: str = "D"
    id_column: str = "id"
    target_columns: tuple[str, ...] = ("target",)
    past_dynamic_columns: tuple[str, ...] = ("price",)

    def iter_windows(self) -> Iterator[Task]:
        yield self

    def get_input_data(self) -> tuple[list[dict[str, Any]], None]:
        return [{"id": "A", "target": [1.0, 2, 3], "price": [4.0, np.inf, 6]}], None

    def get_ground_truth(self) -> list[dict[str, Any]]:
        return [{"id": "A", "target": [4.0, 5]}]


def test_the_past_columns_of_a_fev_task() -> None:
    np.testing.assert_array_equal(past(from_fev(Task())), [[[4, np.nan, 6]]])
