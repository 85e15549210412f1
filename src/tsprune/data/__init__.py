"""Where forecasting windows come from."""

from tsprune.data.chaos import chaos
from tsprune.data.gift_eval import available, gift_eval
from tsprune.data.pocket import pocket
from tsprune.data.split import calibration_mask, split
from tsprune.data.suite import Configuration, Suite

__all__ = ["Configuration", "Suite", "available", "calibration_mask", "chaos", "gift_eval", "pocket", "split"]
