"""Sources of forecasting windows."""

from tsprune.data.chaos import chaos
from tsprune.data.gift_eval import available, gift_eval
from tsprune.data.pocket import pocket
from tsprune.data.sources import SOURCES, DataSource, open_suite
from tsprune.data.split import calibration_mask, split
from tsprune.data.suite import SUITE, Configuration, Suite

__all__ = [
    "SOURCES", "SUITE", "Configuration", "DataSource", "Suite", "available", "calibration_mask", "chaos",
    "gift_eval", "open_suite", "pocket", "split",
]  # fmt: skip
