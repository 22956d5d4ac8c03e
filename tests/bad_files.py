"""Files that are refused, each with its code. Their own limit of pixels is 10 000."""

import struct
import zlib

from PIL import Image

from tests.unit.pictures import GREY, PNG, chunk, gradient, ihdr, image, noise, page, png, saved, tiff

MAX_PIXELS = 10_000

_IDAT = chunk(b"IDAT", zlib.compress(b"\0\0"))
_JPEG = saved(image(gradient(20, 30, 3)), "JPEG")
_SOF = _JPEG.index(b"\xff\xc0")
_FRAMES = [image(noise(6, 6, 3, seed)) for seed in range(3)]
_WHOLE = {format_: saved(image(noise(20, 30, 3)), format_) for format_ in ("PNG", "TIFF", "WEBP", "BMP")}
_BOMB = zlib.compress(bytes(40_000_000))
_END = len(tiff())


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


BAD: dict[str, tuple[bytes, str]] = {
    "text named .png": (b"Dear diary, this is no picture.", "unsupported_format"),
    "the signature of a PNG and nothing else": (PNG, "image_truncated"),
    "a JPEG cut in its header": (_JPEG[:40], "image_truncated"),
    "a JPEG cut behind its first scan's header": (_JPEG[: _JPEG.index(b"\xff\xda") + 14], "image_truncated"),
    **{f"a {name} cut in its middle": (data[: len(data) // 2], "image_truncated") for name, data in _WHOLE.items()},
    "a PNG of 60 000 by 60 000": (png(ihdr(60_000, 60_000), _IDAT), "too_many_pixels"),
    "a JPEG of 60 000 by 60 000": (_JPEG[: _SOF + 5] + struct.pack(">HH", 60_000, 60_000) + _JPEG[_SOF + 9 :], "too_many_pixels"),
    "a TIFF of 60 000 by 60 000": (tiff((256, 4, 1, 60_000), (257, 4, 1, 60_000)), "too_many_pixels"),
    "a PNG of 0 by 0": (png(ihdr(0, 0), _IDAT), "image_corrupt"),
    "a JPEG of 0 by 0": (_JPEG[: _SOF + 5] + bytes(4) + _JPEG[_SOF + 9 :], "image_corrupt"),
    "a TIFF of 0 by 0": (tiff((256, 4, 1, 0), (257, 4, 1, 0)), "image_corrupt"),
    "a byte of the header flipped": (_flipped(_WHOLE["PNG"], 18), "image_corrupt"),
    "a text that unpacks to 40 MB": (png(ihdr(1, 1), chunk(b"zTXt", b"x\0\0" + _BOMB), _IDAT), "image_bomb"),
    "an international text that unpacks to 40 MB": (png(ihdr(1, 1), chunk(b"iTXt", b"x\0\1\0\0\0" + _BOMB), _IDAT), "image_bomb"),
    "a profile that unpacks to 40 MB": (png(ihdr(1, 1), chunk(b"iCCP", b"x\0\0" + _BOMB), _IDAT), "image_bomb"),
    "data a thousand times longer than the pixels": (png(ihdr(1, 1), chunk(b"IDAT", bytes(100_000))), "image_bomb"),
    "an animated PNG": (saved(_FRAMES[0], "PNG", save_all=True, append_images=_FRAMES[1:]), "multiple_frames"),
    "an animated WebP": (saved(_FRAMES[0], "WEBP", save_all=True, append_images=_FRAMES[1:]), "multiple_frames"),
    "a TIFF of three pages": (saved(_FRAMES[0], "TIFF", save_all=True, append_images=_FRAMES[1:]), "multiple_frames"),
    "a TIFF whose directories go in a circle": (tiff(following=10), "image_corrupt"),
    "a TIFF whose directories go in a larger circle": (
        tiff(following=_END, behind=page(*GREY, (254, 4, 1, 1), following=10)), "image_corrupt",
    ),
    "GIF": (saved(Image.new("L", (8, 8)), "GIF"), "unsupported_format"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported_format"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported_format"),
    "PDF": (b"%PDF-1.7\n", "unsupported_format"),
    "PSD": (b"8BPS\0\1" + bytes(20), "unsupported_format"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20), "unsupported_format"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported_format"),
    "DNG": (tiff((50706, 1, 4, 0x0401)), "unsupported_format"),
    "a raw file whose first picture is a reduced one": (tiff((254, 4, 1, 1)), "unsupported_format"),
    "a raw file with a colour filter array": (tiff((262, 3, 1, 32803)), "unsupported_format"),
    "a raw file with linear colours": (tiff((262, 3, 1, 34892)), "unsupported_format"),
}  # fmt: skip
