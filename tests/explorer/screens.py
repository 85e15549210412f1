"""Screenshots of the explorer, compared with stored ones by their structure.

A stored screen is a whole page at a quarter of its size, and the boxes of its parts. Each part is compared
with its own stored picture in blocks of `BLOCK` pixels of that:

1. its left edge and its size, which another font changes by less than `SHIFT` pixels or `STRETCH`;
2. the order of the parts down the page;
3. the correlation of the blocks' brightness, and their mean difference. Another font moves letters within
   and between blocks; a part that is not drawn, or is drawn in other colours, has another pattern.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

SCREENS = Path(__file__).parent / "screens"
PARTS = ("map", "scale", "forecast", "measures", "losses", "attention", "lag", "writes")
QUARTER, BLOCK = 4, 2
SHIFT, STRETCH = 24, 0.15  # of edges in pixels, and of sizes
CORRELATION, DIFFERENCE = 0.7, 0.08  # of brightness, from 0 to 1
_COLOURS = 64  # of a stored picture

Boxes = dict[str, list[int]]
_BOXES = """
(parts) => Object.fromEntries(parts.map((id) => {
  const box = document.getElementById(id).getBoundingClientRect();
  return [id, [box.x + scrollX, box.y + scrollY, box.width, box.height].map(Math.round)];
}))
"""


def taken(page: Any) -> tuple[Image.Image, Boxes]:
    """The whole page at a quarter of its size, and the boxes of its parts in pixels of the page."""
    boxes: Boxes = page.evaluate(_BOXES, list(PARTS))
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    return picture.resize((picture.width // QUARTER, picture.height // QUARTER), Image.Resampling.BOX), boxes


def store(name: str, picture: Image.Image, boxes: Boxes) -> None:
    about = PngImagePlugin.PngInfo()
    about.add_text("boxes", json.dumps(boxes))
    SCREENS.mkdir(exist_ok=True)
    palette = picture.quantize(_COLOURS, dither=Image.Dither.NONE)
    palette.save(SCREENS / f"{name}.png", optimize=True, pnginfo=about)


def stored(name: str) -> tuple[Image.Image, Boxes]:
    with Image.open(SCREENS / f"{name}.png") as picture:
        assert isinstance(picture, PngImagePlugin.PngImageFile)
        return picture.convert("RGB"), json.loads(picture.text["boxes"])


def differences(found: tuple[Image.Image, Boxes], expected: tuple[Image.Image, Boxes]) -> list[str]:
    """The parts that are not where and as they were, and why; empty if all are."""
    (picture, boxes), (old, places) = found, expected
    faults = []
    for part in PARTS:
        (x, _, *size), (old_x, _, *old_size) = boxes[part], places[part]
        limits = [max(SHIFT, STRETCH * one) for one in old_size]
        if abs(x - old_x) > SHIFT or any(np.abs(np.subtract(size, old_size)) > limits):
            faults.append(f"{part} is at {boxes[part]}, not {places[part]}")
            continue
        now, before = _blocks(picture, boxes[part], places[part]), _blocks(old, places[part], places[part])
        spread = now.std() * before.std()
        alike = np.mean((now - now.mean()) * (before - before.mean())) / spread if spread > 0 else 0.0
        apart = np.abs(now - before).mean()
        if alike < CORRELATION or apart > DIFFERENCE:
            faults.append(f"{part}: correlation {alike:.2f}, difference {apart:.3f}")
    if _order(boxes) != _order(places):
        faults.append(f"the order is {_order(boxes)}, not {_order(places)}")
    return faults


def _order(boxes: Boxes) -> list[str]:
    return sorted(PARTS, key=lambda part: (boxes[part][1] // SHIFT, boxes[part][0]))


def _blocks(picture: Image.Image, box: list[int], shape: list[int]) -> np.ndarray:
    """Brightness from 0 to 1 of the blocks of a part, as many as a box of the size of `shape` has."""
    x, y, width, height = (side / QUARTER for side in box)
    count = [max(2, round(side / QUARTER / BLOCK)) for side in shape[2:]]
    part = picture.convert("L").resize(
        (count[0], count[1]),
        Image.Resampling.BOX,
        box=(x, y, min(x + width, picture.width), min(y + height, picture.height)),
    )
    return np.asarray(part, dtype=float) / 255
