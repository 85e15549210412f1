"""Tables that answer the three questions, from the results alone. Seeds are the replicates.

The damage of an ablation is log(1 + change) of MASE on the embedded suite: it adds up over ablations, and one
bad configuration cannot dominate it. Intervals over seeds are Student's t; one seed has none.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from pretrain.laboratory.plan import CONDITIONS, DATA, DEPTHS, NULL, Condition
from pretrain.laboratory.seeds import over_seeds
from tsprune.statistics import correlation
from tsprune.statistics.estimate import LEVEL

BASE = DEPTHS[0].name
SUITES = ("pocket", "gift-eval", "periodic", "aperiodic", "chaos")
# decoders, then an encoder, then encoder-decoders
COMPARED = tuple(
    next(c for c in CONDITIONS if c.name == name)
    for name in (BASE, "depth-16", "moirai2", "chronos2", "bolt", "bolt-16")
)
TOLERATED = 0.06  # of MASE: the paper's bound for 28 % of the heads and two MLPs
TRAINED_AS = ("condition", "seed", "parameters", "architecture", "layers", "width", "steps")
_LEAST_RUNS = 8  # of a regression


def of_runs(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a run: what it was trained like, and its damages, indices, scores and traits.

    rows : `results.published()`, which is `tsprune.data.laboratory()`
    """
    frame = rows[["run", *TRAINED_AS]].drop_duplicates("run").set_index("run")
    frame["supervision"] = frame["condition"].map(_supervision)
    pocket = rows[rows["suite"] == "pocket"]
    for kind in ("mlp", "attention"):
        frame[f"middle {kind}"] = _damage(pocket, "set", f"middle {kind}").mean
        frame[f"one {kind}"] = _damage(pocket, kind).median
    for name, unit in (("paper", "high-to-low"), ("reverse", "low-to-high"), ("random", "random ")):
        frame[name] = _damage(pocket, "set", f"heads 28% and 2 MLPs, {unit}").mean
    frame["mlp share"] = frame["middle mlp"] / (frame["middle mlp"] + frame["middle attention"])
    for index in ("share", "area"):
        frame[index] = _values(pocket, "redundancy", index, "MASE").mean
    for suite in SUITES:
        of = rows[(rows["suite"] == suite) & (rows["unit"] == "")]
        for metric, measure in (("MASE", "score"), ("CRPS", "score"), ("excess_parroting", "trait")):
            frame[f"{suite} {metric}"] = of[(of["measure"] == measure) & (of["metric"] == metric)].set_index(
                "run"
            )["value"]
    return frame


class _Grouped:
    """Values of several units, by run."""

    def __init__(self, values: pd.Series) -> None:
        self.mean, self.median = (values.groupby(level=0).agg(how) for how in ("mean", "median"))


def _values(rows: pd.DataFrame, measure: str, unit: str, metric: str) -> _Grouped:
    fitting = (rows["measure"] == measure) & (rows["metric"] == metric) & rows["unit"].str.startswith(unit)
    return _Grouped(rows[fitting].set_index("run")["value"])


def _damage(rows: pd.DataFrame, measure: str, unit: str = "") -> _Grouped:
    changed = rows.assign(value=np.log1p(rows["value"].where(rows["measure"] == measure)))
    return _values(changed, measure, unit, "MASE")


def _supervision(name: str) -> str:
    """The condition's own name if its loss, data or regularisation is another one than the base's."""
    base, one = CONDITIONS[0], next(c for c in CONDITIONS if c.name == name)
    alike = (one.supervision, one.source) == (base.supervision, base.source)
    return "base" if alike else name


def by_condition(
    runs: pd.DataFrame, conditions: Sequence[Condition], columns: dict[str, str]
) -> pd.DataFrame:
    """A row for each condition with a finished run: how it differs, its seeds, and values over them.

    columns : column of `of_runs` -> heading
    """
    rows = {
        condition.name: {
            "differs": condition.differs,
            "seeds": len(found),
            **{heading: over_seeds(found[column]) for column, heading in columns.items()},
        }
        for condition in conditions
        if len(found := runs[runs["condition"] == condition.name])
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("condition")


def architecture(runs: pd.DataFrame) -> pd.DataFrame:
    """Question 1: damage by MLPs and by attention, by architecture."""
    return by_condition(
        runs,
        COMPARED,
        {
            "mlp share": "MLPs' share of the damage",
            "middle mlp": "all middle MLPs",
            "middle attention": "all middle attention",
            "one mlp": "one MLP, median",
            "one attention": "one attention, median",
            "pocket CRPS": "CRPS",
        },
    )


def data(runs: pd.DataFrame) -> pd.DataFrame:
    """Question 2 (b): accuracy and parroting of models trained on other data, or against parroting."""
    crps = {f"{suite} CRPS": f"CRPS, {suite}" for suite in SUITES}
    return by_condition(runs, (DEPTHS[0], *DATA), {"pocket excess_parroting": "excess parroting", **crps})


def dose(runs: pd.DataFrame) -> pd.DataFrame:
    """Question 2 (c): rank correlation of CRPS and excess parroting over conditions, suite by suite.

    Seeds of a condition are averaged first: they are no independent conditions. Lower CRPS is better, so
    a negative correlation means that models which parrot more forecast better. Models that learnt nothing
    by design are left out.
    """
    means = without_null(runs).groupby("condition").mean(numeric_only=True)
    rows = {}
    for suite in SUITES:
        pair = means[[f"{suite} excess_parroting", f"{suite} CRPS"]].dropna()
        if len(pair) >= _LEAST_RUNS:
            found = correlation(pair.iloc[:, 0], pair.iloc[:, 1])
            rows[suite] = {
                "conditions": len(pair),
                "rank correlation": f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]",
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("suite")


def without_null(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that have something to learn."""
    return runs[~runs["condition"].isin([c.name for c in CONDITIONS if c.question == NULL])]


def separation(rows: pd.DataFrame, suite: str = "pocket") -> pd.DataFrame:
    """Question 2 (a): CRPS and excess parroting after heads were removed and what is left was trained.

    Random sets of heads are averaged within a run. The last columns are the share that training brought back
    of what removal had changed, run by run.
    """
    wide = separated(rows, suite)
    if wide.empty:
        return wide
    for metric in ("CRPS", "excess_parroting"):
        wide[f"{metric} back"] = _brought_back(wide[metric])
    found = {
        unit: {
            "seeds": len(part),
            "CRPS": over_seeds(part["CRPS"]),
            "MASE": over_seeds(part["MASE"]),
            "excess parroting": over_seeds(part["excess_parroting"]),
            **{
                f"{name} that came back": over_seeds(known)
                if len(known := part[f"{metric} back"].dropna())
                else ""
                for name, metric in (("CRPS", "CRPS"), ("parroting", "excess_parroting"))
            },
        }
        for unit, part in wide.groupby(level=0, sort=False)
    }
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("heads removed, training")


def _brought_back(values: pd.Series) -> pd.Series:
    """(value - as pruned) / (original - as pruned) of trained models, by (removal and training, run)."""
    table = values.unstack("run")
    pruned = table.reindex([f"{unit.split(', ')[0]}, as pruned" for unit in table.index]).set_axis(
        table.index
    )
    share = (table - pruned) / (table.loc["nothing removed"] - pruned)
    return share[~table.index.str.endswith(", as pruned")].stack().reindex(values.index)


def separated(rows: pd.DataFrame, suite: str = "pocket") -> pd.DataFrame:
    """Scores and traits, a column each, by (heads removed and training, run); random sets averaged."""
    of = rows[(rows["measure"] == "separation") & (rows["suite"] == suite)]
    if of.empty:
        return pd.DataFrame()
    named = of.assign(unit=of["unit"].str.replace(r"^random \d+", "random", regex=True))
    return named.pivot_table(index=["unit", "run"], columns="metric", values="value", sort=False)


def depth(runs: pd.DataFrame) -> pd.DataFrame:
    """Question 3: indices and the paper's removal, by depth and then by everything else."""
    return by_condition(
        runs,
        CONDITIONS,
        {
            "share": "share of layers under 5 %",
            "area": "area",
            "paper": "28 % of heads and 2 MLPs, by stable rank",
            "random": "as many at random",
            "pocket MASE": "MASE",
        },
    )


def paper_depth(runs: pd.DataFrame) -> str:
    """Question 3: the number of layers at which 28 % of the heads and two MLPs cost 6 % of MASE, in words.

    A line is fitted to log(damage) by log2(layers) over the runs that differ in depth alone; the interval
    holds every depth at which its 95 % band includes the limit (inverse regression).
    """
    from statsmodels.formula.api import ols

    frame = runs[runs["condition"].str.fullmatch(r"depth-\d+") & (runs["paper"] > 0)]
    if frame["layers"].nunique() < 3 or len(frame) < _LEAST_RUNS:
        return "Not measured yet."
    fit = ols("np.log(paper) ~ np.log2(layers)", frame).fit()
    depths = np.geomspace(1, 4096, 4000)
    band = fit.get_prediction(pd.DataFrame({"layers": depths})).summary_frame(1 - LEVEL)
    limit = math.log(math.log1p(TOLERATED))
    within = depths[(band["mean_ci_lower"] <= limit) & (band["mean_ci_upper"] >= limit)]
    found, low, high = (
        _layers(one, depths[-1]) for one in (depths[band["mean"].le(limit)][:1], within[:1], within[-1:])
    )
    factor = math.exp(fit.params.iloc[1])
    deepest = int(frame["layers"].max())
    return (
        f"Each doubling of the depth multiplies the damage by {factor:.2f} (p = {fit.pvalues.iloc[1]:.2g}, "
        f"{len(frame)} runs of up to {deepest} layers). The fitted line meets 6 % at {found} layers "
        f"[{low}, {high}]; beyond {deepest} it is an extrapolation."
    )


def _layers(depth: NDArray[np.float64], most: float) -> str:
    return f"{depth[0]:.0f}" if len(depth) and depth[0] < most else f"over {most:.0f}"


def regression(
    runs: pd.DataFrame, index: str = "area", *, accuracy: bool = False
) -> tuple[pd.DataFrame, list[str]]:
    """Question 3: `index` on depth, width, length and supervision of decoder-only models, and its checks.

    A linear mixed model with a random intercept for each condition where conditions have several seeds,
    ordinary least squares where none has. Depth, width and steps are in doublings.

    index : "area", or "share" of the layers under 5 %
    accuracy : whether log(MASE) of the whole model is a term, too, since a worse model has less to lose

    Returns coefficients with 95 % intervals, and lines on the assumptions. Empty with fewer than 8 runs.
    """
    frame = without_null(runs[runs["architecture"] == "timesfm"]).dropna(subset=[index])
    frame = frame.assign(
        y=frame[index],
        depth=np.log2(frame["layers"] / 8),
        size=np.log2(frame["width"] / 64),
        length=np.log2(frame["steps"] / 2500),
        error=np.log(frame["pocket MASE"]),
    )
    if len(frame) < _LEAST_RUNS:
        return pd.DataFrame(), [f"{len(frame)} runs are too few for a regression"]
    fit = _fitted(frame, *(["error"] if accuracy else []))
    return _coefficients(fit), _checks(fit, frame)


def _fitted(frame: pd.DataFrame, *more: str) -> Any:
    """The fit of y by the terms that vary over the runs, and by `more`."""
    from statsmodels.formula.api import mixedlm, ols

    terms = [name for name in ("depth", "size", "length") if frame[name].nunique() > 1]
    if frame["supervision"].nunique() > 1:
        terms.append("C(supervision, Treatment('base'))")
    formula = f"y ~ {' + '.join([*terms, *more])}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a random intercept at its limit: `_checks` gives its variance
        if _replicated(frame):
            return mixedlm(formula, frame, groups=frame["condition"]).fit()
        return ols(formula, frame).fit()


def _replicated(frame: pd.DataFrame) -> bool:
    return bool(frame["condition"].duplicated().sum() >= 3)


def _coefficients(fit: Any) -> pd.DataFrame:
    limits = fit.conf_int()
    table = pd.DataFrame({"coefficient": fit.params, "low": limits[0], "high": limits[1], "p": fit.pvalues})
    table.index = [_term(str(name)) for name in table.index]
    return table.drop(index="Group Var", errors="ignore")


def _term(name: str) -> str:
    words = {
        "depth": "twice the depth",
        "size": "twice the width",
        "length": "twice the steps",
        "error": "log(MASE) of the whole model",
    }
    if "[T." in name:
        return f"{name.split('[T.')[1].rstrip(']')} in place of the base's supervision"
    return words.get(name, "the base" if name == "Intercept" else name)


def _checks(fit: Any, frame: pd.DataFrame) -> list[str]:
    """Lines on the assumptions of a fit."""
    residuals, fitted = np.asarray(fit.resid), np.asarray(fit.fittedvalues)
    test: Callable[..., tuple[float, float]] = stats.shapiro
    normal = test(residuals)[1] if np.ptp(residuals) > 0 else float("nan")
    spread = stats.spearmanr(np.abs(residuals).round(9), np.round(fitted, 9)).pvalue
    if _replicated(frame):
        between, within = float(np.asarray(fit.cov_re)[0, 0]), float(fit.scale)
        kind = (
            "mixed model, random intercept by condition "
            f"(variance {between:.2g} between conditions, {within:.2g} between seeds)"
        )
    else:
        kind = "least squares, seeds too few for a mixed model"
    return [
        f"{kind}: {len(frame)} runs of {frame['condition'].nunique()} conditions",
        f"normal residuals: Shapiro-Wilk p = {normal:.3f}",
        f"equal spread: rank correlation of |residual| and fitted value, p = {spread:.3f}",
    ]
