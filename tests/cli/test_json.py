"""The JSON of all commands: one envelope, names that docs/json.md explains, one meaning per name."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tsprune
from tests.tiny import TINY
from tsprune import cli
from tsprune.choices import RANKED_METRICS
from tsprune.cli.options import (
    SCORES_OF_ALL,
    SCORES_OF_HEADS,
    SCORES_OF_OTHERS,
)
from tsprune.cli.output import SCHEMA_VERSION
from tsprune.scores import SCORES

PAGE = Path(__file__).parents[2] / "docs" / "json.md"
SUITE = ("--configs", "us_employment/M/short")
LIMITS = re.compile(r"(_uniform)?(_low|_high)?$")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What commands print, by command."""
    folder = tmp_path_factory.mktemp("json")
    model, small, store, table = (str(folder / name) for name in ("model", "small", "store", "ranks.csv"))
    TINY["tiny-timesfm"](Path(model))
    ranks = tsprune.rank(tsprune.load(model, device="cpu")).assign(checkpoint="model")
    ranks[["checkpoint", "attention", "layer", "head", "stable_rank"]].to_csv(table, index=False)
    (folder / "own.csv").write_text("ds,y\n" + "".join(f"2024-01-{day:02},{day}\n" for day in range(1, 29)))
    lines = (
        ("models",),
        ("forecast", model, "--data", str(folder / "own.csv"), "--horizon", "3"),
        ("anatomy", model),
        ("evaluate", model, *SUITE),
        ("rank", model),
        ("sweep", model, "--kind", "mlp", "--store", store, *SUITE),
        ("results", store),
        ("heads-at", model, *SUITE),
        ("explain", model, *SUITE, "--per-configuration", "2", "--no-effects", "--no-chaos"),
        ("prune", model, "--remove", "stack.1.mlp", "--measure", "--out", small, *SUITE),
        ("latency", model, small, "--rounds", "2", "--batch", "1", "--context", "40", "--horizon", "3"),
        ("verify", model, "--against", table),
        ("check", model, "--baseline", small, "--measure", "stable_rank", *SUITE),
    )
    return {line[0]: json.loads(printed([*line, "--json"])) for line in lines}


def printed(words: list[str]) -> str:
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(out):
        patched.setattr(sys, "argv", ["tsprune", *words])
        cli.main()
    return out.getvalue()


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from keys(item)
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from keys(item)


def test_one_envelope(outputs: dict[str, Any]) -> None:
    for command, found in outputs.items():
        assert list(found) == ["schema_version", "tsprune", "command", "result", "skipped", "failed", "notes"]
        assert (found["schema_version"], found["tsprune"]) == (SCHEMA_VERSION, tsprune.__version__)
        assert found["command"] == command
        assert isinstance(found["result"], dict)


def test_every_name_is_explained(outputs: dict[str, Any]) -> None:
    """But for the columns of `explain`, which docs/guides/explain.md explains table by table."""
    text = re.sub(r"```.*?```", "", PAGE.read_text(encoding="utf-8"), flags=re.S)
    words = {word for span in re.findall(r"`([^`]+)`", text) for word in re.split(r"[\s,]+", span)}
    for command, found in outputs.items():
        if command == "explain":
            assert set(found["result"]) <= words
            continue
        unknown = {LIMITS.sub("", key) for key in keys(found["result"])} - words
        # metrics of the leaderboard, by their names there
        unknown = {key for key in unknown if not re.search(r"\[|^MSIS$|^mean_weighted|_change$", key)}
        assert unknown == set(), command


def test_values_ratios_and_changes_have_names_of_their_own(outputs: dict[str, Any]) -> None:
    for command, found in outputs.items():
        assert not {"mase", "crps"} & set(keys(found["result"])), command
    (row,) = outputs["evaluate"]["result"]["configurations"]
    cell = outputs["results"]["result"]["cells"][0]
    for metric in RANKED_METRICS:
        assert row[f"{metric}_ratio"] == pytest.approx(row[metric] / row[f"seasonal_naive_{metric}"])
        assert outputs["evaluate"]["result"]["geometric_mean"][f"{metric}_ratio"] == pytest.approx(
            row[f"{metric}_ratio"]
        )
        assert cell[metric] == row[metric]
    swept = outputs["sweep"]["result"]["components"][0]
    (ablated,) = (one for one in outputs["results"]["result"]["cells"] if one["ablation"] == swept["address"])
    assert swept["mase_change"] == pytest.approx(ablated["MASE"] / cell["MASE"] - 1)


def test_names_that_options_take_are_those_of_the_package() -> None:
    assert tuple(tsprune.evaluation.METRICS) == RANKED_METRICS
    assert set(SCORES) == {*SCORES_OF_HEADS, *SCORES_OF_ALL, *SCORES_OF_OTHERS}
    for name, score in SCORES.items():
        assert ("head" in score.kinds, "mlp" in score.kinds) == (
            name not in SCORES_OF_OTHERS,
            name not in SCORES_OF_HEADS,
        )
