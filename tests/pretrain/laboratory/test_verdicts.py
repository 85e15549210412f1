"""Verdicts on the three questions: intervals by hand, planted effects, nothing from one seed."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from pretrain.laboratory import verdicts
from pretrain.laboratory.plan import CONDITIONS


def planted(shares: dict[str, float], seeds: int = 3) -> pd.DataFrame:
    """Runs whose MLPs have these shares of the damage; one MLP costs a third of it."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "condition": condition.name,
            "mlp share": (share := shares.get(condition.name, 0.5) + 0.003 * rng.standard_normal()),
            "one mlp": share / 3,
        }
        for condition in CONDITIONS
        for _ in range(seeds)
    ]
    return pd.DataFrame(rows)


ENCODERS = {"chronos2": 0.1, "bolt": 0.1, "bolt-16": 0.1}


def test_a_planted_difference_of_architectures_is_found() -> None:
    found = verdicts.table(verdicts.architecture(planted(ENCODERS)))["verdict"].to_list()
    assert found[:4] == ["confirmed"] * 4  # decoders need MLPs, encoders do not, shares differ from both
    assert found[5] == "confirmed"  # also with 8 + 8 layers
    assert "confirmed" not in [found[4], *found[6:]]  # other decoders are like the base


def test_one_decoder_that_is_like_encoders_refutes_what_is_said_of_decoders() -> None:
    found = verdicts.table(verdicts.architecture(planted({**ENCODERS, "moirai2": 0.05})))["verdict"].to_list()
    assert found[0] == "refuted"
    assert found[2:5] == ["refuted", "refuted", "confirmed"]


def test_an_answer_names_what_is_decided() -> None:
    table = pd.DataFrame({"verdict": ["undecided", "refuted", "confirmed"]}, index=["A", "B", "C"])
    assert verdicts.answer(table).splitlines() == [
        "- **confirmed**: C.",
        "- **refuted**: B.",
        "- **undecided**: 1 of 3 statements (below).",
    ]


@pytest.mark.parametrize(("seeds", "shown"), [(1, r"\(one seed\)"), (2, r"\] \(2 seeds\)")])
def test_fewer_than_three_seeds_decide_nothing(seeds: int, shown: str) -> None:
    table = verdicts.table(verdicts.architecture(planted(ENCODERS, seeds)))
    assert set(table["verdict"]) == {"undecided"}
    assert table["measured"].str.contains(shown).all()
    assert set(table["corrected p"]) == {""}


def areas(seeds: dict[str, int]) -> pd.DataFrame:
    """Runs whose area falls by 0.1 with each doubling of depth, and with layer dropout."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {
                "condition": condition.name,
                "supervision": "dropout" if condition.name == "dropout" else "base",
                **{name: getattr(condition, name) for name in ("architecture", "layers", "width", "steps")},
                "area": 0.5
                - 0.1 * np.log2(condition.layers / 8)
                - 0.1 * (condition.name == "dropout")
                + 0.002 * rng.standard_normal(),
                "pocket MASE": np.exp(0.1 * rng.standard_normal()),
                "paper": np.nan,
                "random": np.nan,
            }
            for condition in CONDITIONS
            for _ in range(seeds.get(condition.name, 0))
        ]
    )


@pytest.mark.parametrize(
    ("seeds", "depth", "dropout"),
    [
        ({"depth-8": 3, "depth-16": 3, "dropout": 3}, "confirmed", "confirmed"),
        ({"depth-8": 3, "depth-16": 3, "dropout": 2}, "confirmed", "undecided"),
        ({"depth-8": 4, "depth-16": 2, "dropout": 3}, "undecided", "confirmed"),
        ({"depth-8": 2, "depth-16": 2, "depth-4": 2, "dropout": 4}, "undecided", "undecided"),
    ],
)
def test_a_coefficient_rests_on_three_seeds_of_two_conditions(
    seeds: dict[str, int], depth: str, dropout: str
) -> None:
    found = verdicts.table(verdicts.redundancy(areas(seeds)))
    assert found.loc["Depth makes layers redundant", "verdict"] == depth
    assert found.loc["Layer dropout makes layers redundant", "verdict"] == dropout
    assert found.loc["Layer dropout makes layers redundant at equal accuracy", "verdict"] == dropout
    assert found.loc["Width makes layers redundant", "measured"] == "twice the width not measured"


def test_depth_is_told_from_parameters() -> None:
    """The planted area falls with depth alone, whatever the width."""
    found = verdicts.table(verdicts.redundancy(areas({"depth-8": 3, "depth-16": 3, "deep": 3, "wide": 3})))
    one = found.loc["With as many parameters, 32 layers are more redundant than 8, and 8 than 2"]
    assert one["verdict"] == "confirmed"
    gaps = [float(gap) for gap in re.findall(r"[a-z8] (-\d\.\d+)", one["measured"])]
    assert gaps == pytest.approx([-0.2, -0.2], abs=0.005)


def separation_rows(kept: float) -> pd.DataFrame:
    """Three runs: removal lowers parroting, training brings accuracy back, and `kept` of the parroting."""
    values = {
        "nothing removed": (0.7, 0.0),
        "carriers, as pruned": (0.9, -0.2),
        "carriers, distilled": (0.75, -0.02),
        "carriers, trained": (0.75, -0.2 * (1 - kept)),
        "random 0, as pruned": (0.8, -0.05),
        "random 1, as pruned": (0.8, -0.03),
    }
    rng, rows = np.random.default_rng(0), []
    for run in ("a", "b", "c"):
        for unit, pair in values.items():
            for metric, value in zip(("CRPS", "excess_parroting"), pair, strict=True):
                noise = 0.002 * rng.standard_normal()
                rows.append((run, "pocket", "separation", unit, metric, value + noise))
    return pd.DataFrame(rows, columns=["run", "suite", "measure", "unit", "metric", "value"])


@pytest.mark.parametrize(("kept", "together"), [(1.0, "confirmed"), (-0.2, "refuted")])
def test_accuracy_that_comes_back_without_parroting_is_told_apart(kept: float, together: str) -> None:
    statements = verdicts.parroting(
        planted({}).assign(**dict.fromkeys(COLUMNS, np.nan)), separation_rows(kept)
    )
    found = verdicts.table(statements)["verdict"]
    assert found.iloc[:6].to_list() == ["undecided"] * 6  # not measured
    assert found.iloc[6:9].to_list() == ["confirmed"] * 3
    assert found.iloc[9] == together
    assert found.iloc[10] == "undecided"  # random heads are not trained here
    assert found.iloc[11] == ("confirmed" if together == "refuted" else "undecided")
    assert found.iloc[12] == "confirmed"  # CRPS is 0.05 above the original's


COLUMNS = ("pocket excess_parroting", "pocket CRPS", "periodic CRPS", "aperiodic CRPS")
