"""`tsprune prune` and `tsprune latency`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tsprune
from tests.shell import Runner
from tests.tiny import TINY
from tsprune.cli.options import share
from tsprune.pruning import compare


@pytest.fixture
def model(tmp_path: Path) -> Path:
    TINY["tiny-timesfm"](tmp_path / "model")
    return tmp_path / "model"


def test_prune_writes_what_prune_returns(run: Runner, model: Path, tmp_path: Path) -> None:
    patterns = ["stack.0.self.head.1", "stack.2.mlp"]
    options = [option for pattern in patterns for option in ("--remove", pattern)]
    result = run("prune", model, *options, "--out", tmp_path / "small", "--json")
    assert (result.code, result.err) == (0, "")
    expected = tsprune.prune(tsprune.load(str(model), device="cpu"), patterns)
    assert result.result["removed"] == patterns
    assert result.result["parameters"]["after"] == expected.parameter_count
    history = [np.arange(60.0)]
    loaded = tsprune.load(str(tmp_path / "small"), device="cpu")
    np.testing.assert_array_equal(
        loaded.forecast(history, 7).quantiles, expected.forecast(history, 7).quantiles
    )
    anatomy = run("anatomy", tmp_path / "small")
    assert (anatomy.code, anatomy.err) == (0, "")
    assert "2-3" in anatomy.out
    assert "Pruned: 2 components" in anatomy.out


def test_prune_by_a_plan(run: Runner, model: Path, tmp_path: Path) -> None:
    loaded = tsprune.load(str(model), device="cpu")
    tsprune.Plan.of(loaded, "stack.1", why="a test").save(tmp_path / "plan.json")
    result = run("prune", model, "--plan", tmp_path / "plan.json", "--out", tmp_path / "small")
    assert result.code == 0
    assert "README.md" in result.out
    assert json.loads((tmp_path / "small" / "tsprune.json").read_text())["provenance"] == {"why": "a test"}
    again = run("prune", tmp_path / "small", "--remove", "stack.1.mlp", "--out", tmp_path / "smaller")
    assert (again.code, again.out) == (2, "")
    assert again.err == "error: stack.1.mlp was already removed from this model\n"
    assert not (tmp_path / "smaller").exists()


def test_a_search_reports_on_the_other_series(run: Runner, tmp_path: Path, model: Path) -> None:
    where = ["--configs", "us_*/M/short", "--objective", "parameters", "--kind", "mlp"]
    result = run("prune", model, "--max-loss", "50%", "--out", tmp_path / "small", *where, "--json")
    assert result.code == 0, result.err
    smaller = tsprune.load(str(tmp_path / "small"), device="cpu")
    assert smaller.origin is not None
    assert [c.address for c in smaller.origin.components] == result.result["removed"] != []
    assert smaller.origin.provenance["max_loss"] == 0.5
    before = tsprune.load(str(model), device="cpu")
    _, report = tsprune.data.split(tsprune.data.pocket().only(["us_*/M/short"]))
    scores = compare(before, smaller, report)
    for name, (was, now, change) in scores.evidence().items():
        assert {"figure": name, "before": was, "after": now, "text": change} in result.result["measured"]
        assert f"| {name} | {was:.4g} | {now:.4g} | {change} |" in (tmp_path / "small/README.md").read_text()
    assert sum("ms a forecast" in row["figure"] for row in result.result["measured"]) == 2


def test_a_saving_needs_no_series(run: Runner, tmp_path: Path, model: Path) -> None:
    what = ["--saving", "3%", "--objective", "parameters", "--kind", "mlp"]
    result = run(
        "prune", model, *what, "--configs", "us_employment/M/short", "--out", tmp_path / "a", "--json"
    )
    assert result.code == 0, result.err
    plan = tsprune.plan(
        tsprune.load(str(model), device="cpu"), saving=0.03, objective="parameters", kinds=("mlp",)
    )
    assert sorted(result.result["removed"]) == sorted(c.address for c in plan.components) != []
    assert result.result["parameters"]["after"] <= 0.97 * result.result["parameters"]["before"]
    assert any(row["figure"].startswith("MASE") for row in result.result["measured"])
    other = run("prune", model, *what, "--configs", "us_finance/M/short", "--out", tmp_path / "b", "--json")
    assert other.result["removed"] == result.result["removed"]


def test_the_curve_of_a_search(run: Runner, tmp_path: Path, model: Path) -> None:
    where = ["--configs", "us_employment/M/short", "--objective", "flops", "--kind", "mlp"]
    search = ["prune", model, "--max-loss", "50%", *where, "--curve", tmp_path / "curve.html"]
    result = run(*search, "--out", tmp_path / "small", "--json")
    assert result.code == 0, result.err
    points = result.result["curve"]
    last = [point for point in points if point["way"] == "search"][-1]
    assert sorted(last["what"].split()) == sorted(result.result["removed"])
    assert {point["way"] for point in points} == {"search", "whole layers"}
    assert "Accuracy against time" in (tmp_path / "curve.html").read_text()
    told = [row for row in result.result["measured"] if row["figure"].startswith("MASE")]
    assert told[0]["text"].startswith(f"{100 * last['mase_change']:+.1f} %")


@pytest.mark.parametrize(("text", "value"), [("1%", 0.01), ("0.01", 0.01), ("2.5%", 0.025), ("0", 0.0)])
def test_a_share(text: str, value: float) -> None:
    assert share(text) == pytest.approx(value)


def test_mistakes_are_one_line(run: Runner, model: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    tsprune.Plan.of(tsprune.load("bundled:chronos-bolt", device="cpu"), "decoder.0.mlp").save(plan)
    new = ["--out", tmp_path / "small"]
    for arguments, message in (
        ([*new], "name what to remove"),
        ([*new, "--remove", "stack.0", "--plan", plan], "name what to remove"),
        ([*new, "--remove", "stack.*"], "nothing would be left of the stack"),
        ([*new, "--remove", "decoder.0"], "matches no component"),
        ([*new, "--plan", plan], "the plan is for a chronos-bolt model (bundled:chronos-bolt)"),
        ([*new, "--plan", tmp_path / "none.json"], "there is no plan"),
        ([*new, "--max-loss", "little"], "invalid share 'little'; write 1% or 0.01"),
        ([*new, "--max-loss", "-1%"], "invalid share '-1%'"),
        ([*new, "--max-loss", "1%", "--remove", "stack.0"], "name what to remove"),
        (["--out", model, "--remove", "stack.0"], "is not empty; name a new folder"),
        ([*new, "--remove", "stack.0", "--curve", "a.html"], "--curve needs --max-loss"),
    ):
        result = run("prune", model, *arguments)
        assert (result.code, result.out) == (2, "")
        assert message in result.err
        assert result.err.count("\n") == 1
        assert not (tmp_path / "small").exists()


def test_latency(run: Runner, model: Path, tmp_path: Path) -> None:
    run("prune", model, "--remove", "stack.1", "--out", tmp_path / "small")
    arguments = [
        "latency",
        model,
        tmp_path / "small",
        "--rounds",
        2,
        "--batch",
        1,
        "--batch",
        2,
        "--context",
        40,
    ]
    result = run(*arguments, "--horizon", 3, "--threads", 1, "--json")
    assert result.code == 0, result.err
    rows = result.result["timings"]
    assert [(row["batch"], row["model"]) for row in rows] == [
        (batch, str(name)) for batch in (1, 2) for name in (model, tmp_path / "small")
    ]
    assert rows[0]["parameters"] > rows[1]["parameters"]
    assert "1 torch threads" in result.result["machine"]
    table = run(*arguments, "--dtype", "float32")
    assert table.code == 0
    assert "below 1 is faster" in table.out
    flops = rows[1]["gflops"] / rows[0]["gflops"]
    assert f" times as fast with {flops:.2f} times the FLOPs" in table.out
    wrong = run(*arguments, "--dtype", "int8")
    assert "'--dtype': 'int8' is not one of: float32, bfloat16, float16" in wrong.err
