"""What a file says of itself before anybody decodes it: format, size, depth, frames. Standard library only.

The API checks an upload with it, the codec checks again before it allocates anything. The formats: `containers/`.
"""

from collections.abc import Callable
from typing import BinaryIO

from shared.errors import Refused
from shared.imaging.containers import bmp, jpeg, png, tiff, webp
from shared.imaging.containers.described import Header

__all__ = ["FORMATS", "LONGEST_SIDES", "LOSSY", "Header", "read"]

FORMATS = ("JPEG", "PNG", "TIFF", "WebP", "BMP")
LOSSY = frozenset({"JPEG", "WebP"})  # formats that need not give back the pixels they were given
LONGEST_SIDES = {"jpeg": jpeg.LONGEST_SIDE, "webp": webp.LONGEST_SIDE}  # pixels; the other formats hold any picture

_RAW = "a camera's raw file: develop it in a raw converter and save it as a 16-bit TIFF or PNG"
_OTHERS = (  # (place, signature, what it is and what to do)
    (8, b"CR\2\0", _RAW), (0, b"IIU\0", _RAW), (0, b"IIRO", _RAW), (0, b"IIRS", _RAW), (0, b"FUJIFILMCCD", _RAW), (0, b"\0MRM", _RAW),
    (4, b"ftypcrx", _RAW), (4, b"ftyp", "a HEIC, AVIF or video file: export it as JPEG or PNG"),
    (0, b"GIF8", "a GIF: save it as PNG"), (0, b"%PDF", "a PDF: export its page as a TIFF or PNG"),
    (0, b"%!PS", "an EPS or PostScript file: export it as TIFF or PNG"), (0, b"\xc5\xd0\xd3\xc6", "an EPS file: export it as TIFF or PNG"),
    (0, b"8BPS", "a Photoshop file: save it as TIFF or PNG"), (4, b"jP  ", "a JPEG 2000: save it as TIFF or PNG"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000: save it as TIFF or PNG"), (4, b"JXL ", "a JPEG XL: save it as TIFF or PNG"),
    (0, b"\xff\x0a", "a JPEG XL: save it as TIFF or PNG"), (0, b"<svg", "an SVG, which is a drawing: export it as PNG"),
    (0, b"<?xml", "an XML file, perhaps an SVG drawing: export it as PNG"), (0, b"v/1\1", "an OpenEXR file: save it as a 16-bit TIFF"),
)  # fmt: skip


def read(file: BinaryIO, size: int, max_pixels: int) -> Header:
    """The header of a picture of `size` bytes that is restored; `file` is read from its beginning and left anywhere.

    Raises `Refused`: image_empty, unsupported_format, image_truncated, image_corrupt, image_bomb, multiple_frames, too_many_pixels.
    """
    if size == 0:
        raise Refused("image_empty")
    file.seek(0)
    header = _container(file.read(16))(file, size)
    if header.width == 0 or header.height == 0:
        raise Refused("image_corrupt", "The header gives the picture no pixels.")
    if header.pixels > max_pixels:
        raise Refused("too_many_pixels", f"It has {header.pixels / 1e6:.1f} Mpx; at most {max_pixels / 1e6:g} Mpx are restored.")
    if header.bits not in (8, 16):
        raise Refused("unsupported_format", f"It has {header.bits} bits a channel; 8 and 16 are restored, and none are thrown away.")
    return header


def _container(start: bytes) -> Callable[[BinaryIO, int], Header]:
    """What reads the header of a file that begins with `start`. Raises `Refused` unsupported_format."""
    for place, signature, what in _OTHERS:
        if start[place:].startswith(signature):
            raise Refused("unsupported_format", f"It is {what}.")
    if start.startswith(png.SIGNATURE):
        return png.read
    if start.startswith(jpeg.SIGNATURE):
        return jpeg.read
    if start.startswith(tiff.SIGNATURES):
        return tiff.read
    if webp.is_webp(start):
        return webp.read
    if start.startswith(bmp.SIGNATURE):
        return bmp.read
    raise Refused("unsupported_format", "It is none of JPEG, PNG, TIFF, WebP and BMP; convert it to one of them.")
