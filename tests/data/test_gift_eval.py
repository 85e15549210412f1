"""Reading GIFT-Eval: the shared copy, and copies written here by Hugging Face datasets."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest

from tsprune.data import available, gift_eval
from tsprune.data.gift_eval import table
from tsprune.errors import TspruneError

SHARED_NAMES = {
    *(f"bizitobs_application/10S/{term}" for term in ("short", "medium", "long")),
    "covid_deaths/D/short",
    *(f"ett1/{freq}/{term}" for freq in ("15T", "H") for term in ("short", "medium", "long")),
    "ett1/D/short",
    "ett1/W/short",
    "hospital/M/short",
    "m4_hourly/H/short",
    "m4_weekly/W/short",
    "m_dense/D/short",
    *(f"m_dense/H/{term}" for term in ("short", "medium", "long")),
    "saugeen/D/short",
    *(f"us_births/{freq}/short" for freq in "DMW"),
}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()
    monkeypatch.delenv("GIFT_EVAL", raising=False)


def save(folder: Path, targets: list[Any], freq: str, **options: Any) -> None:
    """One dataset as GIFT-Eval's authors save theirs."""
    multivariate = np.ndim(targets[0][0]) == 1
    value = datasets.Value("float32")
    sequence = datasets.Sequence(value)
    features = datasets.Features(
        {
            "item_id": datasets.Value("string"),
            "start": datasets.Value("timestamp[s]"),
            "freq": datasets.Value("string"),
            "target": datasets.Sequence(sequence, length=len(targets[0])) if multivariate else sequence,
        }
    )
    columns = {
        "item_id": [str(index) for index in range(len(targets))],
        "start": [datetime.datetime(2020, 1, 1)] * len(targets),
        "freq": [freq] * len(targets),
        "target": targets,
    }
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder), **options)


# --- the benchmark's table -----------------------------------------------------------------------


def test_table_has_the_published_97() -> None:
    names = [entry.name for entry in table()]
    assert len(set(names)) == len(names) == 97
    terms = [entry.term for entry in table()]
    assert [terms.count(term) for term in ("short", "medium", "long")] == [55, 21, 21]


def test_table_equals_the_published_results(shared: Path) -> None:
    published = pd.read_csv(shared / "data" / "published_gift_eval_scores.csv").drop_duplicates("config")
    rows = zip(published["config"], published["domain"], published["num_variates"], strict=True)
    assert {(e.name, e.domain, e.num_variates) for e in table()} == set(rows)


# --- the shared copy -----------------------------------------------------------------------------


def test_shared_copy_holds_23_configurations(shared: Path) -> None:
    root = shared / "data" / "gift_eval"
    suite = gift_eval(root)
    assert {c.name for c in suite.configurations} == set(available(root)) == SHARED_NAMES
    assert suite.skipped == ()
    by_name = {c.name: c for c in suite.configurations}
    ett = by_name["ett1/15T/short"]
    assert (len(ett), ett.horizon, ett.season, ett.num_variates, ett.domain) == (140, 48, 96, 7, "Energy")
    assert ett.targets.shape == (140, 48)
    assert len(ett.contexts[0]) == 69680 - 20 * 48
    assert by_name["m4_weekly/W/short"].horizon == 13
    assert len(by_name["m4_weekly/W/short"]) == 359


def test_windows_equal_those_of_datasets_and_gluonts(shared: Path) -> None:
    rows = datasets.load_from_disk(str(shared / "data" / "gift_eval" / "ett1" / "W"))["target"][0]
    (configuration,) = gift_eval(shared / "data" / "gift_eval", "ett1/W/short").configurations
    assert configuration.series.tolist() == [row for row in range(7) for _ in range(2)]
    np.testing.assert_array_equal(configuration.targets.reshape(7, 16), np.array(rows, np.float32)[:, -16:])
    np.testing.assert_array_equal(configuration.contexts[3], np.array(rows[1], np.float32)[:-8])


# --- names ---------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    save(tmp_path / "LOOP_SEATTLE" / "H", [rng.standard_normal(1000).tolist() for _ in range(2)], "H")
    save(tmp_path / "saugeenday" / "W", [rng.standard_normal(100).tolist()], "W-THU")
    save(tmp_path / "kdd_cup_2018_with_missing" / "D", [rng.standard_normal(400).tolist()], "D")
    save(tmp_path / "m4_quarterly", [rng.standard_normal(30).tolist()], "Q-DEC")
    return tmp_path


@pytest.mark.parametrize(
    ("configs", "expected"),
    [
        ("loop_seattle/H/short", ["loop_seattle/H/short"]),
        ("LOOP_SEATTLE/H/short", ["loop_seattle/H/short"]),
        ("Loop_Seattle/h/SHORT", ["loop_seattle/H/short"]),
        ("loop_seattle/*", [f"loop_seattle/H/{term}" for term in ("short", "medium", "long")]),
        (["saugeen/W/short", "saugeenday/W/short"], ["saugeen/W/short"]),
        ("kdd_cup_2018_with_missing/D/short", ["kdd_cup_2018/D/short"]),
        (["m4_*", "*/D/*"], ["kdd_cup_2018/D/short", "m4_quarterly/Q/short"]),
    ],
)
def test_both_spellings_and_patterns(root: Path, configs: Any, expected: list[str]) -> None:
    assert [c.name for c in gift_eval(root, configs).configurations] == expected


def test_root_from_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIFT_EVAL", str(root))
    assert len(gift_eval().configurations) == len(available()) == 6


def test_mistakes_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(TspruneError, match=r"close names: .*loop_seattle/H/short"):
        gift_eval(root, "loop_seatle/H/short")
    with pytest.raises(TspruneError, match="no folder ett1/H"):
        gift_eval(root, "ett1/H/short")
    with pytest.raises(TspruneError, match="list of configs is empty"):
        gift_eval(root, [])
    with pytest.raises(TspruneError, match="set GIFT_EVAL"):
        gift_eval()
    with pytest.raises(TspruneError, match="no directory"):
        gift_eval(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TspruneError, match="no GIFT-Eval dataset under"):
        gift_eval(tmp_path / "empty")


# --- what copies may hold ------------------------------------------------------------------------


def test_multivariate_rows_become_series(tmp_path: Path) -> None:
    first = np.arange(80, dtype=np.float32).reshape(2, 40)
    save(tmp_path / "bizitobs_l2c" / "H", [(first + shift).tolist() for shift in (0, 1000)], "H")
    suite = gift_eval(tmp_path)
    # 40 steps are fewer than a horizon of 48
    assert suite.configurations == ()
    assert {name for name, _ in suite.skipped} >= {f"bizitobs_l2c/H/{t}" for t in ("short", "medium", "long")}
    save(tmp_path / "ett1" / "W", [(first + shift).tolist() for shift in (0, 1000)], "W-THU")
    (configuration,) = gift_eval(tmp_path, "ett1/*").configurations
    assert configuration.series.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(configuration.targets[:, 0], [32, 72, 1032, 1072])


def test_rows_of_unequal_length_several_files_and_missing_values(tmp_path: Path) -> None:
    targets = [[1.0, None, *range(40)], [float("nan")] * 70, list(range(9)), list(range(8))]
    save(tmp_path / "saugeenday" / "W", targets, "W-WED", num_shards=3)
    suite = gift_eval(tmp_path)
    (configuration,) = suite.configurations
    # the shortest row decides on one window of 8
    assert configuration.series.tolist() == [0, 1, 2]
    assert np.isnan(configuration.contexts[0][1])
    assert np.isnan(configuration.targets[1]).all()
    assert configuration.contexts[2].tolist() == [0]
    assert [name for name, _ in suite.skipped] == ["saugeen/W/short, series 3"]


def test_contexts_are_views(root: Path) -> None:
    (configuration,) = gift_eval(root, "loop_seattle/H/short").configurations
    first, second = configuration.contexts[:2]
    assert np.shares_memory(first, second)
    assert first.dtype == np.float32
    assert not first.flags.owndata


def test_a_damaged_copy_is_an_error(root: Path) -> None:
    folder = root / "m4_quarterly"
    (file,) = folder.glob("data-*.arrow")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TspruneError, match="download this dataset again"):
        gift_eval(root)
    file.rename(folder / "data-renamed.arrow")
    with pytest.raises(TspruneError, match="which is missing"):
        gift_eval(root)


def test_pickles_are_not_read(root: Path) -> None:
    (file,) = (root / "m4_quarterly").glob("data-*.arrow")
    file.write_bytes(b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.")
    with pytest.raises(TspruneError, match="cannot read"):
        gift_eval(root, "m4_quarterly/*")


def test_an_unknown_frequency_is_listed(tmp_path: Path) -> None:
    save(tmp_path / "hospital", [list(range(40))], "fortnightly")
    suite = gift_eval(tmp_path)
    assert suite.configurations == ()
    assert suite.skipped[0][0] == "hospital/M/short"
    assert "fortnightly" in suite.skipped[0][1]
