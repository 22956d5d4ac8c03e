"""Bytes ↔ pixels: JPEG, PNG, TIFF, WebP and BMP, with 8 or 16 bits a channel, grey or RGB, with or without alpha.

What is not pixels is kept: colour profile, EXIF, XMP, IPTC, resolution. The picture is turned as EXIF says and the tag set
to 1. How the formats keep all that: `containers/`; who packs the pixels: `by_pillow.py` where it is exact, else `by_vips.py`,
which also writes most PNG, for it is quicker (docs/decisions/0027).
"""

import io
import re
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import numpy as np

from shared.errors import Refused
from shared.imaging import by_pillow, by_vips, header
from shared.imaging.containers import bmp, exif, jpeg, png, tiff, webp
from shared.imaging.containers.described import Header, Metadata
from shared.imaging.pixels import Pixels, in_eight_bits, unassociated, upright

TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "TIFF": "image/tiff", "WEBP": "image/webp", "BMP": "image/bmp"}
_DEEP = {"PNG", "TIFF"}  # formats of 16 bits a channel
_HIGHEST_DPI = {"JPEG": 65_535, "PNG": 100_000_000, "BMP": 50_000_000}  # what the field of each format holds
_TINY_PIXELS = 16_384  # up to which Pillow has written a PNG before libvips, the faster one, has begun
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>))[2-8](?=[\"'<])")


@dataclass(frozen=True)
class Source:
    """A decoded picture, as a viewer displays it.

    `colour` is uint8 or uint16 (height, width, 1 or 3); `alpha` is (height, width) or None, `extra` (height, width, n) or
    None; both are of the same type as `colour` and carried through untouched. `packing` is how the file was written.
    """

    header: Header
    colour: Pixels
    alpha: Pixels | None
    notes: list[str]
    kept: Metadata = field(repr=False)
    extra: Pixels | None = None
    packing: dict[str, Any] = field(default_factory=dict)
    kinds: tuple[int, ...] = ()  # of the channels behind the colour, in a TIFF's words and order


@dataclass(frozen=True)
class Encoded:
    """A file's bytes, its media type, its bits a channel, and what was changed or dropped on the way."""

    data: bytes
    type: str
    bits: int
    notes: list[str]


def decode(file: BinaryIO, size: int, max_pixels: int) -> Source:
    """Decode a picture of `size` bytes. Raises `Refused` with an image code for what cannot be restored."""
    found = header.read(file, size, max_pixels)
    pixels, kept, packing, kinds, notes = _READERS[found.format](file, size, found)
    inks = {"L": 1, "LA": 1, "CMYK": 4}.get(found.mode, 3) if found.mode != "P" else 1 if pixels.shape[2] < 3 else 3
    colour, others = pixels[:, :, :inks], pixels[:, :, inks:]
    if inks == 4:
        colour, profile = by_vips.rgb_of(colour, kept.profile)
        kept = replace(kept, profile=profile, colour=())
        notes.append("converted_from_cmyk")
    if others.shape[2] and not kinds:
        kinds = (tiff.UNASSOCIATED,) + (0,) * (others.shape[2] - 1)
    at = _alpha_at(kinds)
    alpha = None if at is None else others[:, :, at]
    further = [place for place in range(len(kinds)) if place != at]
    orientation = exif.orientation(kept.exif)
    kept = exif.upright(replace(kept, dpi=kept.dpi or exif.dpi(kept.exif)), sideways=orientation >= 5)
    if kept.xmp:
        kept = replace(kept, xmp=_XMP_ORIENTATION.sub(rb"\g<1>1", kept.xmp))
    return Source(
        header=found,
        colour=upright(colour, orientation),
        alpha=None if alpha is None else upright(alpha, orientation),
        notes=list(dict.fromkeys(notes)),
        kept=kept,
        extra=upright(others[:, :, further], orientation) if further else None,
        packing=packing,
        kinds=kinds,
    )


def straight(source: Source) -> Pixels:
    """Its colour as formats other than TIFF hold it: not multiplied by its alpha. Itself, if it is not."""
    if source.alpha is None or not associated(source):
        return source.colour
    return unassociated(source.colour, source.alpha)


def associated(source: Source) -> bool:
    """Whether its colour is multiplied by its alpha."""
    at = _alpha_at(source.kinds)
    return at is not None and source.kinds[at] == tiff.ASSOCIATED


def _alpha_at(kinds: tuple[int, ...]) -> int | None:
    return next((place for place, kind in enumerate(kinds) if kind in {tiff.ASSOCIATED, tiff.UNASSOCIATED}), None)


_Read = tuple[Pixels, Metadata, dict[str, Any], tuple[int, ...], list[str]]


def _png(file: BinaryIO, size: int, found: Header) -> _Read:
    kept, notes = png.metadata(file, size)
    data = png.pixels(file, size)
    if found.bits == 16:
        return by_vips.decode(data, found), kept, {}, (), notes
    pixels, _, more = by_pillow.decode(io.BytesIO(data), found)
    return pixels, kept, {}, (), notes + more


def _jpeg(file: BinaryIO, size: int, found: Header) -> _Read:
    kept, notes = jpeg.metadata(file, size)
    data, behind = jpeg.pixels(file, size, found)
    pixels, packing, more = by_pillow.decode(io.BytesIO(data), found)
    return pixels, kept, packing, (), notes + behind + more


def _webp(file: BinaryIO, size: int, found: Header) -> _Read:
    kept, notes = webp.metadata(file, size)
    lossless = webp.is_lossless(file, size)
    file.seek(0)
    pixels, _, more = by_pillow.decode(file, found)
    return pixels, kept, {"lossless": lossless}, (), notes + more


def _bmp(file: BinaryIO, size: int, found: Header) -> _Read:
    kept, notes = bmp.metadata(file, size)
    file.seek(0)
    pixels, _, more = by_pillow.decode(file, found)
    return pixels, kept, {}, (), notes + more


def _tiff(file: BinaryIO, size: int, found: Header) -> _Read:
    kept, notes = tiff.metadata(file, size)
    layout = tiff.first_layout(file, size)
    pixels = by_vips.decode(tiff.pixels(file, size), found)
    if found.mode == "P":
        notes.append("palette_expanded")
    elif pixels.shape[2] != layout.samples:
        raise Refused("image_corrupt", "Its pixels have other channels than its header says.")
    predictor = "horizontal" if layout.predicted else "none"
    return pixels, kept, {"compression": layout.compression, "predictor": predictor}, layout.extra, notes


_READERS = {"PNG": _png, "JPEG": _jpeg, "WebP": _webp, "BMP": _bmp, "TIFF": _tiff}


def encode(colour: Pixels, source: Source, format_: str, quality: int | None = None) -> Encoded:
    """`colour` (height, width, 1 or 3) with the alpha and the metadata of `source`, as a file; and notes on what changed.

    `format_` is keep, png, jpeg, tiff, webp or bmp. What the format cannot hold is dropped, with a note. `quality`, 1 to 100, is that
    of a JPEG, or of a WebP, which is then lossy; without it each has its own.
    """
    target = (source.header.format if format_ == "keep" else format_).upper()
    notes: list[str] = []
    channels = _channels(colour, source, target, notes)
    if channels.dtype == np.uint16 and target not in _DEEP:
        notes.append("depth_reduced")
        channels = in_eight_bits(channels)
    kept = source.kept
    if "grey_expanded" in notes and kept.profile is not None and kept.profile[16:20] == b"GRAY":
        notes.append("profile_dropped")  # it says nothing of RGB
        kept = replace(kept, profile=None)
    highest = _HIGHEST_DPI.get(target)
    if kept.dpi and highest and not all(0 <= side <= highest for side in kept.dpi):
        kept = replace(kept, dpi=None)
    same = source.header.format.upper() == target
    data = _WRITERS[target](channels, colour.shape[2], replace(source, kept=kept), same, quality, notes)
    return Encoded(data, TYPES[target], channels.dtype.itemsize * 8, notes)


def _channels(colour: Pixels, source: Source, target: str, notes: list[str]) -> Pixels:
    """Colour, alpha and further channels as the target holds them."""
    if target == "TIFF":
        at = _alpha_at(source.kinds)
        others = [] if source.extra is None else list(np.moveaxis(source.extra, 2, 0))
        if at is not None and source.alpha is not None:
            others.insert(at, source.alpha)
        return np.dstack([colour, *others]) if others else colour
    colour = straight(replace(source, colour=colour))
    if source.extra is not None:
        notes.append("channels_dropped")
    if target == "JPEG" and source.alpha is not None:
        notes.append("alpha_dropped")
    grey = colour.shape[2] == 1
    if grey and (target == "WEBP" or (target == "BMP" and source.alpha is not None)):
        notes.append("grey_expanded")
        colour = np.repeat(colour, 3, axis=2)
    if source.alpha is None or target == "JPEG":
        return colour
    return np.dstack([colour, source.alpha])


def _write_png(channels: Pixels, colours: int, source: Source, same: bool, quality: int | None, notes: list[str]) -> bytes:
    if channels.dtype == np.uint16:
        data = by_vips.encode(channels, colours, "PNG", {"compression": 3, "filter": "sub", "bitdepth": 16})
    elif channels.shape[0] * channels.shape[1] <= _TINY_PIXELS:
        data = by_pillow.encode(channels, "PNG", {"compress_level": 3})
    else:
        data = by_vips.encode(channels, colours, "PNG", {"compression": 3, "filter": "all"})
    kept = source.kept if same else replace(source.kept, colour=())
    return png.wrap(data, kept, exif.written(kept.exif))


def _write_jpeg(channels: Pixels, colours: int, source: Source, same: bool, quality: int | None, notes: list[str]) -> bytes:
    options = source.packing if same else {"quality": 95, "subsampling": 0}
    if quality is not None:
        options = options | {"quality": quality}
    if source.kept.dpi:
        options = options | {"dpi": source.kept.dpi}
    data, dropped = jpeg.wrap(by_pillow.encode(channels, "JPEG", options), source.kept, exif.written(source.kept.exif))
    notes += dropped
    return data


def _write_webp(channels: Pixels, colours: int, source: Source, same: bool, quality: int | None, notes: list[str]) -> bytes:
    lossless = quality is None and (source.packing["lossless"] if same else source.header.format != "JPEG")
    kept = source.kept
    described = exif.written(exif.with_dpi(kept.exif, kept.dpi))
    options = {"lossless": lossless, "quality": 0 if lossless else quality or 95, "method": 1 if lossless else 2, "exact": True}
    options |= {name: data for name, data in (("icc_profile", kept.profile), ("exif", described), ("xmp", kept.xmp)) if data}
    notes += ["iptc_dropped"] if kept.iptc else []
    return by_pillow.encode(channels, "WEBP", options)


def _write_bmp(channels: Pixels, colours: int, source: Source, same: bool, quality: int | None, notes: list[str]) -> bytes:
    height, width, count = channels.shape
    kept = source.kept
    notes += [f"{name}_dropped" for name, lost in (("exif", exif.tells(kept.exif)), ("xmp", kept.xmp), ("iptc", kept.iptc)) if lost]
    stride = (width * count + 3) // 4 * 4
    rows = np.zeros((height, stride), np.uint8)
    order = [0] if count == 1 else [2, 1, 0, *([3] if count == 4 else [])]
    rows[:, : width * count] = channels[::-1, :, order].reshape(height, width * count)
    return bmp.written(rows.tobytes(), width, height, count, source.kept)


def _write_tiff(channels: Pixels, colours: int, source: Source, same: bool, quality: int | None, notes: list[str]) -> bytes:
    options = source.packing if same else {"compression": "deflate", "predictor": "horizontal"}
    data = by_vips.encode(channels, colours, "TIFF", options)
    return tiff.wrap(data, source.kept, colours, source.kinds)


_WRITERS = {"PNG": _write_png, "JPEG": _write_jpeg, "WEBP": _write_webp, "BMP": _write_bmp, "TIFF": _write_tiff}
