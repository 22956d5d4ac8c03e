"""The header is read right, and what is not restored is refused before anybody decodes it."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from shared.errors import Refused
from shared.imaging import header
from shared.imaging.header import Header
from tests.unit.pictures import GREY, PLENTY, chunk, gradient, ihdr, image, noise, page, png, saved, segment, tiff


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


DIRECTORY_END = len(tiff())


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 5), (300, 2)])
@pytest.mark.parametrize("format_", ["TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_every_other_format_tells_its_size_too(format_: str, mode: str, size: tuple[int, int]) -> None:
    found = read(saved(Image.new(mode, size), format_))
    assert (found.format.upper(), found.width, found.height, found.bits) == (format_, *size, 8)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("ending", [".png", ".tiff"])
def test_the_depth_is_the_header_s(ending: str, channels: int, kind: type) -> None:
    found = read(cv2.imencode(ending, np.zeros((5, 7, channels), kind))[1].tobytes())
    assert (found.width, found.height, found.bits, found.mode) == (7, 5, np.iinfo(kind).bits, {1: "L", 3: "RGB", 4: "RGBA"}[channels])


def test_a_tiff_of_either_byte_order_and_a_big_one_tell_the_same() -> None:
    big_end = struct.pack(">2sHI", b"MM", 42, 10) + b"\7\7" + page(*GREY, order=">")
    entries = b"".join(struct.pack("<HHQQ", tag, kind, count, value) for tag, kind, count, value in GREY)
    big = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) + struct.pack("<Q", len(GREY)) + entries + struct.pack("<Q", 0)
    assert read(tiff()) == read(big_end) == read(big) == Header("TIFF", 2, 1, "L", 8)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
        (b"GIF89a", "GIF"),
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\0\x01", "Photoshop"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "EPS"),
        (b"\xc5\xd0\xd3\xc6", "EPS"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"\xff\x0a", "JPEG XL"),
        (b"<svg xmlns=", "SVG"),
        (b"<?xml version='1.0'?><svg", "SVG"),
        (b"II*\0\x10\0\0\0CR\2\0", "raw file"),
        (b"IIU\0\x18\0\0\0", "raw file"),
        (b"IIRO\x08\0\0\0", "raw file"),
        (b"\0\0\0\x18ftypcrx ", "raw file"),
        (b"hello", "none of"),
        (b"\0", "none of"),
        (b"\x89PNG", "none of"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "none of"),
        (saved(Image.new("RGB", (8, 8)), "PPM"), "none of"),
        (saved(Image.new("L", (8, 8)), "ICO"), "none of"),
        (tiff((50706, 1, 4, 0x0401)), "raw converter"),
        (tiff((262, 3, 1, 32803)), "raw converter"),
        (tiff((262, 3, 1, 34892)), "raw converter"),
        (tiff((254, 4, 1, 1)), "raw converter"),
        (tiff((330, 4, 1, DIRECTORY_END + 12), behind=page((262, 3, 1, 32803))), "raw converter"),
        (tiff((259, 3, 1, 4)), "compression"),
        (tiff((259, 3, 1, 7)), "compression"),
        (tiff((262, 3, 1, 8)), "colours"),
        (tiff((258, 3, 1, 32)), "32 bits"),
        (tiff((258, 3, 1, 4)), "4 bits"),
        (tiff((339, 3, 1, 3)), "floating"),
        (tiff((262, 3, 1, 5), (277, 3, 1, 4), (332, 3, 1, 2)), "colours"),
    ],
)
def test_what_is_not_restored_is_called_by_its_name(data: bytes, named: str) -> None:
    with pytest.raises(Refused, match=named) as error:
        read(data)
    assert error.value.code == "unsupported_format"


def test_twelve_bits_are_unsupported_and_none_are_thrown_away() -> None:
    twelve = bytearray(JPEG)
    twelve[SOF + 4] = 12
    assert refused(bytes(twelve)) == "unsupported_format"


def test_cmyk_is_told() -> None:
    assert read(saved(Image.new("CMYK", (8, 8)), "JPEG")) == Header("JPEG", 8, 8, "CMYK", 8)
    assert read(saved(Image.new("CMYK", (8, 8)), "TIFF")) == Header("TIFF", 8, 8, "CMYK", 8)


def test_two_full_pages_are_multiple_frames_and_reduced_ones_and_masks_are_no_pages() -> None:
    assert refused(tiff(following=DIRECTORY_END, behind=page(*GREY))) == "multiple_frames"
    for other in ((254, 4, 1, 1), (254, 4, 1, 4), (255, 3, 1, 2)):
        assert read(tiff(following=DIRECTORY_END, behind=page(*GREY, other))).pixels == 2


def test_an_animated_webp_is_multiple_frames() -> None:
    frames = [image(noise(4, 4, 3, seed)) for seed in range(3)]
    assert refused(saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])) == "multiple_frames"


def test_directories_that_go_in_circles_are_corrupt() -> None:
    assert refused(tiff(following=10)) == "image_corrupt"
    assert refused(tiff(following=DIRECTORY_END, behind=page(*GREY, (254, 4, 1, 1), following=10))) == "image_corrupt"


@pytest.mark.parametrize(
    "changes",
    [
        [(273, 4, 1, 9_000)], [(279, 4, 1, 9_000)], [(273, 4, 2_000, 9_000)], [(258, 3, 3, 9_000), (262, 3, 1, 2), (277, 3, 1, 3)],
    ],
)  # fmt: skip
def test_a_tiff_whose_parts_lie_behind_its_end_is_truncated(changes: list[tuple[int, int, int, int]]) -> None:
    assert refused(tiff(*changes)) == "image_truncated"
    assert refused(tiff(following=9_000)) == "image_truncated"


@pytest.mark.parametrize(
    "changes",
    [
        [(273, 4, 0, 0)], [(279, 3, 0, 0)], [(273, 4, 4_000_000_000, 8)], [(277, 3, 1, 0)], [(277, 3, 1, 60_000)], [(262, 3, 1, 2)],
        [(322, 4, 1, 2**31), (323, 4, 1, 2**31), (324, 4, 1, 8), (325, 4, 1, 2)], [(322, 4, 1, 0), (324, 4, 1, 8), (325, 4, 1, 2)],
        [(256, 3, 1, 0)], [(257, 3, 1, 0)],
    ],
)  # fmt: skip
def test_an_impossible_tiff_is_corrupt(changes: list[tuple[int, int, int, int]]) -> None:
    assert refused(tiff(*changes)) == "image_corrupt"


@pytest.mark.parametrize("format_", ["TIFF", "WEBP", "BMP"])
def test_every_cut_of_the_other_formats_is_told_before_anybody_decodes_it(format_: str) -> None:
    data = saved(image(noise(5, 3, 3)), format_)
    assert {refused(data[:length]) for length in range(16, len(data) - 1)} == {"image_truncated"}


def test_a_picture_of_3_6_gigapixels_is_too_large_in_every_format() -> None:
    side = 60_000
    bmp = bytearray(saved(Image.new("RGB", (4, 4)), "BMP"))
    bmp[18:26] = struct.pack("<ii", side, side)
    assert refused(png(ihdr(side, side), IDAT), 10**8) == "too_many_pixels"
    assert refused(JPEG[: SOF + 5] + struct.pack(">HH", side, side) + JPEG[SOF + 9 :], 10**8) == "too_many_pixels"
    assert refused(tiff((256, 4, 1, side), (257, 4, 1, side)), 10**8) == "too_many_pixels"
    assert refused(bytes(bmp)) == "image_truncated"  # its rows have a known length


@pytest.mark.parametrize(("name", "head"), [(b"zTXt", b"Comment\0\0"), (b"iTXt", b"Comment\0\1\0\0\0"), (b"iCCP", b"ICC\0\0")])
def test_a_text_or_profile_that_unpacks_to_far_more_is_a_bomb(name: bytes, head: bytes) -> None:
    bomb = chunk(name, head + zlib.compress(b"\0" * 40_000_000))
    assert refused(png(ihdr(1, 1), bomb, IDAT)) == "image_bomb"
    many = chunk(name, head + zlib.compress(b"\0" * 4_000_000))
    assert refused(png(ihdr(1, 1), *[many] * 9, IDAT)) == "image_bomb"
    assert read(png(ihdr(1, 1), many, IDAT)).pixels == 1


def test_data_far_longer_than_the_pixels_are_a_bomb() -> None:
    assert refused(png(ihdr(1, 1), chunk(b"IDAT", bytes(100_000)))) == "image_bomb"


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
