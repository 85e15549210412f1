"""The paper's claims at their limits, with tables made by hand."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from tsprune.study.claims import Headline, end_layers, mlp_claim, model_claims
from tsprune.study.mechanism import Interval, Mechanism
from tsprune.study.result import Claim, ModelStudy
from tsprune.sweep import Change

NOTHING = pd.DataFrame()
COLUMNS = ["percent", "strategy", "seed", "heads_removed", "heads_total"]
COLUMNS += ["mase_change", "crps_change", "spearman_distance"]


def layers(changes: dict[str, float], stack: str = "stack", unit: str = "both") -> pd.DataFrame:
    """Rows of the layer table: layer -> change."""
    rows = [
        {"stack": stack, "layer": int(layer), "unit": unit, "mase_change": change}
        for layer, change in changes.items()
    ]
    return pd.DataFrame(rows)


ENDS = layers({"0": 0.3, "1": 0.0, "2": 0.3})


def pruning(high: float, low: float, drawn: list[float], percent: int = 30) -> pd.DataFrame:
    rows = [(percent, "high-to-low", None, high), (percent, "low-to-high", None, low)]
    rows += [(percent, "random", seed, change) for seed, change in enumerate(drawn)]
    return pd.DataFrame(
        [(p, s, seed, 3, 10, change, change, 0.1) for p, s, seed, change in rows], columns=COLUMNS
    )


def model_study(**tables: object) -> ModelStudy:
    blank: dict[str, object] = {field.name: NOTHING for field in dataclasses.fields(ModelStudy)}
    blank |= {"name": "m", "layers": ENDS, "pruning": pd.DataFrame(columns=COLUMNS), "examples": ()}
    return ModelStudy(**(blank | tables))  # type: ignore[arg-type]


def headline(mase: float | None) -> Headline:
    change = None if mase is None else Change(mase, 0.01, 0.1)
    return Headline(28, 100, ("stack.3.mlp", "stack.4.mlp"), change)


def claim(start: str, study: ModelStudy, mase: float | None = 0.0, how: Mechanism | None = None) -> Claim:
    found = [c for c in model_claims(study, headline(mase), how) if c.statement.startswith(start)]
    assert len(found) == 1
    return found[0]


def test_every_model_gets_seven_different_claims() -> None:
    claims = model_claims(model_study(), headline(None), None)
    assert len({c.statement for c in claims}) == len(claims) == 7
    assert {c.model for c in claims} == {"m"}


@pytest.mark.parametrize(
    ("mase", "verdict"),
    [(0.06, "confirmed"), (0.0601, "refuted"), (-0.1, "confirmed"), (None, "not applicable")],
)
def test_middle_layers(mase: float | None, verdict: str) -> None:
    found = claim("Middle layers", model_study(), mase)
    assert found.verdict == verdict
    if mase == 0.0601:
        assert "28 of 100 heads" in found.evidence
        assert "stack.3.mlp and stack.4.mlp" in found.evidence
        assert "MASE +6.0 %" in found.evidence


@pytest.mark.parametrize(
    ("first", "last", "verdict"),
    [(0.26, 0.26, "confirmed"), (0.25, 0.9, "refuted"), (0.9, 0.25, "refuted"), (0.251, 9.0, "confirmed")],
)
def test_first_and_last_layers(first: float, last: float, verdict: str) -> None:
    table = layers({"0": first, "1": 0.0, "2": last})
    # heads or MLP alone do not count
    table = pd.concat([table, layers({"0": 0.0, "2": 0.0}, unit="heads")])
    assert claim("First and last", model_study(layers=table)).verdict == verdict


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
    ("high", "drawn", "published", "better"),
    [
        (0.05, [0.21, 0.22], "confirmed", "confirmed"),
        (0.06, [0.21, 0.22], "refuted", "confirmed"),  # the paper says less than 6 %
        (0.05, [0.10, 0.30], "refuted", "confirmed"),  # a mean of exactly 20 % is not more than 20 %
        (0.05, [0.05, 0.60], "confirmed", "refuted"),  # a draw that is as good is not beaten
        (0.30, [0.21, 0.22], "refuted", "refuted"),
    ],
)
def test_stable_rank_against_random(high: float, drawn: list[float], published: str, better: str) -> None:
    table = pd.concat([pruning(high, 1.0, drawn), pruning(9.0, 0.0, [0.0], percent=10)])
    study = model_study(pruning=table)
    assert claim("Stable-rank pruning costs", study).verdict == published
    assert claim("Stable-rank pruning (highest first) beats", study).verdict == better


@pytest.mark.parametrize(("low", "verdict"), [(0.06, "confirmed"), (0.05, "refuted"), (0.01, "refuted")])
def test_diffuse_heads_can_go(low: float, verdict: str) -> None:
    assert claim("Diffuse heads", model_study(pruning=pruning(0.05, low, [0.1]))).verdict == verdict


@pytest.mark.parametrize(
    "table", [pd.DataFrame(columns=COLUMNS), pruning(0, 0, [0], percent=50)], ids=["empty", "other shares"]
)
def test_pruning_claims_need_heads(table: pd.DataFrame) -> None:
    for start in ("Stable-rank pruning costs", "Stable-rank pruning (highest", "Diffuse heads"):
        assert claim(start, model_study(pruning=table)).verdict == "not applicable"


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
        (mechanism(-0.3, 0.0), "inconclusive"),
        (mechanism(0.0, 0.3), "inconclusive"),
        (mechanism(-0.3, 0.3), "inconclusive"),
        (mechanism(-0.3, -0.1, count=1), "not applicable"),
        (None, "not applicable"),
    ],
)
def test_sharp_heads(how: Mechanism | None, verdict: str) -> None:
    for name in ("context parroting", "the seasonality bias"):
        found = claim(f"Sharp heads (low stable rank) carry {name}", model_study(), how=how)
        assert found.verdict == verdict


def of_kind(name: str, stacks: list[str], changes: list[float]) -> ModelStudy:
    tables = [layers({str(i): change for i, change in enumerate(changes)}, stack, "mlp") for stack in stacks]
    # the whole layers say the contrary: only the MLPs count
    tables.append(layers({str(i): 1 - change for i, change in enumerate(changes)}, stacks[0]))
    kind = "encoder-decoder" if "decoder" in stacks else "encoder-only" if name == "m" else "decoder-only"
    return model_study(name=name, layers=pd.concat(tables), architecture=kind)


@pytest.mark.parametrize(
    ("encoder_decoder", "decoder_only", "verdict"),
    [
        ([0.01, 0.02, 0.9], [0.0, 0.3, 0.9], "confirmed"),
        ([0.01, 0.3, 0.9], [0.0, 0.3, 0.9], "refuted"),  # medians equal
        ([0.01, 0.4, 0.9], [0.0, 0.3, 0.9], "refuted"),
    ],
)
def test_mlps(encoder_decoder: list[float], decoder_only: list[float], verdict: str) -> None:
    bolt = of_kind("bolt", ["encoder", "decoder"], encoder_decoder)
    timesfm = of_kind("timesfm", ["stack"], decoder_only)
    assert mlp_claim([bolt, timesfm]).verdict == verdict
    assert mlp_claim([timesfm, bolt]).verdict == verdict


def test_mlps_need_a_model_of_each_kind() -> None:
    bolt, timesfm = of_kind("b", ["encoder", "decoder"], [0.1]), of_kind("t", ["stack"], [0.1])
    for studies in ([bolt], [timesfm], [bolt, bolt], []):
        assert mlp_claim(studies).verdict == "not applicable"


def test_an_encoder_only_model_is_shown_but_does_not_count() -> None:
    tolerant, needy = of_kind("b", ["encoder", "decoder"], [0.1]), of_kind("t", ["stack"], [0.5])
    other = of_kind("m", ["stack"], [0.01])
    claim = mlp_claim([tolerant, other, needy])
    assert claim.verdict == "confirmed"
    assert "m +1.0 % (encoder-only)" in claim.evidence
    assert mlp_claim([tolerant, other]).verdict == "not applicable"


def test_every_model_of_a_kind_counts() -> None:
    tolerant, needy = of_kind("b", ["encoder", "decoder"], [0.1]), of_kind("t", ["stack"], [0.5])
    spoiler = of_kind("b2", ["encoder", "decoder"], [0.6])
    assert mlp_claim([tolerant, needy]).verdict == "confirmed"
    assert mlp_claim([tolerant, spoiler, needy]).verdict == "refuted"
