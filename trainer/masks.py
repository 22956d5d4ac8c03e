"""What a picture can lack: masks to train and to measure filling with. Each is the same for the same generator and size."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer import datasets

Mask = NDArray[np.bool_]  # (height, width), true where the picture is to be filled
Drawer = Callable[[int, int, np.random.Generator], Mask]

LOST_PIXELS = (0.3, 0.85)
CANVAS, CANVAS_PIXELS = 2, 384
LEAST_MISSING, MOST_MISSING = 0.01, 0.9
TRIES = 20
OPACITY = 24  # of 255: from here on a picture of damage counts as a hole


def pixels(share: float) -> Drawer:
    """Each pixel by itself, with the probability `share`."""

    def draw(height: int, width: int, generator: np.random.Generator) -> Mask:
        return generator.random((height, width)) < share

    return draw


def boxes(height: int, width: int, generator: np.random.Generator) -> Mask:
    """One to five rectangles, their sides an eighth to a third of the picture's shorter one."""
    mask = np.zeros((height, width), bool)
    side = min(height, width)
    for _ in range(generator.integers(1, 6)):
        tall, wide = generator.integers(max(1, side // 8), max(1, side // 3) + 1, 2)
        top, left = generator.integers(0, height - tall + 1), generator.integers(0, width - wide + 1)
        mask[top : top + tall, left : left + wide] = True
    return mask


def strokes(height: int, width: int, generator: np.random.Generator) -> Mask:
    """One to six strokes of a brush 5 to 24 pixels wide, that turns as it goes."""
    mask = _black(height, width)
    for _ in range(generator.integers(1, 7)):
        brush = int(generator.integers(5, 25))
        at = generator.random(2) * (width, height)
        angle = generator.random() * 2 * np.pi
        for _ in range(generator.integers(2, 9)):
            angle += generator.uniform(-1.2, 1.2)
            to = np.clip(
                at + generator.uniform(0.05, 0.25) * min(height, width) * np.array([np.cos(angle), np.sin(angle)]), 0, (width, height)
            )
            _line(mask, at, to, brush)
            at = to
    return mask.astype(bool)


def scratches(height: int, width: int, generator: np.random.Generator) -> Mask:
    """Two to eight scratches 1 to 4 pixels wide, nearly along one side of the picture and bent a little."""
    across = bool(generator.random() < 0.3)
    along, side = (width, height) if across else (height, width)
    mask = _black(along, side)
    for _ in range(generator.integers(2, 9)):
        brush = int(generator.integers(1, 5))
        start, end = np.sort(generator.uniform(-0.2, 1.2, 2)) * along
        at = np.array([generator.random() * side, start])
        lean = generator.normal(0, 0.08)
        for _ in range(6):
            to = at + np.array([lean + generator.normal(0, 0.02), 1]) * (end - start) / 6
            _line(mask, at, to, brush)
            at = to
    return (mask.T if across else mask).astype(bool)


def dust(height: int, width: int, generator: np.random.Generator) -> Mask:
    """Specks of 1 to 5 pixels radius, about thirty in a picture of 481 × 321."""
    mask = np.zeros((height, width), bool)
    rows, columns = np.ogrid[:height, :width]
    for _ in range(max(1, generator.poisson(height * width / 5000))):
        row, column = generator.random() * height, generator.random() * width
        tall, wide = generator.uniform(1, 5, 2)
        mask |= ((rows - row) / tall) ** 2 + ((columns - column) / wide) ** 2 <= 1
    return mask


def film(folder: Path) -> Drawer:
    """One to three pictures of damage from `folder` (grey, 0 none to 255 opaque), turned over and enlarged to cover the picture."""
    files = datasets.picture_files(folder)

    def draw(height: int, width: int, generator: np.random.Generator) -> Mask:
        mask = np.zeros((height, width), bool)
        for index in generator.integers(0, len(files), generator.integers(1, 4)):
            with Image.open(files[index]) as image:
                damage = image.convert("L")
            scale = max(height / damage.height, width / damage.width, 1)
            large = damage.resize((round(damage.width * scale + 0.5), round(damage.height * scale + 0.5)), Image.Resampling.BILINEAR)
            opaque = np.asarray(large) > OPACITY
            top, left = generator.integers(0, opaque.shape[0] - height + 1), generator.integers(0, opaque.shape[1] - width + 1)
            flip = np.s_[:: generator.choice([-1, 1]), :: generator.choice([-1, 1])]
            mask |= opaque[top : top + height, left : left + width][flip]
        return mask

    return draw


DRAWN: dict[str, Drawer] = {
    "strokes": strokes, "scratches": scratches, "boxes": boxes, "dust": dust, "pixels-50": pixels(0.5), "pixels-80": pixels(0.8),
}  # fmt: skip


def some_pixels(height: int, width: int, generator: np.random.Generator) -> Mask:
    """Each pixel by itself, with a probability drawn from 0.3 to 0.85."""
    return pixels(float(generator.uniform(*LOST_PIXELS)))(height, width, generator)


def drawer(kind: str) -> Drawer:
    """The masks of a kind as a recipe names them: those of `DRAWN`, `pixels`, or `pixels-N` for N of a hundred."""
    name, _, share = kind.partition("-")
    if name == "pixels":
        return pixels(int(share) / 100) if share else some_pixels
    return DRAWN[kind]


def for_training(kinds: Sequence[str], height: int, width: int, generator: np.random.Generator) -> Mask:
    """(height, width) of a crop: one of the kinds, drawn for a larger picture and cut out where something is missing.

    So strokes and boxes are as large, in pixels, as they are in pictures. The whole of a crop is never missing.
    """
    draw = drawer(kinds[int(generator.integers(0, len(kinds)))])
    tall, wide = (max(side, min(CANVAS * side, CANVAS_PIXELS)) for side in (height, width))
    for _ in range(TRIES):
        drawn = draw(tall, wide, generator)
        top, left = generator.integers(0, tall - height + 1), generator.integers(0, wide - width + 1)
        mask = drawn[top : top + height, left : left + width]
        if LEAST_MISSING <= mask.mean() <= MOST_MISSING:
            return mask
    return pixels(0.5)(height, width, generator)  # a crop of a few pixels: nothing else fits


def _black(height: int, width: int) -> NDArray[np.uint8]:
    return np.zeros((height, width), np.uint8)


def _line(mask: NDArray[np.uint8], at: NDArray[np.float64], to: NDArray[np.float64], brush: int) -> None:
    """A line with round ends; points are (x, y)."""
    import cv2

    cv2.line(mask, (round(at[0]), round(at[1])), (round(to[0]), round(to[1])), 1, brush)
