"""Heads are ranked by what falls without them, and named only if that is shown."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tsprune.explain.carriers import CARRIERS, carriers, carriers_sentence


def heads() -> pd.DataFrame:
    table = pd.DataFrame(
        {"address": [f"stack.0.self.head.{h}" for h in range(4)], "mase": [0.5, 0.0, 0.1, 0.2]}
    )
    parroting = np.array([-0.1, -0.3, 0.2, np.nan])
    for trait, change in (("parroting", parroting), ("seasonality", np.array([0.0, 0.1, -0.2, -0.1]))):
        table[trait], table[f"{trait}_low"], table[f"{trait}_high"] = change, change - 0.05, change + 0.05
        table[f"{trait}_p_holm"] = 0.04 if trait == "parroting" else 0.06
    return table


def test_the_ranked_list() -> None:
    found = carriers(heads())
    assert tuple(found) == CARRIERS.names
    parroting = found[found["trait"] == "parroting"]
    assert parroting["address"].str[-1].tolist() == ["1", "0", "2"]  # the head without a change is left out
    assert parroting["verdict"].tolist() == ["carries", "carries", "works against"]
    assert parroting["rank"].tolist() == [1, 2, 3]
    assert parroting["mase_change"].tolist() == [0.0, 0.5, 0.1]
    assert set(found.loc[found["trait"] == "seasonality", "verdict"]) == {"undecided"}  # not after Holm


def test_the_sentence() -> None:
    assert carriers_sentence(carriers(heads()), most=1) == (
        "Parroting: carried by stack.0.self.head.1 and 1 more. Seasonality: no head is shown to carry it."
    )
    assert carriers_sentence(carriers(pd.DataFrame())) == ""
