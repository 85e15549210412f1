"""Colours and words for things: one thing has one colour in every picture.

Okabe and Ito's colours, which stay apart for colour-blind readers and on light and dark pages.
Lines also differ by marker, so that nothing hangs on colour alone.
"""

from __future__ import annotations

from typing import Final

INK: Final = "#24292f"
MUTED: Final = "#7d8590"
GRID: Final = "#dfe3e8"

UNIT: Final = {"heads": "#0072B2", "mlp": "#D55E00", "both": "#009E73"}
UNIT_LABEL: Final = {"heads": "all heads", "mlp": "MLP", "both": "heads and MLP"}
UNIT_SYMBOL: Final = {"heads": "circle", "mlp": "square", "both": "diamond"}

STRATEGY: Final = {
    "high-to-low": "#0072B2",
    "low-to-high": "#E69F00",
    "svd-low-to-high": "#009E73",
    "svd-high-to-low": "#CC79A7",
    "random": "#8C8C8C",
}
STRATEGY_LABEL: Final = {
    "high-to-low": "highest stable rank first",
    "low-to-high": "lowest stable rank first",
    "svd-low-to-high": "lowest rank of attention maps first",
    "svd-high-to-low": "highest rank of attention maps first",
    "random": "random (mean)",
}
STRATEGY_SYMBOL: Final = {
    "high-to-low": "circle",
    "low-to-high": "square",
    "svd-low-to-high": "triangle-up",
    "svd-high-to-low": "triangle-down",
    "random": "diamond",
}

ATTENTION: Final = {
    "self": "#0072B2",
    "cross": "#D55E00",
    "time": "#009E73",
    "group": "#CC79A7",
    "variate": "#E69F00",
}
ATTENTION_SYMBOL: Final = {
    "self": "circle",
    "cross": "square",
    "time": "diamond",
    "group": "cross",
    "variate": "triangle-up",
}

SELECTION: Final = {"calibration": "#0072B2", "test": "#B5BAC1"}
SELECTION_LABEL: Final = {
    "calibration": "chosen on held-out calibration windows",
    "test": "chosen on the test windows (as in the paper)",
}

# models by their place in a study; with more of them than colours, symbols still differ
MODEL: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
MODEL_SYMBOL: Final = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "star",
    "triangle-down",
    "pentagon",
    "hexagon",
)
ARCHITECTURE: Final = {
    "encoder-decoder": "#0072B2",
    "decoder-only": "#D55E00",
    "encoder-only": "#009E73",
}
ARCHITECTURE_SYMBOL: Final = {
    "encoder-decoder": "circle",
    "decoder-only": "square",
    "encoder-only": "diamond",
}

# heads by what they attend to, and what is drawn against them
HEAD_SET: Final = {"sharp": "#D55E00", "diffuse": "#0072B2", "random": "#8C8C8C"}
HEAD_SET_LABEL: Final = {
    "sharp": "without the sharpest heads",
    "diffuse": "without the most diffuse heads",
    "random": "without random heads (mean of the draws)",
}
HEAD_SET_SYMBOL: Final = {"sharp": "square", "diffuse": "circle", "random": "diamond"}

STACK: Final = {"encoder": "#0072B2", "decoder": "#D55E00", "stack": "#009E73"}
STACK_SYMBOL: Final = {"encoder": "circle", "decoder": "square", "stack": "diamond"}

PART: Final = {"head": "#0072B2", "mlp": "#D55E00", "bias": "#8C8C8C", "embedding": "#009E73"}
PART_LABEL: Final = {"head": "one head", "mlp": "MLP", "bias": "bias", "embedding": "embedding"}
PART_SYMBOL: Final = {"head": "circle", "mlp": "square", "bias": "cross", "embedding": "diamond"}

# lies over whatever the page's ground is
ATTENTION_SCALE: Final = (
    (0.0, "rgba(0,114,178,0)"),
    (0.3, "rgba(0,114,178,0.4)"),
    (1.0, "rgba(0,114,178,1)"),
)

# ways of removing components
WAY: Final = {"search": "#0072B2", "whole layers": "#D55E00"}
WAY_LABEL: Final = {"search": "the way of the search", "whole layers": "whole layers only"}
WAY_SYMBOL: Final = {"search": "circle", "whole layers": "square"}

BEFORE: Final = "#0072B2"
AFTER: Final = "#D55E00"

RANK_SCALE: Final = "Cividis"
# blue: the forecast improves without the head; orange: it gets worse; the middle is no change
CHANGE_SCALE: Final = (
    (0.0, "#2166AC"),
    (0.25, "#92C5DE"),
    (0.5, "#F4F1EC"),
    (0.75, "#F0A35E"),
    (1.0, "#B2400A"),
)
# from redundant (few heads must stay) to needed
SHARE_SCALE: Final = ((0.0, "#E8EEF4"), (0.5, "#7FB0D6"), (1.0, "#08508A"))


def translucent(colour: str, alpha: float) -> str:
    """`#rrggbb` as a CSS rgba() colour."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
