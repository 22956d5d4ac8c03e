"""Bytes ↔ pixels, for files of 8 bits a channel: PNG and JPEG, grey or RGB, with or without alpha.

What is not pixels is kept: colour profile, EXIF, resolution. The picture is turned as EXIF says and the tag set to 1.
Named formats only: Pillow is never asked to guess what a stranger's bytes are.
"""

import contextlib
import io
import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from shared.errors import Refused
from shared.imaging import header
from shared.imaging.header import Header

Image.MAX_IMAGE_PIXELS = None  # our own limit is checked on the header, before Pillow sees the file

TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}
LOSSY = frozenset({"JPEG"})  # formats that do not give back the pixels they were given
LOWEST_QUALITY = 90
ORIENTATION = 0x0112
_TURNS = {  # TIFF 6.0, tag Orientation: what brings the stored rows upright
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip

_SIDEWAYS = (Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90)

# A PNG's text lies in Pillow's `info` beside these, under whatever name its writer chose: only there is it text.
_INFO: dict[str, type | tuple[type, ...]] = {
    "icc_profile": bytes,
    "exif": bytes,
    "xmp": bytes,
    "dpi": tuple,
    "transparency": (int, bytes, tuple),
}
_GREY_STEPS = {"L;2": 85, "L;4": 17}  # Pillow spreads grey of few bits over 0 … 255, but not the grey that is transparent
_HIGHEST_DPI = {"JPEG": 65_535, "PNG": 100_000_000}  # what the field of each format holds
_NO_EXIF = b"Exif\0\0"
_LONGEST_EXIF = 65_533  # bytes in one segment of a JPEG

_one_hears = threading.Lock()  # catching warnings is a matter of the whole process

# ITU-T T.81 annex K, table K.1: what libjpeg scales by its quality setting
_LUMINANCE = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
])  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A decoded picture, as a viewer displays it.

    `colour` is uint8 (height, width, 1 or 3); `alpha` is uint8 (height, width) or None and is carried through untouched.
    """

    header: Header
    colour: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None
    notes: list[str]
    kept: dict[str, Any] = field(repr=False)  # what Pillow writes back: icc_profile, exif, dpi, quality, subsampling


@dataclass(frozen=True)
class Encoded:
    """A file's bytes, its media type, and what was changed or dropped on the way."""

    data: bytes
    type: str
    notes: list[str]


def decode(file: BinaryIO, size: int, max_pixels: int) -> Source:
    """Decode a picture of `size` bytes. Raises `Refused` with an image code for what cannot be restored."""
    found = header.read(file, size, max_pixels)
    file.seek(0)
    notes: list[str] = []
    try:
        with _hearing_warnings(notes):
            image = Image.open(file, formats=[found.format])
        with image:
            if image.size != (found.width, found.height):  # the limit was checked on the one, and Pillow allocates the other
                raise Refused("image_corrupt", "It has two headers that contradict each other.")
            step = _GREY_STEPS.get(str(image.tile[0].args), 1) if image.tile else 1
            image.load()
            _disarm(image.info, step)
            kept = _kept(image)
            turn, kept["exif"] = _upright(image, notes)
            turned = image if turn is None else image.transpose(turn)
            if turn in _SIDEWAYS and kept["dpi"]:
                kept["dpi"] = kept["dpi"][::-1]
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise Refused("image_corrupt") from error
    except (OSError, SyntaxError, ValueError) as error:  # how Pillow says that the data are damaged
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the storage's matter, not the file's
        truncated = "truncated" in str(error)
        raise Refused("image_truncated" if truncated else "image_corrupt") from error
    colour, alpha = _split(turned, notes)
    return Source(found, colour, alpha, notes, kept)


def encode(colour: NDArray[np.uint8], source: Source, format_: str) -> Encoded:
    """`colour` (height, width, 1 or 3) with the alpha and the metadata of `source`, as a file; and notes on what changed.

    `format_` is keep, png or jpeg. Alpha cannot live in a JPEG, nor EXIF over 64 KiB: dropped, with a note.
    """
    target = source.header.format if format_ == "keep" else format_.upper()
    notes = []
    planes = colour[:, :, 0] if colour.shape[2] == 1 else colour
    if source.alpha is not None and target == "JPEG":
        notes.append("alpha_dropped")
    elif source.alpha is not None:
        planes = np.dstack([colour, source.alpha])
    options = {name: value for name, value in source.kept.items() if value is not None}
    if not all(0 <= side <= _HIGHEST_DPI[target] for side in options.get("dpi", ())):
        del options["dpi"]
    if target == "JPEG" and len(options.get("exif", b"")) > _LONGEST_EXIF:
        notes.append("exif_dropped")
        del options["exif"]
    if target == "PNG":
        options = {name: value for name, value in options.items() if name in ("icc_profile", "exif", "dpi")} | {"compress_level": 3}
    elif source.header.format != "JPEG":
        options |= {"quality": 95, "subsampling": 0}
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(planes)).save(out, format=target, **options)
    return Encoded(out.getvalue(), TYPES[target], notes)


def _disarm(info: dict[Any, Any], step: int) -> None:
    """Leave in `info` only what is of its kind, and the transparent grey in steps of the pixels' own."""
    for name, kind in _INFO.items():
        if name in info and not isinstance(info[name], kind):
            del info[name]
    if step != 1 and "transparency" in info:
        info["transparency"] *= step


def _kept(image: Image.Image) -> dict[str, Any]:
    kept: dict[str, Any] = {"icc_profile": image.info.get("icc_profile"), "dpi": image.info.get("dpi")}
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        sampling = JpegImagePlugin.get_sampling(image)
        kept |= {"quality": _quality(image.quantization), "subsampling": sampling if sampling in (0, 1, 2) else 0}
    return kept


def _quality(tables: dict[int, list[int]]) -> int:
    """The lowest of libjpeg's settings whose first table is, as a whole, no coarser than this one; never under 90."""
    if 0 not in tables:
        return LOWEST_QUALITY
    given = sum(tables[0][:64])
    for quality in range(LOWEST_QUALITY, 100):
        if np.clip((_LUMINANCE * (200 - 2 * quality) + 50) // 100, 1, 255).sum() <= given:
            return quality
    return 100


def _upright(image: Image.Image, notes: list[str]) -> tuple[Image.Transpose | None, bytes | None]:
    """What brings the picture upright, and its EXIF with the tag set to 1 and without the stale thumbnail.

    What of the EXIF cannot be read is dropped, with a note: damaged metadata must not cost the picture.
    """
    turn, data = None, None
    damaged = image.info.get("exif", _NO_EXIF) != _NO_EXIF
    try:
        with _hearing_warnings(notes):
            exif = image.getexif()  # empty where Pillow failed to read it already when it opened the file
            if exif:
                turn = _TURNS.get(exif.get(ORIENTATION, 1))
                exif[ORIENTATION] = 1
                data = exif.tobytes()
                damaged = False
    except (SyntaxError, ValueError, TypeError, KeyError, AttributeError, OSError, OverflowError, struct.error):
        damaged = True
    if damaged and "exif_corrupt" not in notes:
        notes.append("exif_corrupt")
    return turn, data


@contextlib.contextmanager
def _hearing_warnings(notes: list[str]) -> Iterator[None]:
    """Pillow warns where it skips what it cannot read of EXIF: that is a note here."""
    with _one_hears, warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        yield
    if any("PIL" in warning.filename for warning in heard) and "exif_corrupt" not in notes:
        notes.append("exif_corrupt")


def _split(image: Image.Image, notes: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    if image.mode == "P" or "transparency" in image.info:
        if image.mode == "P":
            notes.append("palette_expanded")
        transparent = "transparency" in image.info
        grey = image.mode in ("1", "L")
        image = image.convert(("LA" if grey else "RGBA") if transparent else "RGB")
    if image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise Refused("unsupported_format", f"Its pixels are of kind {image.mode}; convert it to 8-bit grey or RGB.")
    pixels = np.asarray(image, dtype=np.uint8)
    if pixels.ndim == 2:
        return pixels[:, :, np.newaxis], None
    if image.mode in ("LA", "RGBA"):
        return np.ascontiguousarray(pixels[:, :, :-1]), np.ascontiguousarray(pixels[:, :, -1])
    return pixels, None
