"""Seeds as replicates: the mean over the seeds of a condition, and the difference of two conditions."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats

from tsprune.statistics.estimate import LEVEL, UNKNOWN, Estimate

LEAST_SEEDS = 3  # of a condition that decides anything


def mean_of(values: pd.Series, limit: float = 0.0) -> Estimate:
    """The mean over seeds, with Student's t interval and its p-value against `limit`.

    Unknown without a value; without an interval for one seed, or for seeds that are all equal.
    """
    known = values.dropna().to_numpy(np.float64)
    if not len(known):
        return UNKNOWN
    if len(known) < 2 or np.ptp(known) == 0:
        return Estimate(float(known.mean()), math.nan, math.nan, math.nan, len(known))
    test = stats.ttest_1samp(known, limit)
    low, high = test.confidence_interval(LEVEL)
    return Estimate(float(known.mean()), float(low), float(high), float(test.pvalue), len(known))


def difference(values: pd.Series, others: pd.Series) -> Estimate:
    """The mean of `values` minus that of `others`, with Welch's interval and p-value.

    Unknown unless both have a value; without an interval unless both have two.
    """
    one, other = (part.dropna().to_numpy(np.float64) for part in (values, others))
    if not (len(one) and len(other)):
        return UNKNOWN
    mean, count = float(one.mean() - other.mean()), len(one) + len(other)
    if min(len(one), len(other)) < 2 or np.ptp(one) + np.ptp(other) == 0:
        return Estimate(mean, math.nan, math.nan, math.nan, count)
    test = stats.ttest_ind(one, other, equal_var=False)
    low, high = test.confidence_interval(LEVEL)
    return Estimate(mean, float(low), float(high), float(test.pvalue), count)


def over_seeds(values: pd.Series) -> str:
    """Mean and 95 % interval over seeds, in words; one seed has none, nor have seeds that are all equal."""
    found = mean_of(values)
    if not found.count:
        return "not measured"
    if found.has_interval:
        return with_limits(found.value, found.low, found.high)
    return f"{found.value:.3f}" if found.count == 1 else f"{found.value:.3f} (each)"


def with_limits(value: float, low: float, high: float) -> str:
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def shown_p(p: float) -> str:
    """A p-value with three digits."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
