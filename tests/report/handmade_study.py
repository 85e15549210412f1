"""A study made by hand: plausible tables with random numbers, no model needed."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pandas as pd

from tsprune.anatomy import Component
from tsprune.pruning.plan import Plan
from tsprune.studies.study_result import TABLES, Claim, Example, ModelStudy, Study

CONFIGURATIONS = ("ett1/H/short", "m4_hourly/H/short", "hospital/M/short", "us_births/D/short")
LEVELS = tuple(round(0.1 * i, 1) for i in range(1, 10))
ENCODER_DECODER = (("encoder", ("self",)), ("decoder", ("self", "cross")))
SINGLE_STACK = (("stack", ("self",)),)


def _changes(rng: np.random.Generator, rows: int, size: float) -> dict[str, np.ndarray]:
    change = size * rng.lognormal(0, 1, rows) - 0.2 * size
    crps = change * rng.uniform(0.8, 1.3, rows)
    width = 0.3 * size * rng.uniform(0.5, 1.5, rows)
    return {
        "mase_change": change,
        "mase_low": change - width,
        "mase_high": change + 1.2 * width,
        "crps_change": crps,
        "crps_low": crps - width,
        "crps_high": crps + width,
        "spearman_distance": rng.uniform(0, 0.5, rows),
    }


def _corrected(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    return {f"{metric}_p_holm": rng.uniform(0, 0.2, rows) for metric in ("mase", "crps")}


def _baseline(rng: np.random.Generator) -> pd.DataFrame:
    n = len(CONFIGURATIONS)
    naive = {"MASE": rng.uniform(0.9, 2, n), "CRPS": rng.uniform(0.03, 0.3, n)}
    ratio = {metric: rng.uniform(0.5, 1.1, n) for metric in naive}
    return pd.DataFrame(
        {
            "configuration": CONFIGURATIONS,
            "windows": np.arange(20, 20 + n),
            **{metric: naive[metric] * ratio[metric] for metric in naive},
            **{f"seasonal_naive_{metric}": naive[metric] for metric in naive},
            **{f"{metric}_ratio": ratio[metric] for metric in naive},
        }
    )


def _layers(rng: np.random.Generator, stacks: tuple, layers: int) -> pd.DataFrame:
    rows = []
    for (stack, _), layer, unit in itertools.product(stacks, range(layers), ("heads", "mlp", "both")):
        edge = 30 if layer in (0, layers - 1) else 1
        one = {key: float(v[0]) for key, v in _changes(rng, 1, 0.01 * edge).items()}
        address = f"{stack}.{layer}.mlp" if unit == "mlp" else f"{stack}.{layer}"
        rows.append({"stack": stack, "layer": layer, "unit": unit, "address": address, **one})
    return pd.DataFrame(rows).assign(**_corrected(rng, len(rows)))


def _heads(rng: np.random.Generator, stacks: tuple, layers: int, heads: int) -> pd.DataFrame:
    places = [
        (stack, layer, kind, head)
        for stack, kinds in stacks
        for layer in range(layers)
        for kind in kinds
        for head in range(heads)
    ]
    table = pd.DataFrame(places, columns=["stack", "layer", "attention", "head"])
    table.insert(0, "address", [f"{s}.{la}.{k}.head.{h}" for s, la, k, h in places])
    table["stable_rank"] = rng.uniform(1, 16, len(places))
    table["stable_rank_effective"] = table["stable_rank"] * rng.uniform(0.7, 1.0, len(places))
    return table.assign(**_changes(rng, len(places), 0.004), **_corrected(rng, len(places)))


def _rho(rng: np.random.Generator) -> tuple[float, float, float]:
    rho = rng.uniform(-0.6, 0.2)
    return rho, rho - rng.uniform(0.1, 0.3), rho + rng.uniform(0.1, 0.3)


def _agreement(rng: np.random.Generator, stacks: tuple) -> pd.DataFrame:
    groups = ["all", *(f"{stack}.{kind}" for stack, kinds in stacks for kind in kinds)]
    rows = [
        (kind, group, score, metric, *_rho(rng), rng.uniform(0, 0.1), rng.uniform(0, 0.2), 30, -1)
        for kind, scores in (("head", ("stable_rank", "output_norm")), ("mlp", ("output_norm",)))
        for group in groups
        for score in scores
        for metric in ("MASE", "CRPS")
    ]
    columns = ["kind", "group", "score", "metric", "rho", "low", "high", "p_value", "p_holm", "count"]
    return pd.DataFrame(rows, columns=[*columns, "expected"])


def _svd(rng: np.random.Generator, stacks: tuple, heads: int) -> pd.DataFrame:
    rows = [(stack, kind, *_rho(rng), rng.uniform(0, 1), heads) for stack, kinds in stacks for kind in kinds]
    return pd.DataFrame(rows, columns=["stack", "attention", "rho", "low", "high", "p_value", "count"])


def _comparisons(rng: np.random.Generator) -> pd.DataFrame:
    pairs = (("random", "unpruned"), ("high-to-low", "random"), ("svd-low-to-high", "high-to-low"))
    rows = []
    for percent, metric, (strategy, versus) in itertools.product(
        (10, 20, 30, 40, 50), ("MASE", "CRPS"), pairs
    ):
        value = percent * float(rng.uniform(-0.001, 0.002))
        limits = (value - float(rng.uniform(0, 0.01)), value + float(rng.uniform(0, 0.01)))
        draws = 5 if "random" in (strategy, versus) else None
        beaten = 3 if versus == "random" else None
        p_holm = float("nan") if versus == "unpruned" else float(rng.uniform(0, 1))
        rows.append((percent, metric, strategy, versus, value, *limits, p_holm, draws, beaten))
    columns = ["percent", "metric", "strategy", "versus", "difference", "low", "high", "p_holm"]
    frame = pd.DataFrame(rows, columns=[*columns, "draws", "beaten"])
    return frame.astype({"draws": "Int64", "beaten": "Int64"})


def _mlps(layers: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for stack, part in layers[layers["unit"] == "mlp"].groupby("stack", sort=False):
        row: dict[str, object] = {"stack": stack, "count": len(part)}
        for metric in ("mase", "crps"):
            middle = part[f"{metric}_change"].median()
            row |= {f"{metric}_change": middle, f"{metric}_low": middle - 0.1, f"{metric}_high": middle + 0.1}
        rows.append(row)
    return pd.DataFrame(rows)


def _correlations(rng: np.random.Generator, stacks: tuple, heads: int) -> pd.DataFrame:
    rows = [
        (stack, kind, variant, metric, *_rho(rng), rng.uniform(0, 0.1), rng.uniform(0, 0.2), heads)
        for stack, kinds in stacks
        for kind in kinds
        for variant in ("paper", "effective")
        for metric in ("MASE", "CRPS")
    ]
    columns = ["stack", "attention", "variant", "metric", "correlation", "low", "high"]
    columns += ["p_value", "p_holm", "heads"]
    return pd.DataFrame(rows, columns=columns)


# strategy, size of its changes, draws
STRATEGIES = (
    ("high-to-low", 1, 1),
    ("low-to-high", 3, 1),
    ("svd-high-to-low", 2, 1),
    ("svd-low-to-high", 1, 1),
    ("random", 2, 5),
)
PRUNING_COLUMNS = ["percent", "strategy", "seed", "heads_removed", "heads_total"]


def _pruning(rng: np.random.Generator, total: int) -> pd.DataFrame:
    rows = []
    for percent in (10, 20, 30, 40, 50):
        for strategy, size, seeds in STRATEGIES:
            for seed in range(seeds):
                one = {key: float(v[0]) for key, v in _changes(rng, 1, 0.001 * percent * size).items()}
                keys = (percent, strategy, seed, round(total * percent / 100), total)
                rows.append(dict(zip(PRUNING_COLUMNS, keys, strict=True)) | one)
    return pd.DataFrame(rows)


def _heads_at(rng: np.random.Generator, stacks: tuple, layers: int, heads: int) -> pd.DataFrame:
    rows = []
    for stack, kinds in stacks:
        for layer, kind, selection in itertools.product(range(layers), kinds, ("test", "calibration")):
            stay = int(rng.integers(0, heads + 1))
            order = str(rng.choice(["high-to-low", "low-to-high"]))
            change = float(rng.uniform(0, 0.01))
            rows.append(
                (
                    stack,
                    layer,
                    kind,
                    heads,
                    selection,
                    order,
                    heads - stay,
                    stay,
                    change,
                    change - 0.01,
                    change + 0.01,
                )
            )
    columns = [
        "stack",
        "layer",
        "attention",
        "heads",
        "selection",
        "order",
        "removed",
        "heads_at",
        "score_change",
        "score_low",
        "score_high",
    ]
    return pd.DataFrame(rows, columns=columns)


def _removals(heads: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """Growing sets; the second is chosen."""
    mlps = layers.loc[layers["unit"] == "mlp", "address"].tolist()
    rows = []
    for step, saving in enumerate((0.05, 0.1, 0.2)):
        some = heads["address"].tolist()[: step + 1]
        row: dict[str, object] = {"saving": saving, "heads": len(some), "heads_total": len(heads)}
        row |= {"mlps": 1, "mlps_total": len(mlps), "calibration_loss": 0.01, "calibration_limit": 0.02}
        row |= {"components": " ".join([*some, mlps[-1]]), "spearman_distance": 0.1 * step}
        for metric in ("mase", "crps"):
            value = 0.05 * saving
            row |= {f"{metric}_change": value, f"{metric}_low": -0.01, f"{metric}_high": value + 0.0123}
        rows.append(row | {"chosen": step == 1})
    return pd.DataFrame(rows)


def _plan(name: str, family: str, removals: pd.DataFrame) -> Plan:
    (addresses,) = removals.loc[removals["chosen"], "components"]
    return Plan(name, family, tuple(Component.parse(one) for one in addresses.split()))


def _example(rng: np.random.Generator, configuration: str) -> Example:
    t = np.arange(300 + 48)
    series = 20 + 5 * np.sin(2 * np.pi * t / 24) + 0.02 * t + rng.normal(0, 0.6, len(t))
    spread = np.linspace(-1.3, 1.3, 9)[:, None] * np.linspace(0.8, 2, 48)
    before = series[300:] + rng.normal(0, 0.7, 48) + spread
    after = 0.6 * series[300:] + 9 + 1.7 * spread
    return Example(
        configuration,
        series[:300].astype(np.float32),
        series[300:].astype(np.float32),
        before.astype(np.float32),
        after.astype(np.float32),
        LEVELS,
        "50 % of the middle layers' heads, highest stable rank first, and the MLPs of layers 2 and 3",
    )


def make_model(
    name: str, *, stacks: tuple = SINGLE_STACK, layers: int = 6, heads: int = 8, seed: int = 0
) -> ModelStudy:
    """One model's tables; with fewer than three layers there is nothing to prune, as in a real study."""
    rng = np.random.default_rng(seed)
    pruning = _pruning(rng, 3 * heads)
    comparisons = _comparisons(rng)
    swept = _layers(rng, stacks, layers)
    model = ModelStudy(
        name=name,
        family="chronos_bolt" if len(stacks) > 1 else "timesfm",
        architecture="encoder-decoder" if len(stacks) > 1 else "decoder-only",
        parameters=int(rng.integers(1_000_000, 3_000_000)),
        sha256=rng.bytes(32).hex(),
        baseline=_baseline(rng),
        mase_ratio=float(rng.uniform(0.7, 1)),
        crps_ratio=float(rng.uniform(0.6, 1)),
        layers=swept,
        heads=_heads(rng, stacks, layers, heads),
        rank_correlation=_correlations(rng, stacks, layers * heads),
        pruning=pruning if layers > 2 else pruning.iloc[:0],
        heads_at=_heads_at(rng, stacks, layers, heads),
        examples=tuple(_example(rng, name) for name in CONFIGURATIONS),
        seconds=float(rng.uniform(30, 300)),
        mase_interval=(0.61, 1.21),
        crps_interval=(0.51, 1.11),
        mlps=_mlps(swept),
        comparisons=comparisons if layers > 2 else comparisons.iloc[:0],
        agreement=_agreement(rng, stacks),
        svd_correlation=_svd(rng, stacks, layers * heads),
        score_windows=61,
    )
    removed = _removals(model.heads, swept)
    model = dataclasses.replace(model, removals=removed, plan=_plan(name, model.family, removed))
    tables = {key: schema.checked(getattr(model, key)) for key, schema in TABLES.items() if key != "baseline"}
    return dataclasses.replace(model, **tables)


def make_study(*models: ModelStudy, skipped: tuple[tuple[str, str], ...] = ()) -> Study:
    """A study of `models` with three claims about each and one about all."""
    claims = [Claim("all", "Stable-rank pruning beats random.", "confirmed", "True for every model.")]
    for index, model in enumerate(models):
        claims += [
            Claim(
                model.name,
                f"Middle layers tolerate ablation ({index}).",
                "confirmed",
                "28 % of heads: +4.1 %.",
            ),
            Claim(
                model.name,
                f"First and last layers do not ({index}).",
                "refuted",
                "First layer: +12.0 % MASE.",
            ),
            Claim(
                model.name,
                f"MLPs are needed ({index}).",
                "not applicable",
                "It has a decoder and an encoder.",
            ),
        ]
    manifest = {"tsprune": "0.1.0", "torch": "2.13.0", "seeds": [0, 1, 2], "arguments": {"windows": 64}}
    return Study(
        "pocket", sum(range(20, 20 + len(CONFIGURATIONS))), 0.01, models, tuple(claims), skipped, manifest
    )
