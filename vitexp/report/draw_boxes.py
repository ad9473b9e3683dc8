"""Boxes with class and score drawn on a photograph, in its own pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from vitexp.report.text import elide

if TYPE_CHECKING:
    import numpy as np

# Okabe and Ito's, as in figure.py, with the text colour that can be read on each.
COLOURS = (
    ("#0072B2", "white"),
    ("#E69F00", "black"),
    ("#009E73", "white"),
    ("#D55E00", "white"),
    ("#CC79A7", "black"),
    ("#56B4E9", "black"),
    ("#F0E442", "black"),
)
_NAME = 24


@dataclass(frozen=True, kw_only=True)
class DrawnBox:
    """One box: corners in pixels, the text at its upper left corner, and which colour, any whole number."""

    corners: Sequence[float]
    text: str
    colour: int


def draw(image: Image.Image, boxes: Sequence[DrawnBox]) -> Image.Image:
    """A copy of an RGB image with the boxes, the first on top; lines and letters grow with the image."""
    drawn = image.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    line = max(1, round(min(image.size) / 200))
    font = ImageFont.load_default(size=max(10, round(min(image.size) / 28)))
    for box in reversed(boxes):
        outline, ink = COLOURS[box.colour % len(COLOURS)]
        left, top, right, bottom = _inside(box.corners, image.size)
        pen.rectangle((left, top, right, bottom), outline=outline, width=line)
        if not box.text:
            continue
        text = elide(box.text, _NAME)
        _, _, width, height = pen.textbbox((0, 0), text, font=font)
        x = max(0.0, min(left, image.width - width - 2 * line))
        y = top - height - line if top > height + line else top
        pen.rectangle((x, y, x + width + 2 * line, y + height + line), fill=outline)
        pen.text((x + line, y), text, fill=ink, font=font)
    return drawn


def enlarged(pixels: "np.ndarray", short: int) -> tuple[Image.Image, float]:
    """uint8 (C, H, W) as an RGB image with its short side at least `short`, and by how much it grew."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).convert("RGB")
    factor = max(1.0, short / min(image.size))
    size = (round(image.width * factor), round(image.height * factor))
    return image.resize(size, Image.Resampling.BILINEAR), factor


def _inside(corners: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Corners in order and within the image, so that a box that leaves it keeps its lines."""
    left, top, right, bottom = corners
    width, height = size[0] - 1, size[1] - 1
    left, right = min(max(left, 0), width), min(max(right, 0), width)
    top, bottom = min(max(top, 0), height), min(max(bottom, 0), height)
    return min(left, right), min(top, bottom), max(left, right), max(top, bottom)
