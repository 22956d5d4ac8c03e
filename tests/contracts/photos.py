"""Pictures that are like photos: soft, coloured, each its own; and what becomes of them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Eight = NDArray[np.uint8]


def photo(seed: int, width: int = 96, height: int = 64, grey: bool = False) -> Eight:
    """(height, width, 1 or 3), without noise; another one for each seed."""
    coarse = np.random.default_rng(seed).integers(40, 216, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8)
    drawn = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(drawn.convert("L") if grey else drawn)
    return pixels[:, :, np.newaxis] if grey else pixels


def noisy(pixels: Eight, sigma: float = 15, seed: int = 0) -> Eight:
    """With noise as in a user's file: clipped and rounded."""
    added = np.random.default_rng(seed).normal(0, sigma, pixels.shape)
    return np.round(pixels + added).clip(0, 255).astype(np.uint8)


def packed(pixels: Eight, format_: str = "PNG", **options: Any) -> bytes:
    """As a file."""
    made = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(made, format_, **options)
    return made.getvalue()


def deep(pixels: Eight) -> bytes:
    """A grey PNG with 16 bits."""
    made = io.BytesIO()
    Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257).save(made, "PNG")
    return made.getvalue()


def put(folder: Path, files: dict[str, bytes]) -> Path:
    """Files below a folder."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder
