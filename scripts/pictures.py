"""The pictures of the concepts: python scripts/pictures.py writes docs/pictures/*.svg.

Two show the bundled TimesFM: forecasts with and without layers, and the singular values of two heads.
Lines and words have the colour of the page, into which the pictures are put (scripts/docs_hooks.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

import tsprune
from tsprune.scores.stable_rank import query_key, singular_values

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"
BLUE, ORANGE, GREEN = "#3b82c4", "#e0702b", "#2f9e77"  # told apart by colour-blind readers, too
WIDTH = 480


def picture(height: int, parts: Iterable[str]) -> str:
    """An SVG of a phone's width, whose text is read at that size."""
    style = "font:14px sans-serif;max-width:640px;width:100%;height:auto"
    box = f'viewBox="0 0 {WIDTH} {height}" style="{style}" fill="currentColor"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>'
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def text(x: float, y: float, words: str, *, anchor: str = "middle", colour: str = "") -> str:
    fill = f' fill="{colour}"' if colour else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{fill}>{escape(words)}</text>'


def box(
    x: float, y: float, width: float, height: float, words: str = "", *, colour: str = "", faint: bool = False
) -> str:
    """A rectangle with words in its middle; faint: with a broken border."""
    fill = f'fill="{colour}" fill-opacity="0.2"' if colour else 'fill="none"'
    line = f'stroke="{colour or "currentColor"}"' + (' stroke-dasharray="4 3"' if faint else "")
    frame = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4" {fill} {line}/>'
    return frame + (text(x + width / 2, y + height / 2 + 5, words) if words else "")


def arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """A line with a small head at its end, level or upright."""
    dx, dy = np.sign(to_x - x) * 6, np.sign(to_y - y) * 6
    one, other = (to_x - dx - dy / 2, to_y - dy - dx / 2), (to_x - dx + dy / 2, to_y - dy + dx / 2)
    head = f"M{one[0]:.1f},{one[1]:.1f} L{to_x:.1f},{to_y:.1f} L{other[0]:.1f},{other[1]:.1f}"
    return f'<path d="M{x:.1f},{y:.1f} L{to_x:.1f},{to_y:.1f} {head}" fill="none" stroke="currentColor"/>'


def line(xs: ArrayLike, ys: ArrayLike, colour: str, *, width: float = 2, broken: bool = False) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(np.asarray(xs), np.asarray(ys), strict=True))
    dashes = ' stroke-dasharray="5 4"' if broken else ""
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>'


def anatomy() -> str:
    """One layer, from the residual stream through heads and MLP and back."""
    parts = [line([30, 450], [190, 190], "currentColor", width=4), text(240, 215, "residual stream")]
    parts.append(arrow(60, 190, 60, 120))
    for head in range(4):
        x = 40 + 46 * head
        parts.append(box(x, 70, 42, 46, f"h{head}", colour=ORANGE if head == 2 else BLUE))
        parts.append(box(x, 34, 42, 24, "", colour=ORANGE if head == 2 else BLUE, faint=True))
    parts += [text(130, 51, "output projection"), text(130, 22, "self: an attention sublayer")]
    parts += [arrow(230, 46, 246, 46), arrow(252, 46, 252, 186), text(132, 140, "q, k, v of each head")]
    parts += [arrow(300, 190, 300, 120), box(280, 60, 100, 56, "mlp", colour=GREEN), arrow(384, 88, 420, 88)]
    parts += [
        arrow(424, 88, 424, 186),
        text(240, 245, "layer: stack.3"),
        text(240, 265, "stack.3.self.head.2", colour=ORANGE),
    ]
    return picture(280, parts)


def replay() -> str:
    """Eight layers, of which those after the ablated one are computed."""
    parts = []
    for layer in range(8):
        colour = "" if layer < 5 else (ORANGE if layer == 5 else BLUE)
        parts.append(box(14 + 58 * layer, 60, 46, 50, str(layer), colour=colour, faint=layer < 5))
        parts += [arrow(61 + 58 * layer, 85, 71 + 58 * layer, 85)] * (layer < 7)
    parts += [text(152, 40, "returned from the record"), text(327, 40, "ablated", colour=ORANGE)]
    return picture(150, [*parts, text(414, 135, "computed", colour=BLUE), text(152, 135, "not computed")])


def statistics() -> str:
    """Windows within series within configurations, and the interval over the latter."""
    parts: list[str] = []
    rng = np.random.default_rng(0)
    effects = np.array([0.02, 0.09, 0.05, 0.13, 0.04])
    for place, effect in enumerate(effects):
        x = 20 + 90 * place
        parts.append(box(x, 30, 80, 92))
        for row in range(3):
            parts += [
                box(x + 8 + 22 * at, 40 + 26 * row, 18, 16, colour=BLUE)
                for at in range(1 + (row + place) % 3)
            ]
        drawn = effect + rng.normal(0, 0.03, 6)
        parts += [
            f'<circle cx="{x + 40 + 450 * (d - effect):.1f}" cy="140" r="2.5" fill="{BLUE}"/>' for d in drawn
        ]
        parts.append(text(x + 40, 168, f"{100 * effect:+.0f} %"))
    parts += [text(240, 18, "configurations, with series (rows) of windows")]
    parts.append(line([120, 360], [196, 196], ORANGE, width=3))
    parts += [
        f'<circle cx="240" cy="196" r="5" fill="{ORANGE}"/>',
        text(240, 222, "mean and 95 % interval over configurations"),
    ]
    return picture(234, parts)


def ablation(model: tsprune.Forecaster) -> str:
    """The end of a real series with the forecasts of a whole model and of two ablated ones."""
    horizon, shown = 48, 96
    suite = tsprune.data.pocket()
    series = next(
        one.contexts[0] for one in suite.configurations if one.name.startswith("city_temperature/H")
    )
    found = {"whole model": model.forecast([series], horizon).median[0]}
    for name in ("stack.4", "stack.0"):
        with tsprune.ablate(model, name):
            found[f"without {name}"] = model.forecast([series], horizon).median[0]
    past = np.asarray(series[-shown:], float)
    low, high = (
        min(past.min(), *(f.min() for f in found.values())),
        max(past.max(), *(f.max() for f in found.values())),
    )

    def heights(values: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(190 - 170 * (np.asarray(values) - low) / (high - low))

    xs = np.linspace(10, 470, shown + horizon)
    parts = [line(xs[:shown], heights(past), "currentColor", width=1.5)]
    for (name, values), colour, y in zip(found.items(), (BLUE, GREEN, ORANGE), (215, 235, 255), strict=True):
        parts.append(line(xs[shown:], heights(values), colour, broken=colour == ORANGE))
        parts.append(text(240, y, name + " (broken line)" * (colour == ORANGE), colour=colour))
    return picture(270, [*parts, text(20, 20, "history", anchor="start")])


def stable_rank(model: tsprune.Forecaster) -> str:
    """Squared singular values of the sharpest and the most diffuse head."""
    heads = {}
    for sublayer, site in model.anatomy.sites():
        values = singular_values(*query_key(model, site, "paper"))
        heads |= {f"{sublayer}.head.{head}": values[place].numpy() for place, head in enumerate(site.numbers)}
    energies = {address: np.square(values / values[0]) for address, values in heads.items()}
    ranked = sorted(energies, key=lambda address: float(energies[address].sum()))
    parts = []
    for address, colour, shift in ((ranked[0], BLUE, 0), (ranked[-1], ORANGE, 11)):
        for place, share in enumerate(energies[address]):
            x, y = 30 + 27 * place + shift, 170 - 150 * share
            parts.append(f'<rect x="{x}" y="{y:.1f}" width="10" height="{170 - y:.1f}" fill="{colour}"/>')
        words = f"{address}: stable rank {energies[address].sum():.1f}"
        parts.append(text(460, 30 + 2 * shift, words, anchor="end", colour=colour))
    parts += [line([25, 470], [170, 170], "currentColor", width=1)]
    return picture(210, [*parts, text(240, 195, "squared singular values, largest first")])


def main() -> None:
    model = tsprune.load("bundled:timesfm", device="cpu")
    found = {"anatomy": anatomy(), "replay": replay(), "statistics": statistics()}
    found |= {"ablation": ablation(model), "stable-rank": stable_rank(model)}
    for name, svg in found.items():
        (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
