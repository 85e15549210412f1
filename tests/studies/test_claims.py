"""The paper's claims on measurements made by hand: levels as well as differences."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from tsprune.explain.mechanism_claims import MECHANISM, PREDICTS
from tsprune.statistics import Sample
from tsprune.studies.claims import Findings, Headline, MLPMedian, Pruned, end_layers, mlp_claim, model_claims
from tsprune.studies.study_result import Claim

UNITS = 15
UNSURE = 0.5  # spread of log ratios at which nothing of a few per cent is decided


def costing(change: float, spread: float = 0.005) -> Sample:
    """A relative change with about the same value on every configuration."""
    return Sample.of(np.log1p(change) + spread * np.linspace(-1, 1, UNITS), logarithmic=True)


def at_random(change: float, spread: float = 0.005) -> Sample:
    """Three random draws."""
    draws = np.array([-spread, 0.0, spread])[:, None, None]
    return dataclasses.replace(costing(change, spread), values=costing(change, spread).values + draws)


def layers(changes: dict[str, float], stack: str = "stack", unit: str = "both") -> pd.DataFrame:
    """Rows of the layer table: layer -> change."""
    rows = [
        {"stack": stack, "layer": int(layer), "unit": unit, "mase_change": change}
        for layer, change in changes.items()
    ]
    return pd.DataFrame(rows)


NOTHING = Findings(Headline(28, 100, (), None, None), {"stack.0": costing(0.35)}, None, pd.DataFrame())


def claim(start: str, **found: object) -> Claim:
    claims = model_claims("m", dataclasses.replace(NOTHING, **found))  # type: ignore[arg-type]
    (one,) = [c for c in claims if c.statement.startswith(start)]
    return one


def test_every_model_gets_nine_different_claims() -> None:
    claims = model_claims("m", NOTHING)
    assert len({c.statement for c in claims}) == len(claims) == 9
    assert {c.verdict for c in claims[5:]} == {"not applicable"}  # heads were not ablated in sets
    assert {c.model for c in claims} == {"m"}


@pytest.mark.parametrize(
    ("sample", "verdict"),
    [
        (costing(0.03), "confirmed"),
        (costing(-0.1), "confirmed"),
        (costing(0.059, UNSURE), "undecided"),  # although the change itself is within the limit
        (costing(0.08), "refuted"),
        (Sample.of([0.01], logarithmic=True), "undecided"),  # one configuration of one series
    ],
)
def test_middle_layers(sample: Sample, verdict: str) -> None:
    headline = Headline(28, 100, ("stack.3.mlp", "stack.4.mlp"), sample, costing(0.015))
    found = claim("Middle layers", headline=headline)
    assert found.verdict == verdict
    assert "28 of 100 heads" in found.evidence
    assert "stack.3.mlp and stack.4.mlp" in found.evidence
    assert f"MASE {sample.estimate().as_percent()}, CRPS +1.5 % [" in found.evidence
    if verdict != "undecided":
        assert (found.low, found.high) == (sample.estimate().low, sample.estimate().high)


def test_middle_layers_that_are_too_few() -> None:
    assert claim("Middle layers").verdict == "not applicable"


@pytest.mark.parametrize(
    ("first", "last", "verdict"),
    [
        (costing(0.3), costing(3.0), "confirmed"),
        (costing(0.26, UNSURE), costing(3.0), "undecided"),
        (costing(0.3), costing(0.24, UNSURE), "undecided"),
        (costing(0.2), costing(3.0), "refuted"),
        (costing(0.2), costing(0.2), "refuted"),
    ],
)
def test_first_and_last_layers(first: Sample, last: Sample, verdict: str) -> None:
    found = claim("First and last", ends={"stack.0": first, "stack.2": last})
    assert found.verdict == verdict
    for address, sample in (("stack.0", first), ("stack.2", last)):
        assert f"{address} {sample.estimate().as_percent()}" in found.evidence


def test_ends_are_those_of_every_stack() -> None:
    both = pd.concat([layers({"0": 1, "1": 1, "2": 1}, "encoder"), layers({"0": 1, "1": 1}, "decoder")])
    ends = end_layers(both)
    assert list(zip(ends["stack"], ends["layer"], strict=True)) == [
        ("encoder", 0),
        ("encoder", 2),
        ("decoder", 0),
        ("decoder", 1),
    ]


@pytest.mark.parametrize(
    ("high", "random", "verdict"),
    [
        (costing(0.03), at_random(0.25), "confirmed"),
        (costing(0.059, UNSURE), at_random(0.25), "undecided"),
        (costing(0.03), at_random(0.21, UNSURE), "undecided"),
        (costing(0.03), at_random(0.15), "refuted"),
        (costing(0.08), at_random(0.21, UNSURE), "refuted"),
    ],
)
def test_the_published_costs_of_pruning(high: Sample, random: Sample, verdict: str) -> None:
    found = claim("Stable-rank pruning costs", pruned=Pruned(high, costing(0.5), random))
    assert found.verdict == verdict
    assert f"MASE {high.estimate().as_percent()} by stable rank, " in found.evidence


@pytest.mark.parametrize(
    ("high", "random", "verdict"),
    [
        (costing(0.1), at_random(0.2), "confirmed"),
        (costing(0.1, UNSURE), at_random(0.1), "undecided"),
        (costing(0.2), at_random(0.1), "refuted"),
    ],
)
def test_a_difference_decides_about_random_pruning(high: Sample, random: Sample, verdict: str) -> None:
    found = claim("Stable-rank pruning (highest", pruned=Pruned(high, costing(0.5), random))
    assert found.verdict == verdict
    assert found.value == pytest.approx((1 + high.estimate().value) / (1 + random.estimate().value) - 1)
    assert "of 3 draws" in found.evidence


@pytest.mark.parametrize(
    ("high", "low", "verdict"),
    [
        (0.02, 0.5, "confirmed"),
        (0.02, 0.04, "refuted"),  # cheaper, but the others can go as well
        (0.8, 1.5, "refuted"),  # cheaper, but neither can go
        (0.5, 0.02, "refuted"),
    ],
)
def test_diffuse_heads_can_go_and_sharp_ones_cannot(high: float, low: float, verdict: str) -> None:
    found = claim("At 30 %", pruned=Pruned(costing(high), costing(low), at_random(0.3)))
    assert found.verdict == verdict


def test_pruning_claims_need_heads() -> None:
    for start in ("Stable-rank pruning costs", "Stable-rank pruning (highest", "At 30 %"):
        assert claim(start, pruned=None).verdict == "not applicable"


def test_the_claims_of_a_model_are_one_family() -> None:
    """A p-value that decides alone may not decide beside others; the evidence states the corrected one."""
    spread = 0.03
    close = Sample.of(np.log1p(0.06) - 0.6 * spread + spread * np.linspace(-1, 1, UNITS), logarithmic=True)
    headline = Headline(28, 100, ("a", "b"), close, close)
    alone = dataclasses.replace(
        NOTHING, ends={"stack.0": Sample.of([0.0], logarithmic=True)}, headline=headline
    )
    first = model_claims("m", alone)[0]
    beside = Pruned(costing(0.1, UNSURE), costing(0.1, UNSURE), at_random(0.1, UNSURE))
    second = model_claims("m", dataclasses.replace(alone, pruned=beside))[0]
    assert second.p_holm > first.p_holm
    for found in (first, second):
        assert (found.verdict == "confirmed") == (found.p_holm <= 0.05)
        assert "Holm-corrected p" in found.evidence


def mechanism(verdict: str, p: float) -> pd.DataFrame:
    rows = [
        ["m", "sharp heads carry parroting", f"statement {n}", -0.1, -0.2, -0.05, 15, verdict, p, 1.0, "note"]
        for n in (1, 2)
    ]
    rows.append(["m", PREDICTS, "rho", -0.5, -0.8, -0.1, 32, "confirmed", 0.01, 1.0, "note"])
    return pd.DataFrame(rows, columns=list(MECHANISM.names))


@pytest.mark.parametrize(
    ("verdict", "p", "expected"),
    [
        ("confirmed", 0.01, "confirmed"),
        ("undecided", 0.5, "undecided"),
        ("undecided", np.nan, "not applicable"),
    ],
)
def test_the_mechanism_is_quoted(verdict: str, p: float, expected: str) -> None:
    claims = model_claims("m", dataclasses.replace(NOTHING, mechanism=mechanism(verdict, p)))
    parroting, predicts = claims[5:]
    assert parroting.statement == "Sharp heads carry parroting."
    assert parroting.verdict == expected
    assert "statement 2" in parroting.evidence
    assert predicts.verdict == "confirmed"
    assert "32 heads" in predicts.evidence


def median(name: str, change: float, spread: float = 0.005) -> MLPMedian:
    kind = {"b": "encoder-decoder", "t": "decoder-only", "m": "encoder-only"}[name[0]]
    return MLPMedian(name, kind, costing(change, spread))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("encoder_decoder", "decoder_only", "verdict"),
    [
        (median("b", 0.02), median("t", 0.4), "confirmed"),
        (median("b", 0.4), median("t", 0.02), "refuted"),
        (median("b", 0.5), median("t", 0.8), "refuted"),  # less, but not tolerated
        (median("b", 0.01), median("t", 0.03), "refuted"),  # more, but not needed
        (median("b", 0.02), median("t", 0.15, UNSURE), "undecided"),
    ],
)
def test_mlps(encoder_decoder: MLPMedian, decoder_only: MLPMedian, verdict: str) -> None:
    assert mlp_claim([encoder_decoder, decoder_only]).verdict == verdict
    assert mlp_claim([decoder_only, encoder_decoder]).verdict == verdict


def test_mlps_need_a_model_of_each_kind() -> None:
    bolt, timesfm = median("b", 0.02), median("t", 0.4)
    for medians in ([bolt], [timesfm], [bolt, bolt], []):
        assert mlp_claim(medians).verdict == "not applicable"
