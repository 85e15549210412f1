"""What a head does, in words that follow from its row of numbers, their intervals and their nulls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Row = Mapping[Any, Any]

EVEN, PICKY = 0.1, 0.5  # sharpness below which a head is called even, and from which it is called sharp


def role(row: Row) -> str:
    """The role of a head: every trait that stands clear of its null, interval and all.

    row : of `Explanation.heads`; what it lacks, or is NaN, is not spoken of
    """
    traits = [words for words, holds in _traits(row).items() if holds]
    if not traits:
        return "no trait that stands clear of its null."
    text = "; ".join(traits)
    return f"{text}."


def _traits(row: Row) -> dict[str, bool]:
    """Words -> whether they are true; a comparison with NaN is not."""
    get = _getter(row)
    return {
        "sharp": get("sharpness_low") >= PICKY,
        "an averager": get("sharpness_high") < EVEN,
        "looks around its own position": get("diagonal_low") > max(get("diagonal_uniform_high"), 0.5),
        "looks at the season": get("period_share_low") > get("period_share_uniform_high"),
        "rests on a position without a time": get("untimed_low") > 0.5,
        "finds what followed a repetition": get("followed_score") > 0 and get("followed_sure") == 1,
        "forecasts copy less without it": get("parroting_high") < 0,
        "forecasts copy more without it": get("parroting_low") > 0,
        "errors grow without it": get("mase_low") > 0,
        "errors shrink without it": get("mase_high") < 0,
    }


def facts(row: Row) -> tuple[str, ...]:
    """The numbers behind a role, one sentence a kind of measurement."""
    get = _getter(row)
    found = [f"Role: {role(row)}"]
    if np.isfinite(get("sharpness")):
        found.append(
            f"Attends to {get('effective_keys'):.1f} keys (effective number); sharpness "
            f"{_interval(row, 'sharpness')} (0: even, 1: a single key)."
        )
        found.append(_shares(row))
    else:
        found.append("Its queries have no choice of keys over time, so its attention says nothing.")
    if np.isfinite(get("followed_score")):
        found.append(
            f"Attention to what followed the same values before: {100 * get('followed_score'):+.2g} "
            "percentage points in random sequences that repeat, over ones that do not (above 0, interval "
            f"and all, in {100 * get('followed_sure'):.0f} % of the lengths and counts tried)."
        )
    if np.isfinite(get("mase")):
        found.append(
            f"Without it: scaled error {_interval(row, 'mase', sign='+')}, parroting "
            f"{_interval(row, 'parroting', sign='+')}, seasonality {_interval(row, 'seasonality', sign='+')}."
        )
    rank = f"Stable rank {get('stable_rank'):.2f} (effective {get('stable_rank_effective'):.2f})"
    size = get("size")
    found.append(rank + (f"; it wrote {_share(size)} of the forecast." if np.isfinite(size) else "."))
    return tuple(found)


def _shares(row: Row) -> str:
    get = _getter(row)
    parts = [
        f"{_share(get('diagonal'))} of its attention lies within one position of its own time "
        f"(an even head's: {_share(get('diagonal_uniform'))})"
    ]
    if np.isfinite(get("period_share")):
        parts.append(
            f"{_share(get('period_share'))} at multiples of the context's dominant period "
            f"(even: {_share(get('period_share_uniform'))})"
        )
    if get("untimed") > 0.005:
        parts.append(f"{_share(get('untimed'))} on positions without a time (a register, an end mark)")
    else:
        parts.append(f"{get('lag'):.0f} steps away on average")
    return f"{', '.join(parts)}."


def _share(value: float) -> str:
    return f"{100 * value:.2g} %" if 0.001 <= value < 0.1 else f"{100 * value:.0f} %"


def _getter(row: Row) -> Any:
    def get(name: str) -> float:
        value = row.get(name)
        return float("nan") if value is None else float(value)

    return get


def _interval(row: Row, name: str, *, sign: str = "") -> str:
    get = _getter(row)
    values = (get(name), get(f"{name}_low"), get(f"{name}_high"))
    if not np.isfinite(values[0]):
        return "n/a"
    mean, low, high = (f"{value:{sign}.3g}" for value in values)
    return f"{mean} [{low}, {high}]"
