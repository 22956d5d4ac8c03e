"""What a plain script does with a folder of noisy photos: one after the other, by the same functions as ours."""

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.photos import NAMES, noisy, photo
from shared.imaging import codec, tiles
from shared.models import registry
from trainer.execution import Network, choice

HEIGHT, WIDTH = 321, 481
NETWORK = ("denoise-fast", 1)  # the faster it is, the more weighs what is not pixels


def photos(count: int) -> list[tuple[str, bytes]]:
    """(name, file): cut from the demo's photos, with noise; half JPEG, half PNG."""
    generator = np.random.default_rng(0)
    files = []
    for index in range(count):
        clean = photo(NAMES[index % len(NAMES)])
        top, left = (int(generator.integers(0, max(1, size - side + 1))) for size, side in zip(clean.shape, (HEIGHT, WIDTH), strict=False))
        cut = clean[top : top + HEIGHT, left : left + WIDTH]
        below, beside = HEIGHT - cut.shape[0], WIDTH - cut.shape[1]  # one of the photos is a little smaller
        cut = noisy(np.pad(cut, ((0, below), (0, beside), *[(0, 0)] * (cut.ndim - 2)), mode="reflect"))
        kind, options = ("JPEG", {"quality": 92}) if index % 2 else ("PNG", {})
        file = io.BytesIO()
        Image.fromarray(cut).save(file, kind, **options)
        files.append((f"{index:03}.{kind.lower()}", file.getvalue()))
    return files


def photo_files(folder: Path, count: int) -> list[Path]:
    """The same, as files of the folder."""
    return [written(folder / name, data) for name, data in photos(count)]


def small_files(folder: Path, count: int, side: int = 32) -> list[Path]:
    """Noise, as PNG, so small that what is not pixels decides."""
    generator = np.random.default_rng(0)
    return [written(folder / f"{index:06}.png", png(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))) for index in range(count)]


def png(pixels: NDArray[np.uint8]) -> bytes:
    """As a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def written(path: Path, data: bytes) -> Path:
    """The file, there."""
    path.write_bytes(data)
    return path


def shipped_network(executor: str, cached: Path) -> Network:
    """The one that the homes of benchmarks restore with, run as the service runs it."""
    return choice.choose(executor, cached).load(registry.shipped_artifact(*NETWORK))


def restore_in_turn(network: Network, files: Iterable[Path], out: Path) -> None:
    """Read, restore, write each file, and sync it as ours is."""
    for path in files:
        data = path.read_bytes()
        source = codec.decode(io.BytesIO(data), len(data), 10**9)
        restored: NDArray[Any] = source.colour.copy()
        height, width = restored.shape[:2]
        for tile, pixels in tiles.apply(network.run, source.colour, tiles.plan(height, width, network.halo, network.multiple)):
            restored[tile.top : tile.bottom, tile.left : tile.right] = pixels
        with (out / path.name).open("wb") as file:
            file.write(codec.encode(restored, source, "keep").data)
            file.flush()
            os.fsync(file.fileno())
