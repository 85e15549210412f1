"""Suites show themselves briefly."""

from __future__ import annotations

import dataclasses

from tests.suites import configuration, small_suite
from tsprune.data import SUITE, Suite, pocket


def test_reprs_are_short_and_count() -> None:
    assert repr(small_suite()) == "<Suite small: 2 configurations, 9 windows, 1 skipped>"
    (_, second) = small_suite().configurations
    assert repr(second) == "<Configuration second/D/short: 4 windows of 2 series, horizon 11>"
    assert len(repr(pocket())) < 80


def test_describe_by_hand() -> None:
    table = small_suite().describe()
    known = [column.name for column in SUITE if not column.optional]
    assert list(table.columns) == known
    assert table.iloc[1].to_dict() == {
        "configuration": "second/D/short",
        "domain": "",
        "horizon": 11,
        "season": 7,
        "windows": 4,
        "series": 2,
        "num_variates": 1,
        "shortest": 0,
        "longest": 64,
    }
    assert list(Suite("empty", ()).describe().columns) == known


def test_notebooks_show_a_table_with_names_escaped() -> None:
    odd = dataclasses.replace(configuration("a<b>/D/short", [9], horizon=2), domain="<i>")
    shown = Suite("<script>", (odd,))._repr_html_()
    assert shown.count("<tr") == 2
    assert "<script>" not in shown
    assert "a&lt;b&gt;/D/short" in shown
