"""`python -m benchmarks.encoders`: how long encoders take for how small a file, by setting, on photos as they are and restored.

Time is that of the processor, so that neighbours disturb little; the least of several tries. The photos are those of the folder that
`DATA` names. docs/decisions/0027 keeps the table.
"""

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from benchmarks.script import shipped_network
from demo.photos import noisy
from shared.imaging import by_pillow, by_vips, tiles
from shared.imaging.pixels import Pixels
from trainer.execution import Network

SETS = ("CBSD68", "CID22")
Encode = Callable[[Pixels], bytes]


@dataclass(frozen=True)
class Setting:
    """What is compared: `used` is what shared/imaging/codec.py says."""

    name: str
    bits: int
    encode: Encode
    used: bool = False


def _pillow(format_: str, **options: Any) -> Encode:
    return lambda pixels: by_pillow.encode(pixels, format_, options)


def _vips(format_: str, **options: Any) -> Encode:
    return lambda pixels: by_vips.encode(pixels, 3, format_, options)


STRATEGIES = {"": 0, ", filtered": 1, ", huffman": 2, ", rle": 3}  # zlib's numbers


def settings() -> Iterator[Setting]:
    """All that are compared, by format."""
    for level, (words, strategy) in itertools.product((1, 2, 3, 4, 6), STRATEGIES.items()):
        if level == 1 or strategy < 2:  # the other two have no levels
            yield Setting(f"PNG, level {level}{words}", 8, _pillow("PNG", compress_level=level, compress_type=strategy))
    for level, kind in itertools.product((1, 3, 4), ("sub", "paeth", "all")):
        yield Setting(
            f"PNG by libvips, level {level}, {kind}", 8, _vips("PNG", compression=level, filter=kind), (level, kind) == (3, "all")
        )
    for level, kind in itertools.product((1, 2, 3, 6), ("sub", "paeth", "all")):
        encode = _vips("PNG", compression=level, filter=kind, bitdepth=16)
        yield Setting(f"PNG by libvips, level {level}, {kind}", 16, encode, (level, kind) == (3, "sub"))
    for bits, packing, predictor in itertools.product((8, 16), ("none", "lzw", "deflate"), ("none", "horizontal")):
        if packing != "none" or predictor == "none":
            used = (packing, predictor) == ("deflate", "horizontal")
            yield Setting(f"TIFF, {packing}, predictor {predictor}", bits, _vips("TIFF", compression=packing, predictor=predictor), used)
    for method, effort in ((0, 0), (0, 50), (1, 0), (1, 25), (1, 50), (2, 25), (4, 50)):
        encode = _pillow("WEBP", lossless=True, method=method, quality=effort, exact=True)
        yield Setting(f"WebP without loss, method {method}, effort {effort}", 8, encode, (method, effort) == (1, 0))
    for method in (0, 1, 2, 3, 4, 6):
        yield Setting(f"WebP of quality 95, method {method}", 8, _pillow("WEBP", quality=95, method=method, exact=True), method == 2)
    for words, more in {"": {}, ", optimized": {"optimize": True}, ", progressive": {"progressive": True}}.items():
        yield Setting(f"JPEG of quality 95, 4:4:4{words}", 8, _pillow("JPEG", quality=95, subsampling=0, **more), not more)


@click.command()
@click.option("--photos", "count", default=20, show_default=True)
@click.option("--tries", default=3, show_default=True)
@click.option("--only", multiple=True, help="Leave out the settings whose names begin otherwise.")
def main(count: int, tries: int, only: tuple[str, ...]) -> None:
    """Print the table, as Markdown."""
    clean = list(_photos(count))
    with tempfile.TemporaryDirectory(prefix="lacuna-bench-") as folder:
        network = shipped_network("auto", Path(folder))
        pictures = {bits: (_deep(clean, bits), [_restored(network, _deep([noisy(one)], bits)[0]) for one in clean]) for bits in (8, 16)}
    print("| bits | setting | clean, ms/Mpx | bytes/pixel | restored, ms/Mpx | bytes/pixel |\n| --- | --- | --- | --- | --- | --- |")
    for setting in (one for one in settings() if one.name.startswith(only or "")):
        figures = [figure for these in pictures[setting.bits] for figure in _measured(setting.encode, these, tries)]
        name = f"**{setting.name}**" if setting.used else setting.name
        print(f"| {setting.bits} | {name} | {figures[0]:.0f} | {figures[1]:.3f} | {figures[2]:.0f} | {figures[3]:.3f} |", flush=True)


def _photos(count: int) -> Iterator[Pixels]:
    """So many from each set in turn; uint8 RGB."""
    folder = Path(os.environ.get("DATA", "../shared/data"))
    each = [sorted((folder / name).glob("*.webp"))[::3] for name in SETS]
    for path in [path for pair in zip(*each, strict=False) for path in pair][:count]:
        with Image.open(path) as image:
            yield np.asarray(image.convert("RGB"))


def _deep(pictures: list[Pixels], bits: int) -> list[Pixels]:
    """With so many bits; what 16 bits have beyond 8 is noise, as in a camera's file."""
    if bits == 8:
        return pictures
    generator = np.random.default_rng(0)
    return [picture.astype(np.uint16) * np.uint16(256) + generator.integers(0, 256, picture.shape, dtype=np.uint16) for picture in pictures]


def _restored(network: Network, picture: Pixels) -> Pixels:
    height, width = picture.shape[:2]
    ((_, pixels),) = tiles.apply(network.run, picture, tiles.plan(height, width, network.halo, network.multiple))
    return pixels


def _measured(encode: Encode, pictures: list[Pixels], tries: int) -> tuple[float, float]:
    """Milliseconds of the processor for a megapixel, and bytes for a pixel, of all pictures together."""
    pixels = sum(picture.shape[0] * picture.shape[1] for picture in pictures)
    taken = bytes_ = 0.0
    for picture in pictures:
        tried = [_timed(encode, picture) for _ in range(tries)]
        taken += min(seconds for seconds, _ in tried)
        bytes_ += tried[0][1]
    return 1000 * taken / (pixels / 1e6), bytes_ / pixels


def _timed(encode: Encode, picture: Pixels) -> tuple[float, int]:
    """Seconds of the processor, and bytes."""
    began = time.process_time()
    size = len(encode(picture))
    return time.process_time() - began, size


if __name__ == "__main__":
    main()
