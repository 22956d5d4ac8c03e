"""Pictures of every mode and format that the worker knows, of noise, for memory."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.imaging import by_vips

LARGEST = 640


@dataclass(frozen=True)
class Mode:
    """How a file holds its pixels; `written` are the options of whoever writes it."""

    format: str
    channels: int
    bits: int = 8
    written: tuple[tuple[str, Any], ...] = ()


MODES = (
    *(Mode("PNG", channels, bits) for channels in (1, 2, 3, 4) for bits in (8, 16)),
    *(Mode("TIFF", channels, bits, (("compression", kind),)) for channels in (1, 3, 4) for bits in (8, 16) for kind in ("none", "lzw")),
    *(Mode("WEBP", channels, 8, (("lossless", lossless),)) for channels in (3, 4) for lossless in (True, False)),
    *(Mode("BMP", channels) for channels in (1, 3)),
    Mode("JPEG", 1), Mode("JPEG", 3), Mode("JPEG", 3, 8, (("progressive", True),)), Mode("JPEG", 4),
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """What is to be drawn."""

    mode: Mode
    height: int
    width: int

    def file(self, seed: int = 0) -> bytes:
        """Of noise."""
        mode, highest = self.mode, 2**self.mode.bits
        kind = np.uint16 if mode.bits == 16 else np.uint8
        pixels: NDArray[Any] = np.random.default_rng(seed).integers(0, highest, (self.height, self.width, mode.channels), dtype=kind)
        if mode.bits == 16 or mode.format == "TIFF":
            return by_vips.encode(pixels, 1 if mode.channels < 3 else 3, mode.format, dict(mode.written))
        return _by_pillow(pixels, mode)


def _by_pillow(pixels: NDArray[np.uint8], mode: Mode) -> bytes:
    image = Image.fromarray(pixels[:, :, 0] if mode.channels == 1 else pixels)
    if mode.format == "JPEG" and mode.channels == 4:
        image = Image.frombytes("CMYK", image.size, pixels.tobytes())
    file = io.BytesIO()
    image.save(file, mode.format, **dict(mode.written))
    return file.getvalue()


def mixed(count: int, seed: int, largest_first: bool = False) -> list[Picture]:
    """So many of random sizes and modes; on request every mode comes first, in the largest size."""
    generator = np.random.default_rng(seed)
    first = [Picture(mode, LARGEST, LARGEST) for mode in MODES] if largest_first else []
    sides = generator.integers(16, LARGEST + 1, (count - len(first), 2)).tolist()
    drawn = generator.integers(0, len(MODES), count - len(first)).tolist()
    return first + [Picture(MODES[mode], height, width) for mode, (height, width) in zip(drawn, sides, strict=True)]
