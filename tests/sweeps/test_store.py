"""The results store: what is kept comes back to the last bit, under a name that nothing else has."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.suites import small_suite, tiny
from tsprune.anatomy import Component
from tsprune.errors import TspruneError
from tsprune.evaluation import (
    WindowStatistics,
    evaluate,
    leaderboard_metrics,
    seasonal_errors,
    spearman_distance,
    window_statistics,
    write_all_results,
)
from tsprune.evaluation.leaderboard import LEADERBOARD_METRICS
from tsprune.evaluation.metrics import CRPS_LEVELS
from tsprune.hooks.ablation import Ablation
from tsprune.models import Forecast
from tsprune.sweeps import CLEAN, Store, run
from tsprune.sweeps.cell_bytes import from_bytes, to_bytes
from tsprune.sweeps.key import RESULTS_VERSION, CellKey, checkpoint_digest, protocol, windows_fingerprint
from tsprune.sweeps.store import Entry
from tsprune.sweeps.sweep_result import CellScores, WindowScores

HEAD = Component("stack", 1, "self", 2)
MLP = Component("stack", 0, mlp=True)
KEY = CellKey(
    checkpoint="a" * 64,
    ablation=Ablation((HEAD,), "resample", 3),
    configuration="first/D/short",
    windows="b" * 64,
    batches="e" * 64,
    protocol=json.dumps({"batch_size": 64, "dtype": "float32"}),
    reference="c" * 64,
)


def cell_scores(count: int = 3, seed: int = 0, *, forecast: bool = False) -> CellScores:
    """Random scores of `count` windows, the awkward values among them."""
    rng = np.random.default_rng(seed)
    fields = {field.name: rng.random(count) for field in dataclasses.fields(WindowStatistics)}
    fields["scaled_error_sum"][:1] = np.nan
    fields["interval_score_sum"][:1] = np.inf
    kept = None
    if forecast:
        kept = Forecast(rng.random((count, 9, 4)).astype(np.float32))
    rows = np.sort(rng.permutation(100)[:count])
    return CellScores(rows, WindowScores(WindowStatistics(**fields), rng.random(count)), kept, 0.25)


def assert_identical(a: CellScores, b: CellScores) -> None:
    np.testing.assert_array_equal(a.rows, b.rows)
    np.testing.assert_array_equal(a.scores.spearman, b.scores.spearman)
    for field in dataclasses.fields(WindowStatistics):
        one, other = (getattr(x.scores.statistics, field.name) for x in (a, b))
        np.testing.assert_array_equal(one, other)
    assert a.seconds == b.seconds
    assert (a.forecast is None) == (b.forecast is None)
    if a.forecast is not None and b.forecast is not None:
        np.testing.assert_array_equal(a.forecast.quantiles, b.forecast.quantiles)
        assert a.forecast.quantiles.dtype == b.forecast.quantiles.dtype
        assert a.forecast.levels == b.forecast.levels


def entry(ablation: Ablation = KEY.ablation, configuration: str = KEY.configuration) -> Entry:
    key = dataclasses.replace(KEY, ablation=ablation, configuration=configuration)
    return Entry(key, "some/model", "Nature", 2)


# --- keys ----------------------------------------------------------------------------------------

components = st.lists(st.sampled_from([HEAD, MLP, Component("stack", 1)]), max_size=3, unique=True).map(tuple)
keys = st.builds(
    CellKey,
    checkpoint=st.text(max_size=3),
    ablation=st.builds(
        Ablation, components, st.sampled_from(["zero", "mean", "resample"]), st.integers(0, 3)
    ),
    configuration=st.text(max_size=3),
    windows=st.text(max_size=3),
    batches=st.text(max_size=3),
    protocol=st.text(max_size=3),
    reference=st.text(max_size=3),
    version=st.integers(1, 3),
)


def meaning(key: CellKey) -> tuple[object, ...]:
    """The key without what has no influence in its mode."""
    mode = key.ablation.mode
    seed = key.ablation.seed if mode == "resample" else None
    reference = key.reference if mode != "zero" else None
    rest = (key.checkpoint, key.configuration, key.windows, key.batches, key.protocol, key.version)
    return (key.ablation.components, mode, seed, reference, *rest)


@given(keys, keys)
def test_digests_are_equal_exactly_if_everything_that_matters_is(a: CellKey, b: CellKey) -> None:
    assert (a.digest == b.digest) == (meaning(a) == meaning(b))


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint": "d" * 64},
        {"configuration": "second/D/short"},
        {"windows": "d" * 64},
        {"batches": "d" * 64},
        {"protocol": json.dumps({"batch_size": 63, "dtype": "float32"})},
        {"reference": "d" * 64},
        {"version": KEY.version + 1},
        {"ablation": Ablation((HEAD,), "resample", 4)},
        {"ablation": Ablation((HEAD,), "mean", 3)},
        {"ablation": Ablation((MLP,), "resample", 3)},
        {"ablation": Ablation((HEAD, MLP), "resample", 3)},
        {"ablation": CLEAN},
    ],
)
def test_a_change_of_any_part_is_another_digest(change: dict[str, object]) -> None:
    assert dataclasses.replace(KEY, **change).digest != KEY.digest


def test_a_protocol_names_all_that_changes_a_forecast() -> None:
    model = tiny("tiny-moirai")
    configuration = small_suite().configurations[0]
    before = (model.samples, model.seed, model.context_length)
    how = protocol(model, configuration, batch_size=8, device="cpu")
    others = [protocol(model, configuration, batch_size=9, device="cpu")]
    others.append(protocol(model, configuration, batch_size=8, device="cuda"))
    others.append(protocol(model, dataclasses.replace(configuration, horizon=6), batch_size=8, device="cpu"))
    try:
        for name, value in (("samples", 7), ("seed", 1), ("context_length", 32)):
            old = getattr(model, name)
            setattr(model, name, value)
            others.append(protocol(model, configuration, batch_size=8, device="cpu"))
            setattr(model, name, old)
    finally:
        model.samples, model.seed, model.context_length = before
    assert len({how, *others}) == 7
    assert json.loads(how)["upstream"].startswith("timecopilot-uni2ts ")
    assert json.loads(how)["dtype"] == "float32"


def test_a_checkpoint_is_known_by_its_weights_not_its_name() -> None:
    model = tiny("tiny-timesfm")
    before = checkpoint_digest(model)
    name = model.name
    weight = next(model.module.parameters())
    try:
        model.name = "elsewhere/the-same"
        assert checkpoint_digest(model) == before
        with_first = weight.data.flatten()[0].item()
        weight.data.view(-1)[0] += 1e-3
        assert checkpoint_digest(model) != before
        weight.data.view(-1)[0] = with_first
        assert checkpoint_digest(model) == before
    finally:
        model.name = name


def test_other_numbers_from_a_forecast_are_another_version() -> None:
    """Where this fails although the metrics are right, raise RESULTS_VERSION and renew the numbers."""
    steps = np.arange(12.0)
    history = 10 + 3 * np.sin(steps) + steps / 5
    quantiles = (history[-4:] + 0.5 + np.linspace(-2, 2, 9)[:, None])[None]
    found = window_statistics(
        quantiles=quantiles,
        levels=CRPS_LEVELS,
        targets=history[None, :4],
        season_errors=seasonal_errors([history], 3),
    )
    expected = {
        "MSE[mean]": 8.30081,
        "MSE[0.5]": 8.30081,
        "MAE[0.5]": 2.36583,
        "MASE[0.5]": 0.641023,
        "MAPE[0.5]": 0.215704,
        "sMAPE[0.5]": 0.195564,
        "MSIS": 7.22918,
        "RMSE[mean]": 2.88111,
        "NRMSE[mean]": 0.245851,
        "ND[0.5]": 0.201881,
        "mean_weighted_sum_quantile_loss": 0.158824,
    }
    assert RESULTS_VERSION == 5
    assert leaderboard_metrics(found) == pytest.approx(expected, rel=1e-5)
    assert spearman_distance(quantiles[:, 4], history[None, :4]) == pytest.approx(1.4)


def test_one_changed_value_is_another_fingerprint() -> None:
    a, b = small_suite().configurations[0], small_suite().configurations[0]
    assert windows_fingerprint(a) == windows_fingerprint(b)
    b.contexts[2][3] += 1
    assert windows_fingerprint(a) != windows_fingerprint(b)


# --- rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("forecast", [False, True])
def test_scores_survive_the_round_trip(count: int, forecast: bool) -> None:
    scores = cell_scores(count, forecast=forecast)
    assert_identical(from_bytes(to_bytes(scores)), scores)


def test_what_is_stored_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.sqlite"
    scores = cell_scores(forecast=True)
    with Store(path) as store:
        store.add(done=[(entry(), scores)], failed=[(entry(CLEAN), "it broke")])
    with Store(path, create=False) as store:
        found = store.finished(entry().key, kept=True)
        assert found is not None
        assert_identical(found, scores)
        assert store.finished(entry(CLEAN).key) is None
        assert store.finished(entry(configuration="another").key) is None
        frame = store.frame()
    assert frame["status"].tolist() == ["done", "failed"]
    assert frame["ablation"].tolist() == [HEAD.address, "none"]
    assert frame["error"].tolist() == [None, "it broke"]
    assert frame["key"].tolist() == [entry().key.digest, entry(CLEAN).key.digest]
    assert frame["count"].tolist()[0] == 3
    assert pd.isna(frame["count"][1])
    assert frame["spearman_distance"][0] == scores.scores.spearman.mean()


def test_scores_without_forecasts_do_not_serve_those_who_want_them(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        store.add(done=[(entry(), cell_scores())], parts=[(entry(CLEAN), 0, cell_scores())])
        assert store.finished(entry().key) is not None
        assert store.finished(entry().key, kept=True) is None
        assert list(store.parts(entry(CLEAN).key)) == [0]
        assert store.parts(entry(CLEAN).key, kept=True) == {}


def test_parts_go_when_their_cell_is_finished(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        parts = {batch: cell_scores(seed=batch) for batch in (0, 2)}
        store.add(parts=[(entry(), batch, scores) for batch, scores in parts.items()])
        found = store.parts(entry().key)
        assert found.keys() == parts.keys()
        for batch, scores in parts.items():
            assert_identical(found[batch], scores)
        assert store.frame().empty
        store.add(done=[(entry(), cell_scores())])
        assert store.parts(entry().key) == {}


def test_a_failure_is_replaced_by_a_result_and_never_the_other_way(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        store.add(failed=[(entry(), "first")])
        store.add(failed=[(entry(), "second")])
        assert store.frame()["error"].tolist() == ["second"]
        store.add(done=[(entry(), cell_scores())])
        store.add(failed=[(entry(), "third")])
        assert store.frame()[["status", "error"]].to_numpy().tolist() == [["done", None]]


def test_a_transaction_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        broken = dataclasses.replace(entry(CLEAN), model=None)  # NOT NULL
        with pytest.raises(TspruneError, match="NOT NULL"):
            store.add(done=[(entry(), cell_scores()), (broken, cell_scores())])
        assert store.frame().empty
        store.add(done=[(entry(), cell_scores())])
        assert len(store.frame()) == 1


# --- filters and the leaderboard -----------------------------------------------------------------


def test_filters_are_globs_over_columns(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        ablations = [CLEAN, Ablation((HEAD,)), Ablation((MLP,)), Ablation((MLP,), "mean")]
        store.add(done=[(entry(a, c), cell_scores()) for a in ablations for c in ("a/D/short", "b/D/long")])
        assert len(store.frame()) == 8
        assert len(store.frame({"ablation": "stack.*.mlp"})) == 4
        assert len(store.frame({"ablation": "stack.*.mlp", "mode": "mean"})) == 2
        both = store.frame({"configuration": "*/long", "ablation": "none"})
        assert both["configuration"].tolist() == ["b/D/long"]
        assert store.frame({"model": "Some/*"}).empty
        with pytest.raises(TspruneError, match=r"no column 'scores'.*there are: key, model"):
            store.frame({"scores": "*"})
        with pytest.raises(TspruneError, match="no column"):
            store.frame({"1; DROP TABLE cells; --": "*"})


def test_the_leaderboard_file_is_the_one_evaluate_writes(tmp_path: Path) -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    ablation = Ablation(model.anatomy.select("stack.0.mlp"))
    run(model, suite, [ablation], store=tmp_path / "s")
    with Store(tmp_path / "s") as store:
        frame = store.leaderboard({"ablation": "none"})
        with pytest.raises(TspruneError, match="2 are selected"):
            store.leaderboard()
        with pytest.raises(TspruneError, match="no finished cell"):
            store.leaderboard({"ablation": "nonsense"})
        assert not frame.equals(store.leaderboard({"ablation": "stack.0.mlp"}))
    for name, table in (("ours", frame), ("expected", evaluate(model, suite).frame)):
        write_all_results(table, tmp_path / f"{name}.csv", "tiny")
    assert (tmp_path / "ours.csv").read_text() == (tmp_path / "expected.csv").read_text()
    assert set(pd.read_csv(tmp_path / "ours.csv").columns) >= {
        f"eval_metrics/{m}" for m in LEADERBOARD_METRICS
    }


# --- files that are something else ---------------------------------------------------------------


def one_line(error: pytest.ExceptionInfo[TspruneError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("precious\n" * 200)
    with pytest.raises(TspruneError, match="damaged or not a results store") as error:
        Store(tmp_path / "text")
    one_line(error)
    assert (tmp_path / "text").read_text().startswith("precious")
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE cells (x)")
    other.close()
    with pytest.raises(TspruneError, match="not a results store of tsprune"):
        Store(tmp_path / "other")
    with pytest.raises(TspruneError, match="is a folder"):
        Store(tmp_path)
    with pytest.raises(TspruneError, match=r"there is no results store.*--store"):
        Store(tmp_path / "nothing", create=False)
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(TspruneError, match="cannot make the folder"):
        Store(tmp_path / "text" / "below")


def test_a_store_of_another_format(tmp_path: Path) -> None:
    Store(tmp_path / "s").close()
    database = sqlite3.connect(tmp_path / "s")
    database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(TspruneError, match="format 99"):
        Store(tmp_path / "s")


def test_a_damaged_store_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Store(path) as store:
        cells = [entry(CLEAN, f"{i}") for i in range(60)]
        store.add(done=[(cell, cell_scores(50)) for cell in cells])
    content = bytearray(path.read_bytes())
    assert len(content) > 100_000
    content[8192:] = b"\xa5" * (len(content) - 8192)
    path.write_bytes(content)

    def read() -> None:
        with Store(path) as store:
            store.frame()
            for cell in cells:
                store.finished(cell.key)

    with pytest.raises(TspruneError, match="damaged") as error:
        read()
    one_line(error)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x05\x06" + bytes(18)])
def test_a_damaged_row_is_one_line(tmp_path: Path, content: bytes) -> None:
    with Store(tmp_path / "s") as store:
        store.add(done=[(entry(), cell_scores())])
    database = sqlite3.connect(tmp_path / "s")
    with database:
        database.execute("UPDATE cells SET scores = ?", (content,))
    database.close()
    with Store(tmp_path / "s") as store, pytest.raises(TspruneError, match="unreadable scores") as error:
        store.finished(entry().key)
    one_line(error)


def test_a_row_is_never_unpickled(tmp_path: Path) -> None:
    import io

    buffer = io.BytesIO()
    np.savez(buffer, fields=np.array([{"a": 1}], dtype=object))
    with Store(tmp_path / "s") as store:
        store.add(done=[(entry(), cell_scores())])
    database = sqlite3.connect(tmp_path / "s")
    with database:
        database.execute("UPDATE cells SET scores = ?", (buffer.getvalue(),))
    database.close()
    with Store(tmp_path / "s") as store, pytest.raises(TspruneError, match="allow_pickle"):
        store.finished(entry().key)


# --- two processes -------------------------------------------------------------------------------

WRITER = """
import sys
from tests.sweeps.test_store import CLEAN, KEY, cell_scores, entry
from tsprune.sweeps import Store
path, start, stop = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with Store(path) as store:
    print(KEY.digest, flush=True)
    sys.stdin.readline()
    for i in range(start, stop):
        name = f"{i}/D/short"
        store.add(parts=[(entry(CLEAN, name), 0, cell_scores(seed=i))])
        store.add(done=[(entry(CLEAN, name), cell_scores(seed=i))])
"""


def test_two_processes_write_to_one_store(tmp_path: Path) -> None:
    """They make it at the same time, know cells by the same digests, and share half of them."""
    path = tmp_path / "s"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), *map(str, part)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in ((0, 60), (30, 90))
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == f"{KEY.digest}\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    with Store(path, create=False) as store:
        frame = store.frame()
        assert sorted(frame["configuration"]) == sorted(f"{i}/D/short" for i in range(90))
        for i in range(90):
            found = store.finished(entry(CLEAN, f"{i}/D/short").key)
            assert found is not None
            assert_identical(found, cell_scores(seed=i))
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert database.execute("SELECT count(*) FROM parts").fetchone() == (0,)
    database.close()


# --- files that others hold, or left behind --------------------------------------------------------


def test_a_store_that_another_process_holds_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[Store.__module__], "BUSY_SECONDS", 0.05)
    other = sqlite3.connect(tmp_path / "s", isolation_level=None)
    with Store(tmp_path / "s") as store:
        store.add(done=[(entry(CLEAN), cell_scores(3))])
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TspruneError, match=r"database is locked.*: wait until it is done") as error:
            store.add(done=[(entry(CLEAN, "other"), cell_scores(3))])
        one_line(error)
        assert len(store.frame()) == 1  # readers are not kept out
    other.execute("COMMIT")
    other.close()


def test_a_store_that_is_closed_is_not_called_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.close()
    with pytest.raises(TspruneError, match=r"cannot use the results store.*closed"):
        store.frame()


def test_what_a_killed_process_wrote_last_is_found(tmp_path: Path) -> None:
    """Its log, which SQLite merges when a store is closed, is still beside the file."""
    with Store(tmp_path / "s") as store:
        store.add(done=[(entry(CLEAN), cell_scores(3))])
        for name in ("s", "s-wal"):
            shutil.copy(tmp_path / name, tmp_path / f"killed{name[1:]}")
    assert (tmp_path / "killed-wal").stat().st_size > 0
    with Store(tmp_path / "killed", create=False) as found:
        assert len(found.frame()) == 1
    assert not (tmp_path / "killed-wal").exists()


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_foreign_file_in_place_of_a_log_does_no_harm(tmp_path: Path, suffix: str) -> None:
    with Store(tmp_path / "s") as store:
        store.add(done=[(entry(CLEAN), cell_scores(3))])
    (tmp_path / f"s{suffix}").write_bytes(b"\xa5" * 5000)
    with Store(tmp_path / "s") as store:
        assert len(store.frame()) == 1
    (tmp_path / f"s{suffix}").unlink(missing_ok=True)
    (tmp_path / f"s{suffix}").mkdir()
    with pytest.raises(TspruneError, match="cannot use the results store") as error:
        Store(tmp_path / "s").frame()
    one_line(error)


def test_a_store_in_a_folder_that_nobody_can_write_to_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "s"
    with Store(path) as store:
        store.add(done=[(entry(CLEAN), cell_scores(3))])
    # root may write anywhere but on such a file system
    flags = {path.parent: os.ST_RDONLY}
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_flag=flags.get(Path(folder), 0)))
    before = sorted(path.parent.iterdir())
    with Store(path, create=False) as sealed:
        assert len(sealed.frame()) == 1
        assert sorted(path.parent.iterdir()) == before
    with pytest.raises(TspruneError, match="cannot write to the folder"):
        Store(path.with_name("new"))
