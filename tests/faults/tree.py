"""A tree of pictures as people have them: crops of real photos in every format, size and depth, under names of all kinds.

Some are broken: half of these are refused when they are sent, the others fail only when a worker decodes them.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tests.bad_files import BAD
from tests.unit.pictures import chunk, image, saved

DATA = Path(os.environ.get("DATA", Path(__file__).parents[3] / "shared" / "data"))
SETS = ("CID22", "CLIC2025", "gb82", "IBM-MAX-samples")  # their terms allow a crop, for as long as a test takes
SIDES = (24, 29, 31, 37, 48, 53, 64, 71, 83, 97, 101, 113, 128, 139, 151, 160)
FOLDERS = ("", "1998 Sommer", "1998 Sommer/Strand am Morgen", "Großmutter", "写真/東京", "u\u0308ber den Alpen", "scans/a/b/c/d")
FIRST = ("a", "a", "A", "x" * 220, "#100 %41 & 'co' (1)?", "Ren\udce9e", "-rf", "   ")  # `a` is a JPEG and a PNG; one is Latin-1
IGNORED = ("Thumbs.db", ".DS_Store", "1998 Sommer/Thumbs.db", "scans/a/notes.txt", "scans/a/._IMG_0001.jpg")
LINK = "leads nowhere.png"
UPPER = 0.2  # the share of endings in upper case

Crop = NDArray[np.uint8]  # (height, width, 3), RGB
Kind = tuple[str, Callable[[Crop], bytes]]  # an ending, and what writes a crop as that


def photos() -> list[Path]:
    """What crops are taken of; nothing if `DATA` is not there."""
    return sorted(path for name in SETS for path in (DATA / name).glob("*.webp"))


def plant(root: Path, files: int, broken: int, seed: int) -> frozenset[str]:
    """Make so many pictures below `root`, the same for the same seed. The paths of those that are `broken`."""
    random = Random(f"tree {seed}")  # noqa: S311  # to be repeated
    whole = [(ending, encode(_crop(random))) for ending, encode in itertools.islice(itertools.cycle(KINDS), files - broken)]
    bad = list(itertools.islice(_bad(random), broken))
    first, rest = whole[:2], [*whole[2:], *bad]
    random.shuffle(rest)
    spoiled = set()
    for place, (ending, data) in zip(_places(random), [*first, *rest], strict=False):
        path = place + (ending.upper() if random.random() < UPPER else ending)
        _write(root / path, data)
        if (ending, data) in bad:
            spoiled.add(path)
    for path in IGNORED:
        _write(root / path, b"no picture")
    (root / LINK).symlink_to("nothing.png")
    return frozenset(spoiled)


def _places(random: Random) -> Iterator[str]:
    """Paths without endings."""
    yield from FIRST
    for number in itertools.count(1):
        name = random.choice((f"IMG_{number:04}", f"Oma & Opa {number}", f"{number}", f"scan.{number}.final", f"Élodie № {number}"))
        yield str(Path(random.choice(FOLDERS), name))


def _crop(random: Random, height: int | None = None, width: int | None = None) -> Crop:
    with Image.open(random.choice(photos())) as photo:
        height, width = height or random.choice(SIDES), width or random.choice(SIDES)
        left, top = random.randrange(photo.width - width), random.randrange(photo.height - height)
        return np.asarray(photo.convert("RGB").crop((left, top, left + width, top + height)))


def _bad(random: Random) -> Iterator[tuple[str, bytes]]:
    """Broken files with their endings; one that is refused and one that is not, in turn."""
    refused = [(_ending(name), data) for name, (data, _) in BAD.items()]
    refused = [(".png", b""), *random.sample(refused, len(refused))]
    for other, (ending, spoil) in zip(itertools.cycle(refused), itertools.cycle(SPOILED), strict=False):
        yield other
        yield ending, spoil(_crop(random, 97, 101))


def _ending(name: str) -> str:
    """Of a bad file, by what it is called."""
    words = {"JPEG": ".jpg", "TIFF": ".tif", "raw": ".tif", "DNG": ".tiff", "WebP": ".webp", "WEBP": ".webp", "BMP": ".bmp"}
    return next((ending for word, ending in words.items() if word in name), ".png")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# -- formats -----------------------------------------------------------------------------------------------------------------------------


def _by_pillow(format_: str, mode: str = "RGB", **options: Any) -> Callable[[Crop], bytes]:
    return lambda crop: saved(image(crop).convert(mode), format_, **options)


def _with_alpha(format_: str, **options: Any) -> Callable[[Crop], bytes]:
    return lambda crop: saved(image(np.dstack([crop, crop[:, ::-1, :1]])), format_, **options)


def _deep(ending: str, channels: int, *options: int) -> Callable[[Crop], bytes]:
    """With 16 bits a channel."""

    def encoded(crop: Crop) -> bytes:
        deep = crop.astype(np.uint16) * 256 + crop[::-1, ::-1]
        return cv2.imencode(ending, deep[:, :, :channels], options)[1].tobytes()

    return encoded


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x011A] = "Lacuna", 6, 300.0  # it lies on its side
    return exif


def _profile() -> bytes:
    """sRGB, without the time at which it was made."""
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return made[:24] + bytes(12) + made[36:]


_KEPT: dict[str, Any] = {"exif": _exif(), "icc_profile": _profile(), "dpi": (300, 300)}
_DEFLATE = (cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_ADOBE_DEFLATE)

KINDS: tuple[Kind, ...] = (
    (".jpg", _by_pillow("JPEG", quality=88)),
    (".png", _by_pillow("PNG")),
    (".jpg", _by_pillow("JPEG", quality=92, **_KEPT)),
    (".tif", _by_pillow("TIFF", compression="tiff_lzw")),
    (".webp", _by_pillow("WEBP", quality=80)),
    (".png", _deep(".png", 3)),
    (".jpeg", _by_pillow("JPEG", "L")),
    (".bmp", _by_pillow("BMP")),
    (".tiff", _deep(".tiff", 3)),
    (".png", _with_alpha("PNG")),
    (".jpg", _by_pillow("JPEG", progressive=True)),
    (".png", _by_pillow("PNG", "L", **_KEPT)),
    (".tif", _deep(".tiff", 1, *_DEFLATE)),
    (".png", lambda crop: saved(image(crop).quantize(64))),
    (".webp", _with_alpha("WEBP", lossless=True)),
    (".tif", _by_pillow("TIFF", "L", compression="tiff_adobe_deflate")),
    (".png", _deep(".png", 1)),
    (".jpg", _by_pillow("JPEG", "CMYK")),
    (".png", _by_pillow("PNG", "1")),
    (".bmp", _by_pillow("BMP", "L")),
    (".tif", _with_alpha("TIFF", compression="tiff_lzw")),
    (".tif", _by_pillow("TIFF", "1")),
)


# -- what only decoding shows ------------------------------------------------------------------------------------------------------------


def _holed(data: bytes, fill: bytes) -> bytes:
    """A fifth in the middle is something else."""
    begin, end = len(data) * 2 // 5, len(data) * 3 // 5
    return data[:begin] + (fill * (end - begin))[: end - begin] + data[end:]


def _halved(data: bytes) -> bytes:
    """A PNG of half its rows, whose checksums fit."""
    at = data.index(b"IDAT")
    length = int.from_bytes(data[at - 4 : at])
    return data[: at - 4] + chunk(b"IDAT", data[at + 4 : at + 4 + length // 2]) + data[at + 8 + length :]


def _no_codes(data: bytes) -> bytes:
    """A JPEG with an impossible table of codes."""
    at = data.index(b"\xff\xc4") + 5
    return data[:at] + b"\xff" * 16 + data[at + 16 :]


def _spoiled(kind: Kind, spoil: Callable[[bytes], bytes]) -> Kind:
    ending, encode = kind
    return ending, lambda crop: spoil(encode(crop))


_JPEG, _PNG, _TIFF, _DEEP = KINDS[0], KINDS[1], KINDS[3], KINDS[5]
_ODD = bytes(range(7, 256, 11))

SPOILED: tuple[Kind, ...] = (  # a TIFF's deflate is not among them: libtiff does not compare its checksums
    _spoiled(_JPEG, lambda data: data[: len(data) // 2]),
    _spoiled(_PNG, lambda data: _holed(data, b"\0")),
    _spoiled(_TIFF, lambda data: _holed(data, _ODD)),
    _spoiled(_PNG, _halved),
    _spoiled(_JPEG, _no_codes),
    _spoiled(_DEEP, lambda data: _holed(data, _ODD)),
    _spoiled(_TIFF, lambda data: _holed(data, b"\0")),
    _spoiled(_JPEG, lambda data: data.replace(b"\xff\xdb", b"\xff\xfe")),  # tables of quantization become comments
)
