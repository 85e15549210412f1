"""Results of the laboratory: small models trained alike but for one thing, and their measurements."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

LABORATORY_FILE = Path(__file__).with_name("laboratory.parquet")


def laboratory() -> pd.DataFrame:
    """Every measurement of every trained model, a row each.

    Columns: run, condition, seed, question, differs (from the base, in words), architecture, layers, width,
    heads, steps, parameters, cpu_seconds (of the training), checkpoint_sha256; suite, measure, unit, metric,
    value. Changes are relative: 0.06 is 6 % worse. Training losses have the measure "loss"; units are steps.

    `python -m pretrain.laboratory results` in a checkout makes the file from the runs.

    >>> sorted({"run", "condition", "seed", "value"} - set(laboratory().columns))
    []
    """
    return pd.read_parquet(LABORATORY_FILE)
