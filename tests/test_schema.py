"""Schemas: a table has the columns it declares, in that order and of those types."""

from __future__ import annotations

import pandas as pd
import pytest

from tsprune.errors import TspruneError
from tsprune.schema import Column, Schema, Table

SIZES = Schema(
    "sizes",
    Column("name", "of the model", dtype="text"),
    Column("layers", "of all stacks", dtype="count"),
    lambda: [Column(f"size_{where}", f"in {where}", "MB") for where in ("memory", "file")],
    Column("pruned", "whether heads were removed", dtype="flag", optional=True),
)


def row(**changed: object) -> dict[str, object]:
    return {"size_file": 3, "name": "a", "layers": 2, "size_memory": 4} | changed


def test_columns_are_ordered_and_of_their_types() -> None:
    frame = SIZES.frame([row(), row(layers=5)])
    assert list(frame.columns) == ["name", "layers", "size_memory", "size_file"]
    assert frame.dtypes.astype(str).tolist() == ["object", "int64", "float64", "float64"]
    assert str(SIZES.frame([row(), row(layers=None)])["layers"].dtype) == "Int64"
    assert SIZES.frame([row(pruned=True)])["pruned"].dtype == bool


def test_a_table_without_rows_has_its_columns() -> None:
    frame = SIZES.frame([])
    assert list(frame.columns) == ["name", "layers", "size_memory", "size_file"]
    assert len(frame) == 0


def test_unknown_and_missing_columns_are_errors() -> None:
    with pytest.raises(TspruneError, match=r"unknown column 'sise' in the table sizes"):
        SIZES.frame([row(sise=1)])
    with pytest.raises(TspruneError, match="lacks the column 'layers'"):
        SIZES.checked(pd.DataFrame([row()]).drop(columns="layers"))
    with pytest.raises(TspruneError, match="no column 'sise'; it has: name, layers, size_memory"):
        SIZES["sise"]


def test_columns_are_described() -> None:
    assert SIZES["size_file"].unit == "MB"
    assert str(SIZES).splitlines()[2] == "size_memory [MB] : in memory"


def test_a_table_lists_what_is_missing_from_it() -> None:
    table = Table(SIZES.frame([row()] * 25), "<sizes>", (("b", "too <large>"),), (("c", "raised"),))
    assert repr(table).startswith("<<sizes>: 25 rows, 1 skipped, 1 failed>\n")
    assert len(table) == 25
    assert table["layers"].tolist() == [2] * 25
    assert table[["name", "layers"]].columns.tolist() == ["name", "layers"]
    page = table._repr_html_()
    assert page.count("<tr>") == 20
    assert "&lt;sizes&gt;: 25 rows, 1 skipped, 1 failed (first 20 shown)" in page
    assert "<li>b: too &lt;large&gt;</li><li>c: raised</li>" in page
    assert "left out" not in Table(SIZES.frame([row()]), "whole")._repr_html_()
