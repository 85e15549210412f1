"""The role of a head in words, derived from its row of measurements, their intervals and their nulls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Row = Mapping[Any, Any]

# a head is diffuse if its sharpness lies below the first, and sharp from the second on
_DIFFUSE, _SHARP = 0.1, 0.5


def role(row: Row) -> str:
    """All traits of a head whose interval excludes its null.

    row : of `Explanation.heads`; a trait that is absent or NaN is not mentioned
    """

    def get(name: str) -> float:
        return _number(row, name)

    traits = {  # a comparison with NaN is false
        "sharp": get("sharpness_low") >= _SHARP,
        "diffuse": get("sharpness_high") < _DIFFUSE,
        "attends near its own position": get("diagonal_low") > max(get("diagonal_uniform_high"), 0.5),
        "attends at the season": get("period_share_low") > get("period_share_uniform_high"),
        "attends to a position without a time": get("untimed_low") > 0.5,
        "induction: attends to the successors of repeated values": (
            get("followed_score") > 0 and get("followed_sure") == 1
        ),
        "forecasts copy less without it": get("parroting_high") < 0,
        "forecasts copy more without it": get("parroting_low") > 0,
        "errors grow without it": get("mase_low") > 0,
        "errors shrink without it": get("mase_high") < 0,
    }
    return (
        f"{'; '.join(words for words, holds in traits.items() if holds) or 'no trait differs from its null'}."
    )


def facts(row: Row) -> tuple[str, ...]:
    """The measurements behind a role, in one sentence each."""
    found = [f"Role: {role(row)}"]
    if np.isfinite(_number(row, "sharpness")):
        keys = _number(row, "effective_keys")
        sharpness = _interval(row, "sharpness")
        found += [f"Effective number of keys: {keys:.1f}; sharpness {sharpness} (0: even, 1: a single key)."]
        found += [_shares(row)]
    else:
        found += ["Its queries have no choice of keys over time: attention statistics are undefined."]
    if np.isfinite(_number(row, "followed_score")):
        found.append(
            f"Attention to the successors of repeated values: {100 * _number(row, 'followed_score'):+.2g} "
            "percentage points relative to sequences without repetition (interval above 0 in "
            f"{100 * _number(row, 'followed_sure'):.0f} % of the lengths and counts tried)."
        )
    if np.isfinite(_number(row, "mase")):
        names = {"mase": "scaled error", "parroting": "parroting", "seasonality": "seasonality"}
        changes = [f"{words} {_interval(row, name, sign='+')}" for name, words in names.items()]
        found.append(f"Change without it: {', '.join(changes)}.")
    rank, effective = _number(row, "stable_rank"), _number(row, "stable_rank_effective")
    size = _number(row, "size")
    wrote = f"; contribution {_share(size)} of the forecast" if np.isfinite(size) else ""
    return *found, f"Stable rank {rank:.2f} (effective {effective:.2f}){wrote}."


def _shares(row: Row) -> str:
    near, even = (_share(_number(row, name)) for name in ("diagonal", "diagonal_uniform"))
    parts = [f"{near} within one position of the query's own time (an even head: {even})"]
    if np.isfinite(_number(row, "period_share")):
        at, even = (_share(_number(row, name)) for name in ("period_share", "period_share_uniform"))
        parts.append(f"{at} at multiples of the context's dominant period (even: {even})")
    untimed = _number(row, "untimed")
    if untimed > 0.005:
        parts.append(f"{_share(untimed)} on positions without a time (a register, an end token)")
    else:
        parts.append(f"mean lag {_number(row, 'lag'):.0f} steps")
    return f"Attention: {', '.join(parts)}."


def _share(value: float) -> str:
    return f"{100 * value:.2g} %" if 0.001 <= value < 0.1 else f"{100 * value:.0f} %"


def _number(row: Row, name: str) -> float:
    value = row.get(name)
    return float("nan") if value is None else float(value)


def _interval(row: Row, name: str, *, sign: str = "") -> str:
    values = [_number(row, column) for column in (name, f"{name}_low", f"{name}_high")]
    if not np.isfinite(values[0]):
        return "n/a"
    mean, low, high = (f"{value:{sign}.3g}" for value in values)
    return f"{mean} [{low}, {high}]"
