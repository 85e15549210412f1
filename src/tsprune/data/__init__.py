"""Sources of forecasting windows."""

from typing import TYPE_CHECKING

from tsprune.data.chaos import chaos
from tsprune.data.gift_eval import available, gift_eval
from tsprune.data.pocket import pocket, pocket_large
from tsprune.data.sources import SOURCES, DataSource, open_suite
from tsprune.data.split import calibration_mask, split
from tsprune.data.suite import SUITE, Configuration, Origins, Suite
from tsprune.lazy import lazily

if TYPE_CHECKING:
    from tsprune.data.laboratory import laboratory
    from tsprune.data.own.user_data import from_arrays, from_fev, from_file, from_frame, from_gluonts

__all__ = [
    "SOURCES", "SUITE", "Configuration", "DataSource", "Origins", "Suite", "available", "calibration_mask",
    "chaos", "from_arrays", "from_fev", "from_file", "from_frame", "from_gluonts", "gift_eval", "laboratory",
    "open_suite", "pocket", "pocket_large", "split",
]  # fmt: skip

if not TYPE_CHECKING:  # pyarrow takes 0.15 s, which help and refused arguments need not wait for
    __getattr__ = lazily(
        __name__,
        {
            "tsprune.data.laboratory": ["laboratory"],
            "tsprune.data.own.user_data": [
                "from_arrays", "from_fev", "from_file", "from_frame", "from_gluonts",
            ]
        },
    )  # fmt: skip
