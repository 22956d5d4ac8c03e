"""Pictures to learn from and to measure with, and the crops that training takes from them.

They come from folders, read into memory as 8-bit RGB, or from a packed data set, whose pixels are mapped and read only where
one looks at them.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.datasets import packed
from shared.errors import Fault, Refused
from shared.imaging import codec
from shared.models.manifest import DataUsed
from shared.trainings import recipe

MOST_PIXELS = 1_000_000_000  # of one picture: a folder on the command line is its owner's
SUFFIXES = {".png", ".webp", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}

Pixels = NDArray[np.integer[Any]]  # (height, width, 1 or 3), uint8 or uint16


@dataclass(frozen=True)
class Picture:
    """One picture, and in a paired set the clean one of the same scene as `target`, of the same shape and type."""

    name: str
    sha256: str  # of its file
    pixels: Pixels
    target: Pixels | None = None
    split_key: str = ""  # by which it is split; by default its hash

    @property
    def clean(self) -> Pixels:
        """What it should look like, where that is known."""
        return self.pixels if self.target is None else self.target

    @property
    def key(self) -> str:
        """By which it is split."""
        return self.split_key or self.sha256


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder itself (not of folders below it), in order of name. Raises `Refused` if there are none."""
    if not folder.is_dir():
        raise Refused("dataset_not_found", f"There is no folder {folder}.")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise Refused("dataset_not_found", f"{folder} holds no PNG, WebP, JPEG, TIFF or BMP pictures.")
    return files


def read(path: Path) -> Picture:
    """Read one picture of any mode and depth as 8-bit RGB, without its alpha. Raises `Refused`, naming the file."""
    data = path.read_bytes()
    try:
        pixels = codec.straight(codec.decode(io.BytesIO(data), len(data), MOST_PIXELS))
    except Refused as refused:
        raise Refused(refused.code, f"{path.name}: {refused.detail}") from refused
    return Picture(path.name, hashlib.sha256(data).hexdigest(), as_8bit(pixels))


def load(folders: Sequence[Path]) -> list[Picture]:
    """Every picture of the folders, each content once, in an order that depends on the contents only."""
    pictures = {picture.sha256: picture for folder in folders for picture in map(read, picture_files(folder))}
    return [pictures[sha256] for sha256 in sorted(pictures)]


def pairs(noisy: Path, clean: Path) -> list[Picture]:
    """The pictures of two folders that bear the same names, whatever their endings, in an order that depends on the contents only.

    Raises `Refused` if a name or a size has no counterpart.
    """
    targets = {path.stem: path for path in picture_files(clean)}
    made = []
    for path in picture_files(noisy):
        picture = read(path)
        if path.stem not in targets:
            raise Refused("dataset_not_found", f"{clean} has no picture called {path.stem}.")
        target = read(targets[path.stem])
        if target.pixels.shape != picture.pixels.shape:
            raise Refused("dataset_not_found", f"{path.name} is not as large as its clean counterpart.")
        both = hashlib.sha256((picture.sha256 + target.sha256).encode()).hexdigest()
        made.append(Picture(picture.name, both, picture.pixels, target.pixels))
    return sorted(made, key=lambda picture: picture.sha256)


def unpack(folder: Path) -> tuple[packed.Index, list[Picture]]:
    """The data set whose two files lie in `folder` (shared/datasets/packed.py): what it says of itself, and its pictures, mapped.

    Raises `Fault("internal")` if the files do not fit together.
    """
    index = packed.Index.parse(json.loads((folder / packed.INDEX).read_bytes()))
    mapped = np.memmap(folder / packed.PIXELS, np.uint8, "r")

    def at(stored: packed.Stored, offset: int) -> Pixels:
        if offset < 0 or offset + stored.size > mapped.size:
            raise Fault("internal", f"The data set is damaged: {stored.name} lies outside its pixels.")
        raw = mapped[offset : offset + stored.size].view("<u2" if stored.bits == 16 else np.uint8)
        return raw.reshape(stored.shape)

    pictures = [
        Picture(
            stored.name, stored.sha256, at(stored, stored.offset), None if stored.target is None else at(stored, stored.target),
            stored.split_key,
        )
        for stored in index.images
    ]  # fmt: skip
    return index, sorted(pictures, key=lambda picture: picture.sha256)


def pack(folder: Path, kind: Any, pictures: Sequence[Picture]) -> packed.Index:
    """Write pictures as a packed data set into `folder`: for the command line, for tests and benchmarks."""
    images, place = [], 0
    with (folder / packed.PIXELS).open("wb") as file:

        def put(pixels: Pixels) -> int:
            nonlocal place
            offset = -(-place // packed.ALIGNED) * packed.ALIGNED
            file.write(b"\0" * (offset - place))
            data = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
            file.write(data)
            place = offset + len(data)
            return offset

        for picture in pictures:
            height, width, channels = picture.pixels.shape
            images.append(
                packed.Stored(
                    picture.name, picture.sha256, picture.key, height, width, 1 if channels == 1 else 3,
                    16 if picture.pixels.dtype.itemsize == 2 else 8, put(picture.pixels),
                    None if picture.target is None else put(picture.target),
                )
            )  # fmt: skip
    index = packed.Index(kind, fingerprint(pictures), tuple(images))
    (folder / packed.INDEX).write_text(json.dumps(index.dump()), encoding="utf-8")
    return index


def split(pictures: Sequence[Picture], validation_share: float) -> tuple[list[Picture], list[Picture]]:
    """(training, validation) by content hash, so that a held-out picture stays held out when the set grows.

    Both have at least one picture if there are two that do not look the same, and any are to be held out at all.
    """
    keys = sorted({picture.key for picture in pictures}, key=lambda key: (int(key[:8], 16), key))
    held_out = {key for key in keys if recipe.is_held_out(key, validation_share)}
    if validation_share:
        held_out = (held_out | {*keys[:1]}) - {*keys[-1:]}
    return (
        [picture for picture in pictures if picture.key not in held_out],
        [picture for picture in pictures if picture.key in held_out],
    )


def fingerprint(pictures: Sequence[Picture]) -> str:
    """One SHA-256 for the whole set, whatever the order."""
    return hashlib.sha256("\n".join(sorted(picture.sha256 for picture in pictures)).encode()).hexdigest()


def used(sets: Mapping[Path, Sequence[Picture]], terms: Sequence[str]) -> list[DataUsed]:
    """What a manifest says of folders and their pictures; `terms` are theirs in order, as far as they are stated."""
    return [
        DataUsed(name=folder.name, sha256=fingerprint(found), images=len(found), terms=terms[index] if index < len(terms) else "not stated")
        for index, (folder, found) in enumerate(sets.items())
    ]


def as_8bit(pixels: Pixels) -> NDArray[np.uint8]:
    """(height, width, 1 or 3) of 8 or 16 bit → (height, width, 3), uint8; grey as three equal channels."""
    levels = pixels if pixels.dtype == np.uint8 else np.round(pixels / np.float32(np.iinfo(pixels.dtype).max) * 255)
    return np.asarray(levels if pixels.shape[2] == 3 else np.repeat(levels, 3, axis=2), dtype=np.uint8)


def light(pixels: Pixels) -> NDArray[np.float32]:
    """(height, width, 1 or 3) of 8 or 16 bit → (height, width, 3), float32 in 0..1; grey as three equal channels."""
    scaled = pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    return scaled if pixels.shape[2] == 3 else np.repeat(scaled, 3, axis=2)


def half(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """A crop at half its width and height (Lanczos): finer detail per pixel, and less of a camera's own noise and JPEG."""
    size = (pixels.shape[1] // 2, pixels.shape[0] // 2)
    planes = [Image.fromarray(np.ascontiguousarray(pixels[:, :, channel])).resize(size, Image.Resampling.LANCZOS) for channel in range(3)]
    return np.asarray(np.clip(np.stack([np.asarray(plane) for plane in planes], axis=2), 0, 1))


class Crops:
    """Random crops, flipped and rotated; pictures are drawn in proportion to their pixels. Of a pair both are cropped alike."""

    def __init__(self, pictures: Sequence[Picture], patch: int, half_share: float = 0.0) -> None:
        """`patch` is the side of a crop in pixels; smaller pictures are left out. `half_share` of the crops: pictures at half size.

        Raises `Refused` if no picture is left.
        """
        self.patch = patch
        self.sources: list[tuple[Picture, int]] = []  # and by how much it is made smaller
        weights: list[float] = []
        for shrink, share in ((1, 1 - half_share), (2, half_share)):
            fitting = [picture for picture in pictures if min(picture.pixels.shape[:2]) >= patch * shrink]
            if share and not fitting:
                which = "No picture to learn from" if shrink == 1 else "No picture at half its size"
                raise Refused("invalid_field", f"{which} is at least {patch} pixels wide and high.", fields={"patch": "too large"})
            if share:
                areas = [picture.pixels.shape[0] * picture.pixels.shape[1] for picture in fitting]
                self.sources += [(picture, shrink) for picture in fitting]
                weights += [share * area / sum(areas) for area in areas]
        self.share = np.cumsum(weights)

    def draw(self, count: int, generator: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`count` crops as (pictures, targets), each float32 (count, patch, patch, 3) in 0..1; the same array if there are no pairs."""
        given = np.empty((count, self.patch, self.patch, 3), dtype=np.float32)
        wanted = given if self.sources[0][0].target is None else np.empty_like(given)
        for index in range(count):
            place = int(np.searchsorted(self.share, generator.random(), side="right").clip(0, len(self.sources) - 1))
            picture, shrink = self.sources[place]
            side = self.patch * shrink
            top = int(generator.integers(0, picture.pixels.shape[0] - side + 1))
            left = int(generator.integers(0, picture.pixels.shape[1] - side + 1))
            quarters, mirrored = int(generator.integers(0, 4)), bool(generator.random() < 0.5)
            for pixels, crops in ((picture.pixels, given), (picture.target, wanted)):
                if pixels is None:
                    continue
                crop = light(pixels[top : top + side, left : left + side])
                crop = np.rot90(crop if shrink == 1 else half(crop), quarters)
                crops[index] = crop[:, ::-1] if mirrored else crop
        return given, wanted
