"""The third mechanism's claims on effects made by hand: levels, differences, equal damage, one family."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tsprune.explain import HeadEffects, mechanism_table
from tsprune.explain.mechanism import SetSamples
from tsprune.explain.mechanism_claims import DIFFUSE, PREDICTS, TRAIT_CLAIMS, by_share, statements
from tsprune.statistics import Sample

UNITS = 15
PARROTING = "sharp heads carry parroting"


def about(mean: float, spread: float = 0.01, count: int = UNITS) -> Sample:
    return Sample.of(mean + spread * np.linspace(-1, 1, count))


def effects(
    change: float = -0.3,
    excess: float = -0.2,
    matched: float | None = -0.2,
    error: float = 0.02,
    diffuse: float = -0.1,
    count: int = UNITS,
) -> HeadEffects:
    nothing = Sample.of(np.full(count, np.nan))
    traits = ("parroting", "seasonality")
    samples = SetSamples(
        change={("sharp", trait): about(change, count=count) for trait in traits},
        excess={("sharp", trait): about(excess, count=count) for trait in traits}
        | {("diffuse", "mase"): about(diffuse, count=count)},
        matched={trait: nothing if matched is None else about(matched, count=count) for trait in traits},
        error={"diffuse": Sample.of(np.log1p(error) + 0.005 * np.linspace(-1, 1, count), logarithmic=True)},
        percent=30,
    )
    return HeadEffects(pd.DataFrame(), pd.DataFrame(), {}, samples)


def verdict(found: HeadEffects, claim: str) -> str:
    table = mechanism_table({"m": found})
    (one,) = set(table.loc[table["claim"] == claim, "verdict"])
    return str(one)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (effects(), "confirmed"),
        (effects(change=0.2, excess=-0.3), "refuted"),  # it rose without either, less without the sharp
        (effects(change=-0.3, excess=0.1), "refuted"),
        (effects(matched=0.2), "refuted"),  # it falls only because the forecast is ruined
        (effects(matched=None), "undecided"),  # no sets of equal damage
        (effects(count=1), "undecided"),  # one series never decides
    ],
)
def test_sharp_heads_carry_a_trait(found: HeadEffects, expected: str) -> None:
    for claim in TRAIT_CLAIMS:
        assert verdict(found, claim) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (effects(), "confirmed"),
        (effects(error=0.8), "refuted"),  # cheaper than random heads, but not tolerated
        (effects(diffuse=0.1), "refuted"),
        (effects(count=1), "undecided"),
    ],
)
def test_diffuse_heads_can_go(found: HeadEffects, expected: str) -> None:
    assert verdict(found, DIFFUSE) == expected


@pytest.mark.parametrize(("sign", "expected"), [(-1, "confirmed"), (1, "refuted")])
def test_stable_rank_predicts_sharpness(sign: int, expected: str) -> None:
    rng = np.random.default_rng(0)
    rank = rng.uniform(1, 8, 32)
    heads = pd.DataFrame({"stable_rank": rank, "sharpness": sign * rank + 0.3 * rng.standard_normal(32)})
    table = mechanism_table({"m": effects()}, {"m": heads})
    row = table.set_index("claim").loc[PREDICTS]
    assert row["verdict"] == expected
    assert row["units"] == 32
    assert row["low"] <= row["value"] <= row["high"]


def test_a_claim_has_one_answer() -> None:
    """All statements of a claim have its verdict and its corrected p-value, which never contradict."""
    table = mechanism_table({"m": effects(excess=-0.01), "n": effects(change=0.0)})
    for _, part in table.groupby(["model", "claim"]):
        assert part["verdict"].nunique() == part["p_holm"].nunique(dropna=False) == 1
    decided = table["verdict"] != "undecided"
    assert (decided == (table["p_holm"] <= 0.05)).all()


def test_without_random_sets_nothing_is_tested() -> None:
    table = mechanism_table({"m": HeadEffects(pd.DataFrame(), pd.DataFrame(), {})})
    assert set(table["verdict"]) == {"undecided"}
    assert table["value"].isna().all()
    assert table["claim"].tolist() == [*TRAIT_CLAIMS, DIFFUSE]


def test_levels_are_the_papers() -> None:
    found = statements(effects().samples, None)
    (level, _) = found[DIFFUSE]
    assert "30 % of heads" in level[0]
    assert level[1].limit == 0.06
    assert len(found[PARROTING]) == 3


def test_shares_have_numbers_and_no_verdicts() -> None:
    rows = [
        {"percent": 10, "which": which, "effect": effect, "mean": mean}
        | ({"excess": low + 0.1, "excess_low": low, "excess_high": low + 0.2} if which != "random" else {})
        for effect, low in (("parroting", -0.3), ("seasonality", -0.1), ("mase", 0.0))
        for which, mean in (("sharp", -0.2), ("diffuse", -0.01), ("random", -0.1))
    ]
    table = by_share({"m": HeadEffects(pd.DataFrame(rows), pd.DataFrame(), {})})
    assert table["trait"].tolist() == ["parroting", "seasonality"]
    assert table["low"].tolist() == [-0.3, -0.1]
    assert "verdict" not in table
