"""The header is read right, and what is not restored is refused before anybody decodes it."""

import io
import struct
import zlib

import pytest
from PIL import Image

from shared.errors import Refused
from shared.imaging import header
from shared.imaging.header import Header
from tests.unit.pictures import PLENTY, chunk, gradient, ihdr, image, noise, png, saved, segment


def read(data: bytes, max_pixels: int = PLENTY) -> Header:
    return header.read(io.BytesIO(data), len(data), max_pixels)


def refused(data: bytes, max_pixels: int = PLENTY) -> str:
    with pytest.raises(Refused) as error:
        read(data, max_pixels)
    return error.value.code


IDAT = chunk(b"IDAT", zlib.compress(b"\0\0"))
JPEG = saved(image(gradient(5, 7, 3)), "JPEG")
SOF = JPEG.index(b"\xff\xc0")


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 5), (300, 2)])
@pytest.mark.parametrize(("mode", "bits"), [("1", 8), ("L", 8), ("LA", 8), ("P", 8), ("RGB", 8), ("RGBA", 8)])
def test_a_png_tells_its_size_channels_and_depth(mode: str, bits: int, size: tuple[int, int]) -> None:
    found = read(saved(Image.new(mode, size)))
    assert found == Header("PNG", *size, "L" if mode == "1" else mode, bits)
    assert found.pixels == size[0] * size[1]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 5), (300, 2)])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_tells_its_size_and_channels(mode: str, progressive: bool, size: tuple[int, int]) -> None:
    assert read(saved(Image.new(mode, size), "JPEG", progressive=progressive)) == Header("JPEG", *size, mode, 8)


def test_bytes_behind_the_end_are_fine() -> None:
    assert read(saved(Image.new("L", (2, 3))) + b"more").width == 2
    assert read(JPEG + b"more").width == 7


def test_an_empty_file_is_image_empty() -> None:
    assert refused(b"") == "image_empty"


@pytest.mark.parametrize("format_", ["GIF", "TIFF", "WEBP", "BMP", "PPM", "ICO"])
def test_other_formats_are_unsupported(format_: str) -> None:
    assert refused(saved(Image.new("RGB", (8, 8)), format_)) == "unsupported_format"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"GIF89a", "GIF"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "WebP"),
        (b"BM\0\0", "BMP"),
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\0\x01", "Photoshop"),
        (b"hello", "neither"),
        (b"\0", "neither"),
        (b"\x89PNG", "neither"),
    ],
)
def test_an_unsupported_file_is_called_by_its_name(data: bytes, named: str) -> None:
    with pytest.raises(Refused, match=named) as error:
        read(data)
    assert error.value.code == "unsupported_format"


def test_sixteen_bits_are_unsupported_and_none_are_thrown_away() -> None:
    assert refused(saved(Image.new("I;16", (4, 4)))) == "unsupported_format"
    assert refused(png(ihdr(1, 1, 16, 2), IDAT)) == "unsupported_format"
    twelve = bytearray(JPEG)
    twelve[SOF + 4] = 12
    assert refused(bytes(twelve)) == "unsupported_format"


def test_cmyk_is_unsupported() -> None:
    assert refused(saved(Image.new("CMYK", (8, 8)), "JPEG")) == "unsupported_format"


def test_an_animated_png_is_multiple_frames() -> None:
    frames = [image(noise(4, 4, 3, seed)) for seed in range(3)]
    assert refused(saved(frames[0], "PNG", save_all=True, append_images=frames[1:])) == "multiple_frames"


def test_too_many_pixels_are_refused_and_exactly_as_many_are_not() -> None:
    assert refused(saved(Image.new("L", (10, 10))), max_pixels=99) == "too_many_pixels"
    assert read(saved(Image.new("L", (10, 10))), max_pixels=100).pixels == 100
    assert refused(png(ihdr(2**31 - 1, 2**31 - 1), IDAT)) == "too_many_pixels"


@pytest.mark.parametrize("size", [(0, 1), (1, 0), (0, 0)])
def test_a_picture_without_pixels_is_corrupt(size: tuple[int, int]) -> None:
    assert refused(png(ihdr(*size), IDAT)) == "image_corrupt"
    width, height = size
    empty = JPEG[: SOF + 5] + struct.pack(">HH", height, width) + JPEG[SOF + 9 :]
    assert refused(empty) == "image_corrupt"


@pytest.mark.parametrize(
    "data",
    [
        png(IDAT, ihdr(1, 1)),
        png(chunk(b"IHDR", b"\0" * 14)),
        png(),
        png(ihdr(1, 1, 8, 1), IDAT),
        png(ihdr(1, 1, 7, 0), IDAT),
        png(ihdr(1, 1)[:-1] + b"\0", IDAT),
        png(ihdr(1, 1), IDAT, ihdr(2, 2)),  # a second header must not hide the first
        JPEG[:SOF] + JPEG[JPEG.index(b"\xff\xc4") :],
        JPEG[:SOF] + segment(0xC0, b"\x08\0\1") + JPEG[SOF:],
        JPEG[:SOF] + JPEG[SOF:].replace(b"\0\x07\x03", b"\0\x07\x02"),
        JPEG[:2] + b"\xff\xe0\0\1" + JPEG[2:],
        JPEG[:SOF] + b"junk" + JPEG[SOF:],
    ],
)
def test_an_impossible_header_is_corrupt(data: bytes) -> None:
    assert refused(data) == "image_corrupt"


def test_every_cut_of_a_png_is_told_before_anybody_decodes_it() -> None:
    data = saved(image(noise(5, 3, 3)))
    assert {refused(data[:length]) for length in range(8, len(data) - 4)} == {"image_truncated"}


def test_a_jpeg_cut_within_its_header_is_truncated() -> None:
    scan = JPEG.index(b"\xff\xda") + 2 + int.from_bytes(JPEG[JPEG.index(b"\xff\xda") + 2 :][:2])
    assert {refused(JPEG[:length]) for length in range(3, scan + 1)} == {"image_truncated"}
    assert refused(JPEG[:SOF] + b"\xff\xd9") == "image_truncated"


def test_a_chunk_longer_than_the_file_is_truncated_and_nothing_is_allocated_for_it() -> None:
    assert refused(b"\x89PNG\r\n\x1a\n" + ihdr(1, 1) + b"\xff\xff\xff\xffIDAT") == "image_truncated"
    assert refused(b"\x89PNG\r\n\x1a\n" + ihdr(1, 1) + b"\xff\xff\xff\xffacTL") == "image_truncated"


@pytest.mark.parametrize(
    "data",
    [
        JPEG[:2] + b"\xff" * 2_000_000 + JPEG[3:],
        JPEG[:2] + b"\xff\xe1\0\2" * 500_000 + JPEG[2:],
        png(ihdr(1, 1), chunk(b"teXt") * 600_000, IDAT),
    ],
    ids=["fill bytes", "segments", "chunks"],
)
def test_a_header_that_goes_on_for_ever_is_not_read_to_its_end(data: bytes) -> None:
    assert refused(data) == "image_corrupt"


def test_an_animation_s_header_is_not_read_if_it_is_longer_than_one_can_be() -> None:
    assert refused(png(ihdr(1, 1), chunk(b"acTL", b"\0" * 9), IDAT)) == "image_corrupt"
