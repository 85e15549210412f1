"""Numbers formatted for people, and sentences about a study."""

from __future__ import annotations

import math

from tsprune.report.digest import HEADLINE, extreme_layers, pruning_at
from tsprune.studies.study_result import ModelStudy, Study
from tsprune.text import count

MISSING = "n/a"


def percent(change: float, *, signed: bool = True) -> str:
    """0.0612 -> "+6.12 %"; three significant digits below 100 %, whole numbers above."""
    if math.isnan(change):
        return MISSING
    if math.isinf(change):
        return "+inf %" if change > 0 else "-inf %"
    value = 100 * change
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:{'+' if signed else ''},.{digits}f} %"


def between(low: float, high: float) -> str:
    """The limits of an interval of changes: "+1.20 to +3.40 %"."""
    if math.isnan(low) or math.isnan(high):
        return MISSING
    return f"{percent(low).removesuffix(' %')} to {percent(high)}"


def ratio(value: float) -> str:
    """A ratio to Seasonal Naive: three decimals."""
    return MISSING if math.isnan(value) else f"{value:,.3f}"


def ratio_between(low: float, high: float) -> str:
    """The limits of an interval of ratios: "0.712 to 0.803"."""
    return MISSING if math.isnan(low) or math.isnan(high) else f"{ratio(low)} to {ratio(high)}"


def parameters(number: int) -> str:
    """1612345 -> "1.61 M"."""
    for size, unit in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number}"


def drawn(samples: int | None) -> str:
    """The source of a model's quantiles: "20 samples", or its own "quantiles"."""
    return "quantiles" if samples is None else count(samples, "sample")


def precision_of(model: ModelStudy) -> str:
    """The precision of a model's weights, with the change of its scores against float32 if it has another."""
    if not model.precision:
        return model.dtype
    found = ", ".join(f"{metric} {change.as_percent()}" for metric, change in model.precision.items())
    return f"{model.dtype} ({found} against float32)"


def windows_of(study: Study) -> str:
    """How many windows were forecast, and of how many if a budget or a failure left some out."""
    used = [int(model.baseline["windows"].sum()) for model in study.models]
    if not used or min(used) == study.windows:
        return count(study.windows, "window")
    least, most = min(used), max(used)
    return f"{least if least == most else f'{least} to {most}'} of {count(study.windows, 'window')}"


def claims_headline(study: Study) -> str:
    """The verdicts of a study in one sentence."""
    verdicts = [claim.verdict for claim in study.claims]
    outside = verdicts.count("not applicable")
    tested = count(len(verdicts) - outside, "claim")
    good, bad, open_ = (verdicts.count(verdict) for verdict in ("confirmed", "refuted", "undecided"))
    text = f"Of {tested} tested, {good} confirmed, {bad} refuted, {open_} undecided"
    if len(verdicts) == outside:
        text = "No claim of the paper was tested"
    elif outside:
        text += f"; {outside} not applicable"
    return f"{text}."


def pruning_finding(model: ModelStudy) -> str:
    """The loss of pruning by stable rank and at random, in a sentence; empty if nothing was pruned."""
    point = pruning_at(model)
    if point is None:
        return ""
    sentence = (
        f"{model.name}: removing {point.heads_removed} of its {point.heads_total} middle-layer heads "
        f"({point.percent:.0f} %) by stable rank, highest first, changes {HEADLINE} by "
        f"{percent(point.changes['high-to-low'].value)}"
    )
    if point.draws:
        draws = count(len(point.draws), "draw")
        sentence += f", at random by {percent(point.changes['random'].value)} (geometric mean of {draws})"
    return f"{sentence}."


def layer_finding(model: ModelStudy) -> str:
    """The layers whose ablation costs most and least, in a sentence; empty if there is one at most."""
    extremes = extreme_layers(model)
    if extremes is None or extremes[0] == extremes[1]:
        return ""
    worst, best = extremes
    unit = {"both": "layer", "heads": "layer's heads", "mlp": "layer's MLP"}[worst.unit]
    return (
        f"{model.name}: of single {unit} ablations, {worst.layer} hurts most ({percent(worst.change.value)} "
        f"{HEADLINE}) and {best.layer} least ({percent(best.change.value)})."
    )
