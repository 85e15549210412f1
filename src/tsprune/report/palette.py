"""Colours, labels and markers: one thing looks the same in every figure.

The colours are Okabe and Ito's, which stay distinct for colour-blind readers and on light and dark pages.
Lines also differ by marker, so that no distinction depends on colour alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

INK: Final = "#24292f"
MUTED: Final = "#7d8590"
GRID: Final = "#dfe3e8"
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
AMBER, SKY, GREY = "#E69F00", "#56B4E9", "#8C8C8C"


@dataclasses.dataclass(frozen=True)
class Style:
    """The look of one thing; `symbol` is plotly's name of a marker."""

    colour: str
    label: str = ""
    symbol: str = "circle"


Styles = Mapping[str, Style]

OTHER: Final = Style(MUTED)
UNIT: Final[Styles] = {
    "heads": Style(BLUE, "all heads"),
    "mlp": Style(ORANGE, "MLP", "square"),
    "both": Style(GREEN, "heads and MLP", "diamond"),
}
KIND: Final[Styles] = {"head": Style(BLUE, "heads"), "mlp": Style(ORANGE, "MLPs", "square")}
STRATEGY: Final[Styles] = {
    "high-to-low": Style(BLUE, "highest stable rank first"),
    "low-to-high": Style(AMBER, "lowest stable rank first", "square"),
    "svd-low-to-high": Style(GREEN, "lowest rank of attention maps first", "triangle-up"),
    "svd-high-to-low": Style(PINK, "highest rank of attention maps first", "triangle-down"),
    "random": Style(GREY, "random (mean)", "diamond"),
}
ATTENTION: Final[Styles] = {
    "self": Style(BLUE),
    "cross": Style(ORANGE, symbol="square"),
    "time": Style(GREEN, symbol="diamond"),
    "group": Style(PINK, symbol="cross"),
    "variate": Style(AMBER, symbol="triangle-up"),
}
SELECTION: Final[Styles] = {
    "calibration": Style(BLUE, "must stay (calibration windows)"),
    "test": Style("#B5BAC1", "must stay (test windows, as the paper)"),
}
ARCHITECTURE: Final[Styles] = {
    "encoder-decoder": Style(BLUE, "encoder-decoder"),
    "decoder-only": Style(ORANGE, "decoder-only", "square"),
    "encoder-only": Style(GREEN, "encoder-only", "diamond"),
}
HEAD_SET: Final[Styles] = {
    "sharp": Style(ORANGE, "without the sharpest heads", "square"),
    "diffuse": Style(BLUE, "without the most diffuse heads"),
    "random": Style(GREY, "without random heads (mean over draws)", "diamond"),
}
STACK: Final[Styles] = {
    "encoder": Style(BLUE, "encoder"),
    "decoder": Style(ORANGE, "decoder", "square"),
    "stack": Style(GREEN, "stack", "diamond"),
}
PART: Final[Styles] = {
    "head": Style(BLUE, "one head"),
    "mlp": Style(ORANGE, "MLP", "square"),
    "bias": Style(GREY, "bias", "cross"),
    "embedding": Style(GREEN, "embedding", "diamond"),
}
WAY: Final[Styles] = {
    "search": Style(BLUE, "plan search"),
    "whole layers": Style(ORANGE, "whole layers only", "square"),
}
RUNTIME: Final[Styles] = {
    "torch": Style(BLUE, "torch"),
    "torch-bfloat16": Style(SKY, "torch, bfloat16", "square"),
    "torch-compiled": Style(GREEN, "torch, compiled", "diamond"),
    "onnx-fp32": Style(ORANGE, "ONNX, fp32", "triangle-up"),
    "onnx-int8": Style(PINK, "ONNX, int8", "x"),
}
UNBEATEN: Final = Style(MUTED, "nothing is faster and better")
BEFORE: Final = Style(BLUE, "before")
AFTER: Final = Style(ORANGE, "after")

# models by their place in a study; with more models than colours, symbols still differ
_MODEL: Final = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, GREY)
_MODEL_SYMBOL: Final = (
    *("circle", "square", "diamond", "triangle-up", "star", "triangle-down", "pentagon", "hexagon"),
)

RANK_SCALE: Final = "Cividis"
# transparent at 0: the page's background shows through
ATTENTION_SCALE: Final = [
    [0.0, "rgba(0,114,178,0)"],
    [0.3, "rgba(0,114,178,0.4)"],
    [1.0, "rgba(0,114,178,1)"],
]
# blue: the forecast improves without the head; orange: it gets worse
CHANGE_SCALE: Final = [
    [0.0, "#2166AC"],
    [0.25, "#92C5DE"],
    [0.5, "#F4F1EC"],
    [0.75, "#F0A35E"],
    [1.0, "#B2400A"],
]
# light: redundant (few heads must stay); dark: needed
SHARE_SCALE: Final = [[0.0, "#E8EEF4"], [0.5, "#7FB0D6"], [1.0, "#08508A"]]


def numbered(index: int, label: str) -> Style:
    """The style of model number `index` of a study."""
    return Style(_MODEL[index % len(_MODEL)], label, _MODEL_SYMBOL[index % len(_MODEL_SYMBOL)])


def translucent(colour: str, alpha: float) -> str:
    """`#rrggbb` as a CSS rgba() colour."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
