"""Which scores tell what an ablation does: rank correlations with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tsprune.report import palette
from tsprune.report.panels import Grid, View, message, plain
from tsprune.studies.study_result import Study

KIND = {"head": ("heads", palette.UNIT["heads"], "circle"), "mlp": ("MLPs", palette.UNIT["mlp"], "square")}
EXACT = {"mase_change", "crps_change", "spearman_distance"}
SURE = 0.05


def agreement(study: Study, *, columns: int | None = None) -> go.Figure:
    """Rank correlation of every score with the exact effect, a panel a model, a row a score."""
    models = [model for model in study.models if not model.agreement.empty]
    if not models:
        return message("No score was measured.")
    tables = [model.agreement[model.agreement["group"] == "all"] for model in models]
    names = list(dict.fromkeys(name for table in tables for name in table["score"]))
    # exact effects last: they say what could be reached
    names.sort(key=lambda name: name in EXACT)
    grid = Grid(
        [plain(model.name) for model in models], columns=columns, height=19 * len(names) + 20, legend_rows=1
    )
    named: set[tuple[str, str]] = set()
    for panel, table in enumerate(tables):
        for metric in ("CRPS", "MASE"):
            for kind in KIND:
                rows = table[(table["kind"] == kind) & (table["metric"] == metric)].dropna(subset=["rho"])
                if rows.empty:
                    continue
                trace = _points(rows, kind, names)
                trace.update(meta={"view": metric}, showlegend=(metric, kind) not in named)
                named.add((metric, kind))
                grid.add(panel, trace)
        grid.x(
            panel,
            range=[-1.05, 1.05],
            dtick=0.5,
            showgrid=True,
            title_text="rank correlation, as the score expects",
        )
        grid.x(panel, zeroline=True, zerolinecolor=palette.MUTED, zerolinewidth=1)
        grid.y(
            panel,
            tickvals=list(range(len(names))),
            ticktext=[_label(name) for name in names],
            range=[len(names) - 0.4, -0.6],
            showgrid=False,
            # beside another panel they would lie in it
            showticklabels=grid.first_in_row(panel),
        )
    grid.legend()
    grid.buttons([View(metric, f"effect on {metric}") for metric in ("CRPS", "MASE")])
    return grid.figure


def _label(name: str) -> str:
    words = name.replace("_", " ")
    return f"<i>exact: {words}</i>" if name in EXACT else words


def _points(rows: pd.DataFrame, kind: str, names: list[str]) -> go.Scatter:
    label, colour, symbol = KIND[kind]
    sign = rows["expected"].to_numpy(dtype=np.float64)
    rho = sign * rows["rho"].to_numpy(dtype=np.float64)
    ends = sign[:, None] * rows[["low", "high"]].to_numpy(dtype=np.float64)
    low, high = ends.min(axis=1), ends.max(axis=1)
    sure = rows["p_holm"].to_numpy(dtype=np.float64) <= SURE
    numbers = np.column_stack([rho, low, high, rows["p_holm"], rows["count"]]).astype(np.float64)
    return go.Scatter(
        x=rho,
        y=[names.index(name) + (-0.16 if kind == "head" else 0.16) for name in rows["score"]],
        error_x={
            "type": "data",
            "symmetric": False,
            # limits of a bootstrap need not hold the estimate
            "array": np.maximum(high - rho, 0),
            "arrayminus": np.maximum(rho - low, 0),
            "color": palette.translucent(colour, 0.5),
            "thickness": 1.3,
            "width": 0,
        },
        customdata=numbers,
        text=[plain(name.replace("_", " ")) for name in rows["score"]],
        mode="markers",
        marker={
            "color": colour,
            "size": 7,
            "symbol": [symbol if one else f"{symbol}-open" for one in sure],
            "line": {"color": colour, "width": 1.2},
        },
        name=label,
        legendgroup=kind,
        hovertemplate=f"%{{text}}, {label}<br>%{{customdata[0]:+.2f}} (%{{customdata[1]:+.2f}} to "
        "%{customdata[2]:+.2f})<br>p = %{customdata[3]:.2g} by Holm, %{customdata[4]} components"
        "<extra></extra>",
    )
