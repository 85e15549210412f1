"""The paper's claims at their limits, with intervals made by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from tsprune.evaluation.intervals import Change, Resampled
from tsprune.study.claims import Findings, Headline, MLPMedian, Pruned, end_layers, mlp_claim, model_claims
from tsprune.study.mechanism import Interval, Mechanism
from tsprune.study.result import Claim


def change(low: float, high: float) -> Change:
    return Change((low + high) / 2, low, high, 0.5, 9)


def layers(changes: dict[str, float], stack: str = "stack", unit: str = "both") -> pd.DataFrame:
    """Rows of the layer table: layer -> change."""
    rows = [
        {"stack": stack, "layer": int(layer), "unit": unit, "mase_change": change}
        for layer, change in changes.items()
    ]
    return pd.DataFrame(rows)


NOTHING = Findings(Headline(28, 100, (), None, None), {"stack.0": change(0.3, 0.4)}, None, None)


def claim(start: str, **found: object) -> Claim:
    claims = model_claims("m", dataclasses.replace(NOTHING, **found))  # type: ignore[arg-type]
    (one,) = [c for c in claims if c.statement.startswith(start)]
    return one


def test_every_model_gets_seven_different_claims() -> None:
    claims = model_claims("m", NOTHING)
    assert len({c.statement for c in claims}) == len(claims) == 7
    assert {c.model for c in claims} == {"m"}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.06, "confirmed"),
        (-0.2, -0.1, "confirmed"),
        (0.05, 0.0601, "undecided"),  # although the change itself is within the limit
        (0.0601, 0.07, "refuted"),
        (float("nan"), float("nan"), "undecided"),
    ],
)
def test_middle_layers(low: float, high: float, verdict: str) -> None:
    headline = Headline(28, 100, ("stack.3.mlp", "stack.4.mlp"), change(low, high), change(0.01, 0.02))
    found = claim("Middle layers", headline=headline)
    assert found.verdict == verdict
    assert "28 of 100 heads" in found.evidence
    assert "stack.3.mlp and stack.4.mlp" in found.evidence
    assert f"MASE {headline.mase}, CRPS +1.5 % [+1.0, +2.0]" in found.evidence
    if low == low:
        assert (found.low, found.high) == (low, high)


def test_middle_layers_that_are_too_few() -> None:
    assert claim("Middle layers").verdict == "not applicable"


@pytest.mark.parametrize(
    ("first", "last", "verdict"),
    [
        ((0.26, 0.5), (0.3, 9.0), "confirmed"),
        ((0.25, 0.5), (0.3, 9.0), "undecided"),
        ((0.3, 9.0), (0.2, 0.3), "undecided"),
        ((0.1, 0.24), (0.3, 9.0), "refuted"),
        ((0.1, 0.24), (0.2, 0.3), "refuted"),
    ],
)
def test_first_and_last_layers(first: tuple[float, float], last: tuple[float, float], verdict: str) -> None:
    found = claim("First and last", ends={"stack.0": change(*first), "stack.2": change(*last)})
    assert found.verdict == verdict
    assert f"stack.0 {change(*first)}, stack.2 {change(*last)}" in found.evidence


def test_ends_are_those_of_every_stack() -> None:
    both = pd.concat([layers({"0": 1, "1": 1, "2": 1}, "encoder"), layers({"0": 1, "1": 1}, "decoder")])
    ends = end_layers(both)
    assert list(zip(ends["stack"], ends["layer"], strict=True)) == [
        ("encoder", 0),
        ("encoder", 2),
        ("decoder", 0),
        ("decoder", 1),
    ]


def pruned(high: tuple[float, float], random: tuple[float, float], **more: object) -> Pruned:
    return dataclasses.replace(
        Pruned(change(*high), change(*random), change(-1, 1), change(-1, 1), 0.3, (0.1, 0.2, 0.6)),
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("high", "random", "verdict"),
    [
        ((0.01, 0.05), (0.21, 0.30), "confirmed"),
        ((0.01, 0.06), (0.21, 0.30), "undecided"),  # the paper says less than 6 %
        ((0.01, 0.05), (0.20, 0.30), "undecided"),
        ((0.01, 0.05), (0.10, 0.19), "refuted"),
        ((0.07, 0.09), (0.10, 0.30), "refuted"),
        ((0.01, 0.09), (0.10, 0.30), "undecided"),
    ],
)
def test_what_was_published_of_pruning(
    high: tuple[float, float], random: tuple[float, float], verdict: str
) -> None:
    found = claim("Stable-rank pruning costs", pruned=pruned(high, random))
    assert found.verdict == verdict
    assert f"MASE {change(*high)} by stable rank, {change(*random)} at random" in found.evidence


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.2, -0.1, "confirmed"), (-0.2, 0.0, "undecided"), (-0.2, 0.1, "undecided"), (0.1, 0.2, "refuted")],
)
def test_differences_decide_about_strategies(low: float, high: float, verdict: str) -> None:
    against = change(low, high)
    found = claim("Stable-rank pruning (highest", pruned=pruned((0.0, 0.3), (0, 1), above_random=against))
    assert (found.verdict, found.low, found.high) == (verdict, low, high)
    # 0.15 is less than two of the three draws
    assert "cheaper than 2 of 3 draws (+10.0 % to +60.0 %)" in found.evidence
    assert f"points [{100 * low:+.1f}, {100 * high:+.1f}]" in found.evidence
    other = claim("Diffuse heads", pruned=pruned((0, 1), (0, 1), above_low=against))
    assert (other.verdict, other.low, other.high) == (verdict, low, high)


def test_pruning_claims_need_heads() -> None:
    for start in ("Stable-rank pruning costs", "Stable-rank pruning (highest", "Diffuse heads"):
        assert claim(start, pruned=None).verdict == "not applicable"


def mechanism(low: float, high: float, count: int = 20) -> Mechanism:
    def both(interval: Interval) -> dict[str, Interval]:
        return {"parroting": interval, "seasonality": interval}

    other = both(Interval(0.0, -1.0, 1.0, count))
    return Mechanism(other, other, other, both(Interval((low + high) / 2, low, high, count)))


@pytest.mark.parametrize(
    ("how", "verdict"),
    [
        (mechanism(-0.3, -0.1), "confirmed"),
        (mechanism(0.1, 0.3), "refuted"),
        (mechanism(-0.3, 0.0), "undecided"),
        (mechanism(0.0, 0.3), "undecided"),
        (mechanism(-0.3, 0.3), "undecided"),
        (mechanism(-0.3, -0.1, count=1), "not applicable"),
        (None, "not applicable"),
    ],
)
def test_sharp_heads(how: Mechanism | None, verdict: str) -> None:
    for name in ("context parroting", "the seasonality bias"):
        found = claim(f"Sharp heads (low stable rank) carry {name}", mechanism=how)
        assert found.verdict == verdict


def median(name: str, draws: list[float]) -> MLPMedian:
    kind = {"b": "encoder-decoder", "t": "decoder-only", "m": "encoder-only"}[name[0]]
    column = np.array(draws)[:, None]
    return MLPMedian(name, kind, Resampled(column.mean(axis=0), column, 15, 99))  # type: ignore[arg-type]


LITTLE, MUCH = [0.01, 0.02, 0.03], [0.3, 0.4, 0.5]


@pytest.mark.parametrize(
    ("encoder_decoder", "decoder_only", "verdict"),
    [
        (LITTLE, MUCH, "confirmed"),
        (MUCH, LITTLE, "refuted"),
        (LITTLE, [0.3, 0.4, 0.0], "undecided"),
        # draw by draw the same difference: the spread that both share does not count
        ([0.0, 1.0, 2.0], [0.1, 1.1, 2.1], "confirmed"),
        ([0.0, 1.0, 2.0], [0.0, 1.0, 2.0], "undecided"),
    ],
)
def test_mlps(encoder_decoder: list[float], decoder_only: list[float], verdict: str) -> None:
    bolt, timesfm = median("b", encoder_decoder), median("t", decoder_only)
    assert mlp_claim([bolt, timesfm]).verdict == verdict
    assert mlp_claim([timesfm, bolt]).verdict == verdict


def test_mlps_need_a_model_of_each_kind() -> None:
    bolt, timesfm = median("b", LITTLE), median("t", MUCH)
    for medians in ([bolt], [timesfm], [bolt, bolt], []):
        assert mlp_claim(medians).verdict == "not applicable"


def test_an_encoder_only_model_is_shown_but_does_not_count() -> None:
    tolerant, other, needy = median("b", LITTLE), median("m", MUCH), median("t", MUCH)
    found = mlp_claim([tolerant, other, needy])
    assert found.verdict == "confirmed"
    assert "m +40.0 % [+30.3, +49.7] (encoder-only)" in found.evidence
    assert mlp_claim([tolerant, other]).verdict == "not applicable"


def test_every_model_of_a_kind_counts() -> None:
    tolerant, needy = median("b", LITTLE), median("t", MUCH)
    assert mlp_claim([tolerant, needy]).verdict == "confirmed"
    assert mlp_claim([tolerant, needy, median("b2", [0.6, 0.7, 0.8])]).verdict == "refuted"
    assert mlp_claim([tolerant, needy, median("b2", [0.3, 0.4, 0.8])]).verdict == "undecided"
