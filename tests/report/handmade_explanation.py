"""An explanation made by hand: plausible tables with random numbers, no model needed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from handmade_study import ENCODER_DECODER, SINGLE_STACK, _example

from tsprune.explain import Explanation, Glance, Portrait
from tsprune.explain.carriers import carriers
from tsprune.explain.overview import EXPLANATION_TABLES

EFFECTS = ("mase", "parroting", "seasonality", "mean_reversion")
SPAN, POSITIONS = 16, 12


def _with_interval(name: str, values: np.ndarray, half: float) -> dict[str, np.ndarray]:
    return {name: values, f"{name}_low": values - half, f"{name}_high": values + half}


def _heads(rng: np.random.Generator, stacks: tuple, layers: int, heads: int) -> pd.DataFrame:
    places = [
        (s, la, k, h) for s, kinds in stacks for la in range(layers) for k in kinds for h in range(heads)
    ]
    table = pd.DataFrame(places, columns=["stack", "layer", "attention", "head"])
    table.insert(0, "address", [f"{s}.{la}.{k}.head.{h}" for s, la, k, h in places])
    for name in (
        "sharpness",
        "diagonal",
        "diagonal_uniform",
        "period_share",
        "period_share_uniform",
        "untimed",
    ):
        table = table.assign(**_with_interval(name, rng.uniform(0, 1, len(table)), 0.02))
    for name, low, high in (
        ("effective_keys", 1, 12),
        ("lag", 0, 90),
        ("entropy", 0, 2),
        ("lag_spread", 0, 90),
    ):
        table = table.assign(**_with_interval(name, rng.uniform(low, high, len(table)), 0.5), windows=60)
    table = table.assign(stable_rank=rng.uniform(1, 8, len(table)), stable_rank_effective=2.0, size=0.01)
    table = table.assign(
        followed_score=rng.normal(0, 0.1, len(table)), followed_sure=rng.uniform(0, 1, len(table))
    )
    for name in EFFECTS:
        table = table.assign(**_with_interval(name, rng.normal(0, 0.1, len(table)), 0.05))
        table = table.assign(**{f"{name}_p_holm": 0.04})
    return table


def _effects(rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for percent in (10, 30, 50):
        for effect in EFFECTS:
            for which, size in (("sharp", -3), ("diffuse", -0.5), ("random", -1)):
                mean = 0.001 * percent * size * rng.uniform(0.8, 1.2)
                row = {"percent": percent, "which": which, "heads": percent, "effect": effect, "mean": mean}
                row |= {"low": mean - 0.02, "high": mean + 0.02, "units": 30}
                if which == "random":
                    row |= {"draw_low": mean - 0.01, "draw_high": mean + 0.01}
                else:
                    row |= {"excess": mean + 0.001 * percent, "excess_low": mean, "excess_high": mean + 0.1}
                rows.append(row)
    return pd.DataFrame(rows)


def _layers(rng: np.random.Generator, stacks: tuple, layers: int, names: tuple[str, ...]) -> pd.DataFrame:
    parts = []
    for stack, _ in stacks:
        table = pd.DataFrame({"stack": stack, "layer": range(-1, layers)})
        for name in names:
            table = table.assign(**_with_interval(name, rng.uniform(0.1, 1, len(table)), 0.05))
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def _cka(rng: np.random.Generator, stacks: tuple, layers: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"stack": stack, "a": a, "b": b, "cka": rng.uniform(), "low": 0.1, "high": 0.9, "null": 0.05}
        for stack, _ in stacks
        for a in range(-1, layers)
        for b in range(a + 1, layers)
    )


def _attribution(rng: np.random.Generator, stacks: tuple, layers: int, heads: int) -> pd.DataFrame:
    """Of the last stack, which wrote all of it, and then of the one before, from which half was fetched."""
    tables = []
    for place, (stack, kinds) in enumerate(reversed(stacks)):
        parts = [("embedding" if place == 0 else f"{stack}.embedding", "embedding", -1)]
        for layer in range(layers):
            parts += [(f"{stack}.{layer}.{k}.head.{h}", "head", layer) for k in kinds for h in range(heads)]
            parts.append((f"{stack}.{layer}.mlp", "mlp", layer))
        table = pd.DataFrame(parts, columns=["part", "kind", "layer"]).assign(stack=stack)
        share = rng.dirichlet(np.ones(len(parts))) / (1 + place)
        tables.append(table.assign(share=share, low=share - 0.01, high=share + 0.01, size=share))
    return pd.concat(tables, ignore_index=True)


def _induction(rng: np.random.Generator, addresses: pd.Series) -> pd.DataFrame:
    rows = pd.DataFrame(
        {"address": address, "block": block, "steps": block * SPAN, "repeats": repeats}
        for block in (3, 5)
        for repeats in (2, 3)
        for address in addresses
    )
    for name in ("occurrence", "followed"):
        rows = rows.assign(**dict.fromkeys((name, f"{name}_control", f"{name}_uniform"), 0.1))
    rows = rows.assign(**_with_interval("occurrence_score", rng.normal(0, 0.1, len(rows)), 0.02))
    return rows.assign(**_with_interval("followed_score", rng.normal(0, 0.1, len(rows)), 0.02))


def _chaos(rng: np.random.Generator, model: str) -> pd.DataFrame:
    rows = []
    for forecaster in (model, "parrot (motif of 10)"):
        for measure in ("error", "excess_parroting", "seasonality_bias", "excess_mean_reversion"):
            mean = float(rng.normal())
            row = {"forecaster": forecaster, "measure": measure, "mean": mean, "low": mean - 0.1}
            row |= {"high": mean + 0.1, "systems": 24, "difference": np.nan if forecaster == model else 0.5}
            rows.append(row | {"difference_low": 0.4, "difference_high": 0.6})
    return pd.DataFrame(rows)


def _portrait(rng: np.random.Generator, address: str, reason: str) -> Portrait:
    weights = rng.dirichlet(np.ones(POSITIONS + 1), POSITIONS + 1).astype(np.float32)
    times = np.append(np.arange(-POSITIONS + 1, 1) * SPAN, np.nan).astype(np.float32)
    series = np.sin(np.arange(POSITIONS * SPAN) / 5).astype(np.float32)
    glance = Glance("ett1/H/short", series, weights, times, times, SPAN, 31.4)
    return Portrait(address, (reason,), glance, tuple(_example(rng, f"c{i}/H/short") for i in range(3)))


def make_explanation(
    model: str = "bolt-pocket",
    *,
    stacks: tuple = ENCODER_DECODER,
    layers: int = 3,
    heads: int = 4,
    seed: int = 0,
) -> Explanation:
    rng = np.random.default_rng(seed)
    table = _heads(rng, stacks, layers, heads)
    chosen = [str(table["address"].iloc[i]) for i in (0, -1)]
    lags = np.arange(-POSITIONS, POSITIONS) * SPAN
    profile = pd.DataFrame(
        {"address": address, "lag": lag, "mass": rng.uniform(), "uniform": 1 / len(lags)}
        for address in chosen
        for lag in lags
    )
    claims = ("sharp heads carry parroting", "sharp heads carry seasonality", "diffuse heads can go")
    mechanism = pd.DataFrame(
        [
            [model, c, f"statement {n}", -0.1, -0.2, -0.05, 30, "confirmed", 0.01, 1.0, "p = 0.01"]
            for c in claims
            for n in (1, 2)
        ],
        columns=list(EXPLANATION_TABLES["mechanism"].names),
    )
    rho = {"rho": 0.3, "low": 0.1, "high": 0.5, "p_value": 0.01, "count": len(table)}
    stack, _ = stacks[-1]
    linked = [{"target": "followed", "block": b, "repeats": r} | rho for b in (3, 5) for r in (2, 3)]
    made = Explanation(
        carriers=carriers(table),
        heads=table,
        attention=table[[name for name in EXPLANATION_TABLES["attention"].names if name in table]],
        profile=profile,
        kernel=pd.DataFrame([{"group": "all", "bandwidth": "lag_spread", "score": "stable_rank"} | rho]),
        induction=_induction(rng, table["address"]),
        residual=_layers(rng, stacks, layers, ("norm", "update", "cosine")),
        cka=_cka(rng, stacks, layers),
        lens=_layers(rng, stacks[-1:], layers, ("distance", "spread")),
        guard=pd.DataFrame(
            {"stack": stack, "layer": range(layers), "itself": 0.0, "other": rng.uniform(0.1, 0.9, layers)}
        ),
        attribution=_attribution(rng, stacks, layers, heads),
        effects=_effects(rng),
        by_share=pd.DataFrame(
            [
                {
                    "model": model,
                    "percent": 10,
                    "trait": "parroting",
                    "excess": -0.1,
                    "sharp": -0.2,
                    "diffuse": -0.1,
                    "low": -0.2,
                    "high": 0.0,
                }
            ]
        ),
        induction_effects=pd.DataFrame(
            [{"target": "followed", "block": np.nan, "repeats": np.nan} | rho, *linked]
        ),
        clean=pd.DataFrame(
            [{"trait": t, "excess": 0.123, "low": 0.1, "high": 0.15, "units": 30} for t in EFFECTS[1:]]
        ),
        mechanism=mechanism,
        correlations=pd.DataFrame([{"measure": "size", "outcome": "mase"} | rho]),
        chaos=_chaos(rng, model),
        chaos_mechanism=mechanism.assign(units=24),
        portraits=tuple(
            _portrait(rng, a, r) for a, r in zip(chosen, ("the sharpest", "the most diffuse"), strict=True)
        ),
        model=model,
        suite="pocket",
        windows=60,
        forecast_windows=60,
        draws=3,
        samples=None,
        skipped=(("induction", "too short a context"),),
    )
    tables = {name: schema.checked(getattr(made, name)) for name, schema in EXPLANATION_TABLES.items()}
    return dataclasses.replace(made, **tables)


def make_single_stack(model: str = "timesfm-pocket", seed: int = 1) -> Explanation:
    """Of a model with one stack."""
    return make_explanation(model, stacks=SINGLE_STACK, layers=4, heads=2, seed=seed)
