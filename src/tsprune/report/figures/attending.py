"""Attention of heads: statistics in maps, against stable rank, in repetitions; effects on forecasts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.explain.overview import Explanation
from tsprune.report import palette
from tsprune.report.figures import shared
from tsprune.report.palette import Style
from tsprune.report.panels import Grid, Scale, View, message, plain, scale_for, small, wrapped

# column -> (words for a button, for the colour bar, whether the value of an even head is subtracted)
ATTENTION_STATISTICS: Mapping[str, tuple[str, str, bool]] = {
    "sharpness": ("sharpness", "sharpness (0 even, 1 a single key)", False),
    "entropy": ("entropy", "entropy (nats)", False),
    "effective_keys": ("effective keys", "effective number of keys", False),
    "lag": ("lag", "mean lag (time steps)", False),
    "diagonal": ("band", "attention within one position, over an even head's", True),
    "period_share": ("period", "attention at the dominant period, over an even head's", True),
}
_BANDWIDTHS = {
    "effective_keys": "effective number of keys",
    "lag_spread": "spread of lags (time steps)",
    "sharpness": "sharpness",
}
_EFFECTS = {"mase": "error (MASE)", "parroting": "parroting", "seasonality": "seasonality"}
_NAMED_HEADS = 5  # heads with a line of their own
_NO_CHOICE = "No head has a choice of keys over time."


def attended_maps(one: Explanation, *, columns: int | None = None) -> go.Figure:
    """Maps of layers x heads, one per kind of attention sublayer, of one attention statistic at a time."""
    heads = one.heads if "entropy" in one.heads else one.heads.iloc[:0]
    if len(heads):  # sublayers where some query has two keys over time to choose from
        by_sublayer = heads["entropy"].notna().groupby([heads["stack"], heads["attention"]])
        heads = heads[by_sublayer.transform("any")]
    shown = {name: about for name, about in ATTENTION_STATISTICS.items() if name in heads}
    over_even = [name for name, (_, _, over) in shown.items() if over]
    heads = heads.assign(**{name: heads[name] - heads[f"{name}_uniform"] for name in over_even})
    known = {name: about for name, about in shown.items() if heads[name].notna().any()}
    if not known:
        return message(_NO_CHOICE)
    sites = shared.by_site(heads)
    titles = [plain(shared.site_name(site)) for site, _ in sites]
    grid = Grid(titles, columns=columns, height=shared.map_height(heads), legend_rows=3)
    for panel, (_, rows) in enumerate(sites):
        for name, (_, about, _) in known.items():
            matrix = shared.layers_by_heads(rows, name)
            text = "%{z:.2~f}" if matrix.shape[1] <= 8 else None
            shared.head_map(grid, panel, matrix, f"{about}: %{{z:.3g}}", view=name, texttemplate=text)
    views = []
    for name, (label, title, _) in known.items():
        low, high = _reach(heads, name)
        bar = {"coloraxis.cmin": low, "coloraxis.cmax": high, "coloraxis.colorbar.title.text": title}
        views.append(View(name, label, bar))
    first = next(iter(known))
    grid.colours(palette.RANK_SCALE, *_reach(heads, first), known[first][1])
    return grid.buttons(views)


def _reach(heads: pd.DataFrame, name: str) -> tuple[float, float]:
    if name == "sharpness":
        return 0.0, 1.0
    low, high = float(heads[name].min()), float(heads[name].max())
    return low, high if high > low else low + 1.0


def kernel_points(one: Explanation, *, columns: int | None = None) -> go.Figure:
    """Each head's kernel bandwidth on data against its stable rank; the correlation in the panel's title."""
    shown = [name for name in _BANDWIDTHS if name in one.heads and one.heads[name].notna().any()]
    if not shown:
        return message(_NO_CHOICE)
    titles: dict[str, list[str]] = {variant: [] for variant in shared.VARIANTS}
    for variant, name in itertools.product(shared.VARIANTS, shown):
        rows = one.kernel[(one.kernel["group"] == "all") & (one.kernel["bandwidth"] == name)]
        rho = _correlation(rows[rows["score"] == variant])
        titles[variant].append(f"{plain(_BANDWIDTHS[name])}<br>{rho}")
    grid = Grid(titles["stable_rank"], columns=columns or len(shown), height=230, legend_rows=2)
    for panel, name in enumerate(shown):
        for variant, (site, heads) in itertools.product(shared.VARIANTS, shared.by_site(one.heads)):
            if heads[name].notna().any():
                grid.add(panel, _points(heads, heads[variant], heads[name], site), variant)
        grid.x(panel, title_text="stable rank of the head")
        grid.y(panel, title_text=_BANDWIDTHS[name])
    grid.legend()
    return grid.buttons(shared.variant_views(titles))


def _correlation(rows: pd.DataFrame) -> str:
    """Spearman's rho in the first of `rows`, its interval and its test, for a title."""
    if not len(rows) or not np.isfinite(rows.iloc[0]["rho"]):
        return small("correlation undefined")
    row = rows.iloc[0]
    limits = f"[{row['low']:+.2f}, {row['high']:+.2f}]"
    return small(f"rho {row['rho']:+.2f} {limits}, p = {row['p_value']:.2g}, {int(row['count'])} heads")


def _points(
    rows: pd.DataFrame,
    x: pd.Series[float],
    y: pd.Series[float] | shared.Numbers,
    site: shared.Site,
    **more: Any,
) -> go.Scatter:
    look: dict[str, Any] = {"hover": "%{text}<br>%{x:.3g}, %{y:.3g}", "mode": "markers", "size": 7}
    text = [plain(address) for address in rows["address"]]
    return shared.scatter(x, y, shared.site_style(site), text=text, **(look | more))


def induction_curves(one: Explanation, *, columns: int | None = None) -> go.Figure:
    """Induction by length and count of repetitions, and its correlation with the effect on parroting."""
    found, linked = one.induction, one.induction_effects
    if not len(found):
        return message("Induction was not measured.")
    titles = ["attention to the successors of the same values<br>repeated minus not repeated"]
    if len(linked):
        titles.append("rho of that with the change of parroting<br>without the head (all heads)")
    grid = Grid(titles, columns=columns or len(titles), height=260, legend_rows=4 if columns == 1 else 3)
    scores = found.assign(place=_places(found)).pivot_table(
        index="address", columns="place", values="followed_score", dropna=False, sort=False
    )
    best = scores.mean(axis=1).dropna().nlargest(_NAMED_HEADS).index
    for number, address in enumerate(best):
        style = Style(palette.numbered(number, "").colour, plain(address))
        grid.add(0, _by_combination(found[found["address"] == address], "followed_score", style))
    others, style = scores.drop(index=best), Style(palette.MUTED, "mean of all other heads")
    hover = "other heads, %{x}: %{y:+.3g}"
    grid.add(0, shared.scatter(list(others.columns), others.mean(), style, hover, mode="lines", dash="dash"))
    grid.y(0, title_text="share of attention")
    if len(linked):
        rows = linked[(linked["target"] == "followed") & linked["block"].notna()]
        look = {"mode": "markers", "size": 8}
        grid.add(1, _by_combination(rows, "rho", Style(palette.MUTED, "rho over heads"), **look))
        grid.y(1, title_text="Spearman's rho", range=[-1.05, 1.05])
    for panel in range(len(titles)):
        grid.line(panel, 0.0)
        grid.x(panel, title_text="positions in the block x repetitions", type="category")
        grid.x(panel, range=[-0.5, scores.shape[1] - 0.5])
    return grid.legend()


def _places(rows: pd.DataFrame) -> list[str]:
    pairs = rows[["block", "repeats"]].itertuples(index=False, name=None)
    return [f"{block:.0f}x{repeats:.0f}" for block, repeats in pairs]


def _by_combination(rows: pd.DataFrame, column: str, style: Style, **look: Any) -> go.Scatter:
    hover = f"{style.label}, %{{x}}: %{{y:+.3g}}"
    shape = {"size": 6, "width": 1.5} | look
    return shared.estimate_trace(_places(rows), shared.estimates(rows, column), style, hover, **shape)


def parroting_ranked(one: Explanation, *, columns: int | None = None) -> go.Figure:
    """Heads by the effect of their ablation on parroting, and that effect against their induction score."""
    if "parroting" not in one.heads or not one.heads["parroting"].notna().any():
        return message("No head was ablated alone.")
    ranked = one.heads.dropna(subset=["parroting"]).sort_values("parroting", kind="stable")
    ranked = ranked.assign(rank=range(1, len(ranked) + 1))
    titles = [f"heads in order of the change of parroting<br>lowest: {plain(ranked['address'].iloc[0])}"]
    induced = "followed_score" in ranked and bool(ranked["followed_score"].notna().any())
    if induced:
        linked = one.induction_effects
        overall = linked[(linked["target"] == "followed") & linked["block"].isna()] if len(linked) else linked
        titles.append(f"against attention to the successors of a repetition<br>{_correlation(overall)}")
    grid = Grid(titles, columns=columns or len(titles), height=260, legend_rows=3 if columns == 1 else 2)
    scale = scale_for(shared.estimates(ranked, "parroting"))
    for site, rows in shared.by_site(ranked):
        grid.add(0, _changes(rows, "rank", site, scale))
        if induced:
            grid.add(1, _changes(rows, "followed_score", site, scale))
    for panel in range(len(titles)):
        grid.y_scale(panel, scale)
        grid.line(panel, 0.0)
    grid.x(0, title_text="rank of the head")
    grid.y(0, title_text="change of parroting without it")
    if induced:
        grid.x(1, title_text="repeated minus not repeated")
    return grid.legend()


def _changes(rows: pd.DataFrame, column: str, site: shared.Site, scale: Scale) -> go.Scatter:
    """Change of parroting over `column`, with error bars over the rank."""
    found = shared.estimates(rows, "parroting")
    bars = (
        shared.error_bars(found, shared.site_style(site).colour, scale, width=0) if column == "rank" else None
    )
    hover = f"%{{text}}<br>change of parroting {shared.ESTIMATE}"
    look = {"hover": hover, "customdata": found.T, "error_y": bars}
    return _points(rows, rows[column], scale(found[0]), site, **look)


def mechanism_curves(explained: Sequence[Explanation], *, columns: int | None = None) -> go.Figure:
    """Change of error, parroting and seasonality against the share of heads ablated; one row per model."""
    panels = [(one, effect) for one in explained if len(one.effects) for effect in _EFFECTS]
    if not panels:
        return message("No sets of heads were ablated.")
    titles = []
    for one, effect in panels:
        note = "change of the window's scaled error; lower is better"
        known = one.clean[one.clean["trait"] == effect] if len(one.clean) else one.clean
        if len(known):  # the excess of the unablated forecast over the true future
            row = known.iloc[0]
            note = "not measured: no window has a horizon of a whole period"
            if np.isfinite(row["excess"]):
                interval = f"[{row['low']:+.3f}, {row['high']:+.3f}]"
                note = f"unablated, minus the true future's: {row['excess']:+.3f} {interval}"
        name = plain(_EFFECTS[effect])
        titles.append(f"{wrapped(one.model, 44)}<br><b>{name}</b><br>{small(plain(note), 10)}")
    grid = Grid(titles, columns=columns or 3, height=230, legend_rows=3 if columns == 1 else 2)
    for panel, (one, effect) in enumerate(panels):
        rows = one.effects[one.effects["effect"] == effect].sort_values("percent")
        scale = scale_for([rows[name] for name in ("mean", "low", "high", "draw_low", "draw_high")])
        for trace in _mechanism_traces(rows, scale):
            grid.add(panel, trace)
        grid.y_scale(panel, scale)
        grid.line(panel, 0.0)
        grid.x(panel, title_text="heads ablated (% of each sublayer)", rangemode="tozero", dtick=10)
        grid.row_title(panel, "change")
    return grid.legend()


def _mechanism_traces(rows: pd.DataFrame, scale: Scale) -> list[go.Scatter]:
    """The band of the random draws at the back, then one line per set, each from 0 % on."""
    traces = []
    chance = rows[rows["which"] == "random"]
    if len(chance):
        x, low, high = (shared.from_zero(chance[name]) for name in ("percent", "draw_low", "draw_high"))
        colour = palette.translucent(palette.HEAD_SET["random"].colour, 0.28)
        traces.append(shared.band(x, low, high, colour, "random draws, lowest to highest", scale))
    for which, style in palette.HEAD_SET.items():
        part = rows[rows["which"] == which]
        if len(part):
            found = shared.from_zero(shared.estimates(part, "mean"))
            hover = f"{style.label}<br>%{{x:g}} % ablated<br>change {shared.ESTIMATE}"
            look: dict[str, Any] = {"bars": None, "dash": "dash"} if which == "random" else {}
            traces.append(
                shared.estimate_trace(shared.from_zero(part["percent"]), found, style, hover, scale, **look)
            )
    return traces
