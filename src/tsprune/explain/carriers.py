"""The heads that carry parroting and seasonality, ranked by the effect of their ablation."""

from __future__ import annotations

import pandas as pd

from tsprune.schema import Column, Schema, estimated

CARRIED = ("parroting", "seasonality")
_CARRIES, _AGAINST, _UNDECIDED = "carries", "works against", "undecided"
_SIGNIFICANCE = 0.05

CARRIERS = Schema(
    "carriers",
    Column("trait", "parroting or seasonality", dtype="text"),
    Column("rank", "1: the trait falls most without the head", dtype="count"),
    Column("address", "of the head", dtype="text"),
    *estimated("change", "change of the trait without the head", limits=""),
    Column("p_holm", "p-value of no change, after Holm's correction for the heads of the model"),
    Column("mase_change", "change of the scaled error without the head"),
    Column(
        "verdict",
        f"{_CARRIES}: the trait falls without the head, by interval and p_holm; {_AGAINST}: it rises",
        dtype="text",
    ),
)


def carriers(heads: pd.DataFrame) -> pd.DataFrame:
    """Heads in order of the change of each trait without them, with the columns of `CARRIERS`.

    heads : `HeadEffects.heads`; without effects the table is empty. Heads without a change are left out
    """
    parts = []
    for trait in CARRIED if CARRIED[0] in heads else ():
        known = heads.dropna(subset=[trait]).sort_values(trait, kind="stable", ignore_index=True)
        part = known[["address"]].assign(trait=trait, rank=known.index + 1, change=known[trait])
        part = part.assign(low=known[f"{trait}_low"], high=known[f"{trait}_high"])
        part = part.assign(p_holm=known[f"{trait}_p_holm"], mase_change=known["mase"], verdict=_UNDECIDED)
        sure = part["p_holm"] <= _SIGNIFICANCE
        part.loc[sure & (part["high"] < 0), "verdict"] = _CARRIES
        part.loc[sure & (part["low"] > 0), "verdict"] = _AGAINST
        parts.append(part)
    return CARRIERS.checked(pd.concat(parts, ignore_index=True)) if parts else pd.DataFrame()


def carriers_sentence(ranked: pd.DataFrame, *, most: int = 5) -> str:
    """The heads that are shown to carry each trait, in a sentence; "" without effects.

    most : heads that are named per trait
    """
    parts = []
    for trait, rows in ranked.groupby("trait", sort=False) if len(ranked) else ():
        shown = rows.loc[rows["verdict"] == _CARRIES, "address"].tolist()
        more = f" and {len(shown) - most} more" if len(shown) > most else ""
        names = f"carried by {', '.join(shown[:most])}{more}" if shown else "no head is shown to carry it"
        parts.append(f"{str(trait).capitalize()}: {names}.")
    return " ".join(parts)
