"""Folders of clean pictures, held in memory as uint8, and the crops that training takes from them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.errors import Refused

FORMATS = ("PNG", "WEBP", "JPEG", "TIFF")
SUFFIXES = {".png", ".webp", ".jpg", ".jpeg", ".tif", ".tiff"}


@dataclass(frozen=True)
class Picture:
    """One clean picture: uint8 (height, width, 3), and the SHA-256 of its file, by which it is split."""

    name: str
    sha256: str
    pixels: NDArray[np.uint8]


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder itself (not of folders below it), in order of name. Raises `Refused` if there are none."""
    if not folder.is_dir():
        raise Refused("dataset_not_found", f"There is no folder {folder}.")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise Refused("dataset_not_found", f"{folder} holds no PNG, WebP, JPEG or TIFF pictures.")
    return files


def read(path: Path) -> Picture:
    """Read one picture as 8-bit RGB."""
    data = path.read_bytes()
    with Image.open(path, formats=FORMATS) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=np.uint8)
    return Picture(path.name, hashlib.sha256(data).hexdigest(), pixels)


def load(folders: Sequence[Path]) -> list[Picture]:
    """Every picture of the folders, each content once, in an order that depends on the contents only."""
    pictures = {picture.sha256: picture for folder in folders for picture in map(read, picture_files(folder))}
    return [pictures[sha256] for sha256 in sorted(pictures)]


def split(pictures: Sequence[Picture], validation_share: float) -> tuple[list[Picture], list[Picture]]:
    """(training, validation) by content hash, so that a held-out picture stays held out when the set grows."""
    limit = int(validation_share * 2**32)
    held_out = {picture.sha256 for picture in pictures if int(picture.sha256[:8], 16) < limit}
    return (
        [picture for picture in pictures if picture.sha256 not in held_out],
        [picture for picture in pictures if picture.sha256 in held_out],
    )


def fingerprint(pictures: Sequence[Picture]) -> str:
    """One SHA-256 for the whole set, whatever the order."""
    return hashlib.sha256("\n".join(sorted(picture.sha256 for picture in pictures)).encode()).hexdigest()


def half(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture at half its width and height (Lanczos): finer detail per pixel, and less of a camera's own noise and JPEG."""
    height, width = pixels.shape[:2]
    size = (max(1, width // 2), max(1, height // 2))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS), dtype=np.uint8)


class Crops:
    """Random crops, flipped and rotated; pictures are drawn in proportion to their pixels."""

    def __init__(self, pictures: Sequence[Picture], patch: int, half_share: float = 0.0) -> None:
        """`patch` is the side of a crop in pixels; smaller pictures are left out. `half_share` of the crops come from `half`.

        Raises `Refused` if no picture is left.
        """
        self.patch = patch
        whole = [picture.pixels for picture in pictures]
        halves = [half(pixels) for pixels in whole] if half_share else []
        self.pixels: list[NDArray[np.uint8]] = []
        weights: list[float] = []
        for scaled, share in ((whole, 1 - half_share), (halves, half_share)):
            fitting = [pixels for pixels in scaled if min(pixels.shape[:2]) >= patch]
            if share and not fitting:
                which = "No picture" if scaled is whole else "No picture at half its size"
                raise Refused("dataset_not_found", f"{which} is at least {patch} pixels wide and high.")
            area = sum(pixels.shape[0] * pixels.shape[1] for pixels in fitting)
            self.pixels += fitting
            weights += [share * pixels.shape[0] * pixels.shape[1] / area for pixels in fitting]
        self.share = np.cumsum(weights)

    def draw(self, count: int, generator: np.random.Generator) -> NDArray[np.uint8]:
        """`count` crops, uint8 (count, patch, patch, 3)."""
        crops = np.empty((count, self.patch, self.patch, 3), dtype=np.uint8)
        for index in range(count):
            pixels = self.pixels[int(np.searchsorted(self.share, generator.random(), side="right").clip(0, len(self.pixels) - 1))]
            top = int(generator.integers(0, pixels.shape[0] - self.patch + 1))
            left = int(generator.integers(0, pixels.shape[1] - self.patch + 1))
            crop = pixels[top : top + self.patch, left : left + self.patch]
            crop = np.rot90(crop, int(generator.integers(0, 4)))
            crops[index] = crop[:, ::-1] if generator.random() < 0.5 else crop
        return crops
