"""The report's figures: pure functions from a study to a plotly figure.

Every function takes `columns`, the number of panels side by side (None: suited to a wide page). Figures that
differ only in `columns` have identical traces, so that a page stores the data once and two layouts. All
changes are drawn in percent.
"""

from tsprune.report.figures.attending import (
    attended_maps,
    induction_curves,
    kernel_points,
    mechanism_curves,
    parroting_ranked,
)
from tsprune.report.figures.forecasts import forecasts, head_portrait
from tsprune.report.figures.heads import (
    head_maps,
    heads_at_bars,
    heads_at_compared,
    rank_against_effect,
    score_agreement,
)
from tsprune.report.figures.layers import layer_curves, layers_compared, mlp_sensitivity
from tsprune.report.figures.pruning import accuracy_against_time, pruning_curves
from tsprune.report.figures.removal_figure import removal_curves
from tsprune.report.figures.stream_figure import forecast_parts, layer_similarity, residual_stream

__all__ = [
    "accuracy_against_time", "attended_maps", "forecast_parts", "forecasts", "head_maps",
    "head_portrait", "heads_at_bars", "heads_at_compared", "induction_curves", "kernel_points",
    "layer_curves", "layer_similarity", "layers_compared", "mechanism_curves", "mlp_sensitivity",
    "parroting_ranked", "pruning_curves", "rank_against_effect", "removal_curves", "residual_stream",
    "score_agreement",
]  # fmt: skip
