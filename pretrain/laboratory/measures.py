"""What is measured of a trained model, as long-form rows: suite, measure, unit, metric, value.

1. score, trait : of the unablated model, by configuration, and over all of them ("" as unit)
2. layer, attention, mlp, head : each ablated alone; heads also with their sharpness and stable rank
3. set : many together: all middle heads or MLPs, 30 % of the middle heads by stable rank and at random, the
   paper's 28 % of the heads and two MLPs
4. heads_at : heads@1pp of every attention sublayer
5. greedy : layers removed one after the other, each time the one that costs least on the calibration half;
   what is reported is measured on the other half
6. redundancy : the two indices that follow

Changes are relative: 0.06 is 6 % worse. Everything goes through the public functions of tsprune.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

import tsprune
from pretrain.laboratory.windows import Windows, every_window
from tsprune.anatomy import Component
from tsprune.data import Suite, split
from tsprune.evaluation import geometric_mean_ratios
from tsprune.explain import attention, forecast_traits, parroting
from tsprune.hooks.ablation import Ablation
from tsprune.models import Forecaster
from tsprune.pruning.strategies import middle_heads, random_draws, remove_ranked
from tsprune.sweeps.engine import run
from tsprune.sweeps.sweep_result import CLEAN, SweepResult

VERSION = 1  # of what is measured; another one is measured again
COLUMNS = ("suite", "measure", "unit", "metric", "value")

TOLERATED = 0.05  # a layer that costs less is redundant
_HEADS, _PAPER_HEADS, _PAPER_MLPS = 0.30, 0.28, 2  # shares of the middle heads, of all heads; MLPs
_DRAWS = 10
_TRAITS = ("parroting", "excess_parroting", "seasonality", "seasonality_bias", "mean_reversion")

Row = tuple[str, str, str, str, float]
Sets = Mapping[str, Ablation]


def measure(
    model: Forecaster, windows: Windows | None = None, say: Callable[[str], None] = lambda line: None
) -> pd.DataFrame:
    """Everything that is measured of a model; columns `COLUMNS`.

    say : called with the name of what is measured next
    """
    windows = windows or every_window()
    rows: list[Row] = []
    say("scores and traits")
    for suite in windows.suites():
        rows += [*scores(model, suite), *traits(model, suite)]
    say("layers, attention sublayers and MLPs")
    alone = components(model, windows.whole)
    rows += alone
    for suite in windows.layers:
        rows += components(model, suite, kinds=("layer",))
    say("heads")
    rows += heads(model, windows.sample)
    say("sets")
    rows += sets(model, windows.whole)
    say("heads@1pp")
    rows += heads_at(model, windows.sample)
    say("layers in the best order")
    curve = greedy(model, windows.whole, windows.sample)
    rows += [*curve, *redundancy(alone, curve)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def scores(model: Forecaster, suite: Suite) -> list[Row]:
    """MASE and CRPS relative to Seasonal Naive, of each configuration and the geometric means."""
    table = tsprune.evaluate(model, suite)
    rows = [
        (suite.name, "score", str(name), metric, float(value))
        for metric in ("MASE", "CRPS")
        for name, value in zip(table["configuration"], table[f"{metric}_ratio"], strict=True)
    ]
    return rows + [(suite.name, "score", "", name, x) for name, x in geometric_mean_ratios(table).items()]


def traits(model: Forecaster, suite: Suite) -> list[Row]:
    """Traits of the forecasts, means over the windows of each configuration and over configurations."""
    frame = forecast_traits(model, suite).groupby("configuration")[list(_TRAITS)].mean()
    rows = [
        (suite.name, "trait", str(name), trait, float(value))
        for trait in _TRAITS
        for name, value in frame[trait].items()
    ]
    return rows + [(suite.name, "trait", "", trait, float(frame[trait].mean())) for trait in _TRAITS]


def components(
    model: Forecaster, suite: Suite, kinds: Sequence[str] = ("layer", "attention", "mlp")
) -> list[Row]:
    """Each layer, attention sublayer and MLP ablated alone."""
    chosen = {c.address: Ablation((c,)) for c in model.anatomy.components() if c.kind in kinds}
    measured = run(model, suite, list(chosen.values()))
    return [
        row
        for address, ablation in chosen.items()
        for row in _changes(suite, _kind(ablation), address, measured, ablation)
    ]


def _kind(ablation: Ablation) -> str:
    return ablation.components[0].kind


def _changes(suite: Suite, measure: str, unit: str, measured: SweepResult, ablation: Ablation) -> list[Row]:
    change = measured.change(ablation)
    values = {"MASE": change["MASE"], "CRPS": change["CRPS"], "spearman": change.spearman}
    return [(suite.name, measure, unit, metric, value) for metric, value in values.items()]


def heads(model: Forecaster, suite: Suite) -> list[Row]:
    """Each head ablated alone: scores, and how much less its forecasts parrot; sharpness, stable rank."""
    chosen = {c.address: Ablation((c,)) for c in model.anatomy.components("head")}
    measured = run(model, suite, list(chosen.values()), keep=[CLEAN, *chosen.values()])
    copying = _parroting(measured, suite, [CLEAN, *chosen.values()], model.context_length)
    sharp = attention(model, suite).heads.set_index("address")["sharpness"]
    ranks = tsprune.rank(model, by="stable_rank").set_index("address")["score"]
    rows: list[Row] = []
    for address, ablation in chosen.items():
        rows += _changes(suite, "head", address, measured, ablation)
        extra = {
            "parroting": copying[ablation] - copying[CLEAN],
            "sharpness": float(sharp[address]),
            "stable_rank": float(ranks[address]),
        }
        rows += [(suite.name, "head", address, metric, value) for metric, value in extra.items()]
    return rows


def _parroting(
    measured: SweepResult, suite: Suite, ablations: Sequence[Ablation], cut: int
) -> dict[Ablation, float]:
    """Mean parroting of the forecasts under each ablation, over all windows that have one."""
    found: dict[Ablation, list[float]] = {ablation: [] for ablation in ablations}
    for c in suite.configurations:
        for place, row in enumerate(measured.rows[c.name]):
            context = c.contexts[row][-cut:]
            for ablation in ablations:
                forecast = measured.forecasts[ablation, c.name].median[place]
                found[ablation].append(parroting(forecast, context))
    return {ablation: float(np.nanmean(values)) for ablation, values in found.items()}


def sets(model: Forecaster, suite: Suite) -> list[Row]:
    """Many components ablated together."""
    calibration, _ = split(suite)
    chosen = {**_kinds(model), **_ranked(model, calibration)}
    measured = run(model, suite, list(chosen.values()))
    return [
        row for name, ablation in chosen.items() for row in _changes(suite, "set", name, measured, ablation)
    ]


def _kinds(model: Forecaster) -> dict[str, Ablation]:
    """All MLPs and all attention sublayers, of the whole model, of its middle layers and of each stack."""
    anatomy = model.anatomy
    found: dict[str, Ablation] = {}
    for kind in ("mlp", "attention"):
        every = anatomy.components(kind)
        parts = {
            "every": every,
            "middle": tuple(c for c in every if c.layer in anatomy.middle_layers(c.stack)),
        }
        if len(anatomy.stacks) > 1:
            parts |= {
                stack.name: tuple(c for c in every if c.stack == stack.name) for stack in anatomy.stacks
            }
        found |= {f"{name} {kind}": Ablation(part) for name, part in parts.items() if part}
    return found


def _ranked(model: Forecaster, calibration: Suite) -> dict[str, Ablation]:
    """Heads by stable rank from both ends and at random, alone and beside the two cheapest MLPs."""
    pool = middle_heads(model.anatomy, tsprune.rank(model, by="stable_rank"))
    every = len(model.anatomy.components("head"))
    mlps = _cheapest_mlps(model, calibration)
    found: dict[str, Ablation] = {}
    for name, count, more in (
        ("heads 30%", round(_HEADS * len(pool)), ()),
        ("heads 28% and 2 MLPs", min(len(pool), round(_PAPER_HEADS * every)), mlps),
    ):
        if not count:
            continue
        like = remove_ranked(pool, count, "high-to-low")
        ways = {
            "high-to-low": like,
            "low-to-high": remove_ranked(pool, count, "low-to-high"),
            **{f"random {i}": drawn for i, drawn in enumerate(random_draws(pool, like, _DRAWS))},
        }
        found |= {f"{name}, {way}": Ablation((*drawn, *more)) for way, drawn in ways.items()}
    return found


def _cheapest_mlps(model: Forecaster, calibration: Suite) -> tuple[Component, ...]:
    """The two MLPs of middle layers that cost least alone, in order of execution."""
    anatomy = model.anatomy
    middle = [c for c in anatomy.components("mlp") if c.layer in anatomy.middle_layers(c.stack)]
    measured = run(model, calibration, [Ablation((c,)) for c in middle])
    costs = {c: measured.change(Ablation((c,)))["MASE"] for c in middle}
    cheapest = set(sorted(middle, key=lambda c: costs[c])[:_PAPER_MLPS])
    return tuple(c for c in middle if c in cheapest)


def heads_at(model: Forecaster, suite: Suite) -> list[Row]:
    """heads@1pp of every attention sublayer, of both selections, and the heads it has."""
    table = tsprune.heads_at(model, suite, max_loss=0.01)
    rows: list[Row] = []
    for record in table.frame.to_dict("records"):
        unit = Component(record["stack"], record["layer"], record["attention"]).address
        rows.append((suite.name, "heads_at", unit, str(record["selection"]), float(record["heads_at"])))
        if record["selection"] == "test":
            rows.append((suite.name, "heads_at", unit, "heads", float(record["heads"])))
    return rows


def greedy(model: Forecaster, suite: Suite, sample: Suite) -> list[Row]:
    """Layers removed in the order that costs least: chosen on `sample`'s calibration half.

    Rows: of each number of layers removed, the change on the report half of `suite`; of each layer, its turn.
    """
    calibration, _ = split(sample)
    _, report = split(suite)
    left = list(model.anatomy.components("layer"))
    order: list[Component] = []
    while left:
        candidates = {layer: _ablation([*order, layer]) for layer in left}
        measured = run(model, calibration, list(candidates.values()))
        costs = {layer: measured.change(ablation)["MASE"] for layer, ablation in candidates.items()}
        best = min(left, key=lambda layer: costs[layer])
        left.remove(best)
        order.append(best)
    prefixes = {count: _ablation(order[:count]) for count in range(1, len(order) + 1)}
    measured = run(model, report, list(prefixes.values()))
    rows = [
        row
        for count, ablation in prefixes.items()
        for row in _changes(suite, "greedy", str(count), measured, ablation)
    ]
    return rows + [(suite.name, "greedy", c.address, "turn", float(i)) for i, c in enumerate(order, 1)]


def _ablation(layers: Iterable[Component]) -> Ablation:
    return Ablation(tuple(sorted(layers, key=lambda c: (c.stack, c.layer))))


def redundancy(alone: Sequence[Row], curve: Sequence[Row]) -> list[Row]:
    """Two indices, on MASE and CRPS each.

    share : of the layers whose ablation alone costs less than `TOLERATED`
    area : mean of log(1 + change) when 1, 2, ... of the L layers are gone in the best order; low is redundant
    """
    rows: list[Row] = []
    for metric in ("MASE", "CRPS"):
        costs = [r for r in alone if r[1] == "layer" and r[3] == metric]
        share = float(np.mean([cost[4] < TOLERATED for cost in costs]))
        area = float(np.mean([np.log1p(r[4]) for r in curve if r[3] == metric]))
        rows += [
            (costs[0][0], "redundancy", "share", metric, share),
            (costs[0][0], "redundancy", "area", metric, area),
        ]
    return rows
