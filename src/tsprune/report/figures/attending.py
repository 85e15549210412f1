"""What heads attend to: their statistics in maps, against stable rank, in repetitions, against parroting."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.explain.overview import Explanation
from tsprune.report import palette
from tsprune.report.figures.shared import VARIANTS, Floats, at_site, attention_sites, integer_step, site_name
from tsprune.report.panels import Grid, View, message, plain
from tsprune.report.scale import Scale, scale_for

# column -> (words for a button, for the colour bar, whether an even head's value is taken off)
ATTENDED: Mapping[str, tuple[str, str, bool]] = {
    "sharpness": ("sharpness", "sharpness (0 even, 1 a single key)", False),
    "entropy": ("entropy", "entropy (nats)", False),
    "effective_keys": ("effective keys", "effective number of keys", False),
    "lag": ("lag", "mean lag (time steps)", False),
    "diagonal": ("band", "attention within one position, over an even head's", True),
    "period_share": ("period", "attention at the dominant period, over an even head's", True),
}
BANDWIDTH = {
    "effective_keys": "effective number of keys",
    "lag_spread": "spread of lags (time steps)",
    "sharpness": "sharpness",
}
BEST = 5  # heads that are drawn by themselves


def attended_maps(one: Explanation, *, columns: int | None = None) -> go.Figure:
    """A map of layers and heads per kind of sublayer, of one statistic at a time (`ATTENDED`)."""
    heads = _with_a_choice(one.heads)
    known = {name: _attended(heads, name) for name in ATTENDED if name in heads}
    known = {name: values for name, values in known.items() if np.isfinite(values).any()}
    if not known:
        return message("No head has a choice of keys over time.")
    sites = attention_sites(heads)
    layers = heads.groupby(["stack", "attention"])["layer"].nunique().max()
    height = int(np.clip(26 * layers, 110, 420))
    grid = Grid([plain(site_name(site)) for site in sites], columns=columns, height=height, legend_rows=3)
    for panel, site in enumerate(sites):
        for name, values in known.items():
            rows = at_site(heads.assign(value=values), site)
            grid.add(panel, _map(rows, name))
        step = integer_step(float(at_site(heads, site)["head"].max()))
        grid.x(panel, title_text="head", tickformat="d", dtick=step)
        grid.y(panel, title_text="layer", tickformat="d", dtick=1, showgrid=False, autorange="reversed")
    views = [View(name, ATTENDED[name][0], _colours(name, values)) for name, values in known.items()]
    first = next(iter(known))
    bar = grid.colour_bar(ATTENDED[first][1], 0.0)
    low, high = _reach(first, known[first])
    colours = palette.RANK_SCALE
    grid.figure.update_layout(coloraxis={"colorscale": colours, "cmin": low, "cmax": high, "colorbar": bar})
    grid.buttons(views)
    return grid.figure


def _with_a_choice(heads: pd.DataFrame) -> pd.DataFrame:
    """Without the heads of kinds of sublayers none of whose queries have two keys over time."""
    if "entropy" not in heads:
        return heads.iloc[:0]
    known = heads["entropy"].notna().groupby([heads["stack"], heads["attention"]]).transform("any")
    return heads[known]


def _attended(heads: pd.DataFrame, name: str) -> Floats:
    values: Floats = heads[name].to_numpy(dtype=np.float64)
    if not ATTENDED[name][2]:
        return values
    even: Floats = heads[f"{name}_uniform"].to_numpy(dtype=np.float64)
    return values - even


def _map(rows: pd.DataFrame, name: str) -> go.Heatmap:
    matrix = rows.pivot_table(index="layer", columns="head", values="value", aggfunc="first", dropna=False)
    return go.Heatmap(
        x=matrix.columns.to_numpy(),
        y=matrix.index.to_numpy(),
        z=matrix.to_numpy(dtype=np.float64),
        coloraxis="coloraxis",
        texttemplate="%{z:.2~f}" if matrix.shape[1] <= 8 else None,
        xgap=1,
        ygap=1,
        meta={"view": name},
        hovertemplate=f"layer %{{y}}, head %{{x}}<br>{ATTENDED[name][1]}: %{{z:.3g}}<extra></extra>",
    )


def _reach(name: str, values: Floats) -> tuple[float, float]:
    if name == "sharpness":
        return 0.0, 1.0
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return low, high if high > low else low + 1.0


def _colours(name: str, values: Floats) -> dict[str, object]:
    low, high = _reach(name, values)
    title = ATTENDED[name][1]
    return {"coloraxis.cmin": low, "coloraxis.cmax": high, "coloraxis.colorbar.title.text": title}


def kernel_points(one: Explanation, *, columns: int | None = None) -> go.Figure:
    """Each head's bandwidth on data against its stable rank; the correlation in the panel's title."""
    shown = [name for name in BANDWIDTH if name in one.heads and one.heads[name].notna().any()]
    if not shown:
        return message("No head has a choice of keys over time.")
    titles = {v: [_kernel_title(one.kernel, name, v) for name in shown] for v in VARIANTS}
    grid = Grid(titles["stable_rank"], columns=columns or len(shown), height=230, legend_rows=2)
    for panel, name in enumerate(shown):
        for variant, words in VARIANTS.items():
            for site in attention_sites(one.heads):
                rows = at_site(one.heads, site)
                if rows[name].notna().any():
                    trace = _points(rows, rows[variant], rows[name], site)
                    grid.add(panel, trace.update(meta={"view": variant}, showlegend=panel == 0))
            grid.x(panel, title_text=f"stable rank ({words})")
        grid.x(panel, title_text="stable rank of the head")
        grid.y(panel, title_text=BANDWIDTH[name])
    grid.legend()
    views = []
    for variant, words in VARIANTS.items():
        relabel: dict[str, object] = {
            f"annotations[{i}].text": text for i, text in enumerate(titles[variant])
        }
        views.append(View(variant, f"stable rank: {words}", relabel))
    grid.buttons(views)
    return grid.figure


def _kernel_title(kernel: pd.DataFrame, bandwidth: str, score: str) -> str:
    rows = kernel[
        (kernel["group"] == "all") & (kernel["bandwidth"] == bandwidth) & (kernel["score"] == score)
    ]
    return f"{plain(BANDWIDTH[bandwidth])}<br>{_correlation(rows)}"


def _correlation(rows: pd.DataFrame) -> str:
    """Spearman's rho of the first of `rows`, its interval and its test, for a title."""
    if not len(rows) or not np.isfinite(rows.iloc[0]["rho"]):
        return "<span style='font-size:11px'>no correlation can be told</span>"
    row = rows.iloc[0]
    return (
        f"<span style='font-size:11px'>rho {row['rho']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}], "
        f"p = {row['p_value']:.2g}, {int(row['count'])} heads</span>"
    )


def _points(
    rows: pd.DataFrame, x: pd.Series[float], y: pd.Series[float], site: tuple[str, str]
) -> go.Scatter:
    colour = palette.ATTENTION.get(site[1], palette.MUTED)
    symbol = palette.ATTENTION_SYMBOL.get(site[1], "circle")
    hollow = "-open" if site[0] == "encoder" else ""
    return go.Scatter(
        x=x.to_numpy(dtype=np.float64),
        y=y.to_numpy(dtype=np.float64),
        text=[plain(str(address)) for address in rows["address"]],
        mode="markers",
        marker={"color": colour, "symbol": f"{symbol}{hollow}", "size": 7, "line": {"color": colour}},
        name=plain(site_name(site)),
        legendgroup=site_name(site),
        hovertemplate="%{text}<br>%{x:.3g}, %{y:.3g}<extra></extra>",
    )


def induction_curves(one: Explanation, *, columns: int | None = None) -> go.Figure:
    """Induction by length and count of the repetition, and how well it tells the effect on parroting."""
    found = one.induction
    if not len(found):
        return message("Induction was not measured.")
    titles = ["attention to what followed the same values before<br>repeated minus not repeated"]
    if len(one.induction_effects):
        titles.append("rho of that with the change of parroting<br>without the head (all heads)")
    grid = Grid(titles, columns=columns or len(titles), height=260, legend_rows=4 if columns == 1 else 3)
    combinations = list(found[["block", "repeats"]].drop_duplicates().itertuples(index=False, name=None))
    scores = found.pivot_table(
        index="address", columns=["block", "repeats"], values="followed_score", dropna=False
    )
    best = scores.mean(axis=1).dropna().nlargest(BEST).index
    for place, address in enumerate(best):
        rows = found[found["address"] == address]
        trace = _by_combination(rows, "followed_score", palette.MODEL[place % len(palette.MODEL)], address)
        grid.add(0, trace)
    grid.add(0, _others(scores.drop(index=best), combinations))
    grid.line(0, 0.0)
    grid.y(0, title_text="share of attention")
    if len(one.induction_effects):
        _draw_prediction(grid, one.induction_effects)
    for panel in range(len(titles)):
        grid.x(panel, title_text="positions in the block x repetitions", type="category")
        grid.x(panel, range=[-0.5, len(combinations) - 0.5])
    grid.legend()
    return grid.figure


def _label(block: float, repeats: float) -> str:
    return f"{block:.0f}x{repeats:.0f}"


def _labels(rows: pd.DataFrame) -> list[str]:
    return [_label(b, r) for b, r in rows[["block", "repeats"]].itertuples(index=False, name=None)]


def _by_combination(rows: pd.DataFrame, name: str, colour: str, label: str) -> go.Scatter:
    """A line over combinations with the interval beside it (columns `name`_low and `name`_high)."""
    mean, low, high = (rows[c].to_numpy(dtype=np.float64) for c in (name, f"{name}_low", f"{name}_high"))
    return go.Scatter(
        x=_labels(rows),
        y=mean,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": np.maximum(high - mean, 0),
            "arrayminus": np.maximum(mean - low, 0),
            "thickness": 1,
            "width": 3,
        },
        name=plain(label),
        legendgroup=label,
        mode="lines+markers",
        line={"color": colour, "width": 1.5},
        marker={"size": 6},
        hovertemplate=f"{plain(label)}, %{{x}}: %{{y:+.3g}}<extra></extra>",
    )


def _others(scores: pd.DataFrame, combinations: list[tuple[int, int]]) -> go.Scatter:
    return go.Scatter(
        x=[_label(*one) for one in combinations],
        y=[float(scores[one].mean()) if one in scores else np.nan for one in combinations],
        name="mean of all other heads",
        legendgroup="others",
        mode="lines",
        line={"color": palette.MUTED, "width": 2, "dash": "dash"},
        hovertemplate="other heads, %{x}: %{y:+.3g}<extra></extra>",
    )


def _draw_prediction(grid: Grid, linked: pd.DataFrame) -> None:
    rows = linked[(linked["target"] == "followed") & linked["block"].notna()]
    named = rows.rename(columns={"low": "rho_low", "high": "rho_high"})
    trace = _by_combination(named, "rho", palette.INK, "rho over heads")
    grid.add(1, trace.update(mode="markers", marker={"color": palette.MUTED, "size": 8}))
    grid.line(1, 0.0)
    grid.y(1, title_text="Spearman's rho", range=[-1.05, 1.05])


def parroting_ranked(one: Explanation, *, columns: int | None = None) -> go.Figure:
    """Every head by what its ablation does to parroting, and that against its induction score."""
    if "parroting" not in one.heads or not one.heads["parroting"].notna().any():
        return message("No head was ablated alone.")
    ranked = one.heads.dropna(subset=["parroting"]).sort_values("parroting", kind="stable")
    ranked = ranked.assign(rank=range(1, len(ranked) + 1))
    titles = [f"heads in order of the change of parroting<br>lowest: {plain(str(ranked['address'].iloc[0]))}"]
    induced = "followed_score" in ranked and bool(ranked["followed_score"].notna().any())
    if induced:
        linked = one.induction_effects
        overall = linked[(linked["target"] == "followed") & linked["block"].isna()] if len(linked) else linked
        titles.append(f"against attention to what followed a repetition<br>{_correlation(overall)}")
    grid = Grid(titles, columns=columns or len(titles), height=260, legend_rows=3 if columns == 1 else 2)
    scale = scale_for([ranked[name] for name in ("parroting", "parroting_low", "parroting_high")])
    for site in attention_sites(ranked):
        rows = at_site(ranked, site)
        grid.add(0, _changes(rows, rows["rank"], site, scale))
        if induced:
            points = _changes(rows, rows["followed_score"], site, scale)
            grid.add(1, points.update(showlegend=False, error_y={"visible": False}))
    for panel in range(len(titles)):
        grid.y_scale(panel, scale)
        grid.line(panel, 0.0)
    grid.x(0, title_text="rank of the head")
    grid.y(0, title_text="change of parroting without it")
    if induced:
        grid.x(1, title_text="repeated minus not repeated")
    grid.legend()
    return grid.figure


def _changes(rows: pd.DataFrame, x: pd.Series[float], site: tuple[str, str], scale: Scale) -> go.Scatter:
    names = ("parroting", "parroting_low", "parroting_high")
    mean, low, high = (rows[name].to_numpy(dtype=np.float64) for name in names)
    trace = _points(rows, x, pd.Series(scale(mean), index=rows.index), site)
    return trace.update(
        customdata=np.column_stack([mean, low, high]),
        error_y={
            "type": "data",
            "symmetric": False,
            "array": np.nan_to_num(scale(high) - scale(mean)),
            "arrayminus": np.nan_to_num(scale(mean) - scale(low)),
            "thickness": 1,
            "width": 0,
        },
        hovertemplate="%{text}<br>change of parroting %{customdata[0]:+.3g} "
        "[%{customdata[1]:+.3g}, %{customdata[2]:+.3g}]<extra></extra>",
    )
