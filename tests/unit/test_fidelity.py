"""What a network that changes nothing leaves of a file, format by format: pixels bit for bit, and all that is no pixels.

Readers that are not ours look at the results: OpenCV and libvips at pixels, Pillow at metadata, and plain searches for bytes.
"""

import io
import re
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms, IptcImagePlugin, JpegImagePlugin

from shared.errors import Refused
from shared.imaging import codec
from shared.imaging.codec import Encoded
from shared.imaging.pixels import Pixels, in_eight_bits, upright
from tests import damaged
from tests.bad_files import BAD, MAX_PIXELS
from tests.unit.pictures import PNG, chunk, decoded, gradient, ihdr, image, noise, reopened, saved, segment, tiff

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="a scan"/></x:xmpmeta>'
UPRIGHT_XMP = XMP.replace(b'"6"', b'"1"')
IPTC = b"\x1c\x02\x05\x00\x06a scan" + b"\x1c\x02\x19\x00\x04cats"
MAKE, ORIENTATION, EXIF, TAKEN, WIDTH, HEIGHT = 0x010F, 0x0112, 0x8769, 0x9003, 0xA002, 0xA003
SIZES = [(1, 1), (1, 13), (13, 1), (2, 3), (17, 31)]  # odd, prime, one pixel
DEPTHS = [np.uint8, np.uint16]


def restored(data: bytes, format_: str = "keep") -> tuple[Encoded, list[str]]:
    """The file that comes back, and all notes."""
    source = decoded(data)
    encoded = codec.encode(source.colour, source, format_)
    return encoded, source.notes + encoded.notes


def pixels_of(height: int, width: int, channels: int, depth: type) -> Pixels:
    highest = np.iinfo(depth).max
    values: Pixels = np.random.default_rng(channels).integers(0, highest + 1, (height, width, channels)).astype(depth)
    values[0, 0] = highest
    return values


def by_vips(data: bytes) -> Pixels:
    """(height, width, channels) by libvips, which finds the format by itself."""
    read = pyvips.Image.new_from_buffer(data, "")
    pixels: Pixels = read.numpy()
    return pixels.reshape(read.height, read.width, read.bands)


def by_cv2(data: bytes) -> Pixels:
    """(height, width, channels) by OpenCV, in the order of the file."""
    read: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
    pixels: Pixels = read[:, :, np.newaxis] if read.ndim == 2 else read[:, :, order[read.shape[2]]]
    return pixels


def tiff_of(pixels: Pixels, **options: Any) -> bytes:
    """A TIFF by libvips."""
    height, width, channels = pixels.shape
    kind, suffix = ("uchar", "") if pixels.dtype == np.uint8 else ("ushort", "16")
    made = pyvips.Image.new_from_memory(pixels.tobytes(), width, height, channels, kind)
    colours = {"": "srgb", "16": "rgb16"}[suffix] if channels >= 3 else {"": "b-w", "16": "grey16"}[suffix]
    data: bytes = made.copy(interpretation=colours).tiffsave_buffer(**options)
    return data


def png16_of(pixels: Pixels, *chunks: bytes) -> bytes:
    """A PNG of 16 bits, made by hand."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = ihdr(width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels])
    return PNG + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")


def tags_of(data: bytes) -> dict[int, tuple[int, int, bytes]]:
    """(kind, count, value or its place) of each tag in the only directory of a little-endian TIFF."""
    assert data[:4] == b"II*\0"
    (place,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, place)
    assert data[place + 2 + 12 * count :][:4] == b"\0\0\0\0", "it has a second directory"
    entries = [struct.unpack_from("<HHI4s", data, place + 2 + 12 * entry) for entry in range(count)]
    assert [entry[0] for entry in entries] == sorted(entry[0] for entry in entries)
    return {tag: (kind, number, value) for tag, kind, number, value in entries}


# -- pixels -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_16_bits_comes_back_bit_for_bit(channels: int, size: tuple[int, int]) -> None:
    pixels = pixels_of(*size, channels, np.uint16)
    encoded, notes = restored(png16_of(pixels))
    assert (encoded.type, encoded.bits, encoded.data[24], notes) == ("image/png", 16, 16, [])
    assert np.array_equal(by_vips(encoded.data), pixels)
    if channels != 2:  # OpenCV has no grey with alpha
        assert np.array_equal(by_cv2(encoded.data), pixels)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("packing", ["none", "lzw", "deflate", "packbits"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("depth", DEPTHS)
def test_a_tiff_comes_back_bit_for_bit_with_all_its_channels_packed_as_it_was(
    depth: type, channels: int, packing: str, size: tuple[int, int]
) -> None:
    pixels = pixels_of(*size, channels, depth)
    before = tiff_of(pixels, compression=packing)
    encoded, notes = restored(before)
    assert (encoded.type, encoded.bits, notes) == ("image/tiff", np.iinfo(depth).bits, [])
    assert np.array_equal(by_vips(encoded.data), pixels)
    if channels in {1, 3} or (channels == 4 and depth is np.uint16):  # OpenCV multiplies 8-bit colour by its alpha
        assert np.array_equal(by_cv2(encoded.data), pixels)
    old, new = tags_of(before), tags_of(encoded.data)
    assert new[259] == old[259], "its compression changed"
    assert new.get(338, (3, 0, b""))[:2] == old.get(338, (3, 0, b""))[:2]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("options", [{"tile": True, "tile_width": 16, "tile_height": 16}, {"bigtiff": True}])
def test_a_tiff_in_tiles_and_a_big_one_come_back_as_plain_ones(options: dict[str, Any], depth: type) -> None:
    pixels = pixels_of(33, 21, 3, depth)
    encoded, notes = restored(tiff_of(pixels, compression="lzw", **options))
    assert np.array_equal(by_cv2(encoded.data), pixels)
    assert notes == []


def test_a_tiff_of_the_other_byte_order_and_with_planes_comes_back_bit_for_bit() -> None:
    pixels = pixels_of(2, 3, 3, np.uint16)
    planes = np.moveaxis(pixels, 2, 0).astype(">u2").tobytes()
    entries = [
        (256, 3, 1, 3), (257, 3, 1, 2), (258, 3, 3, 200), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 3, 210), (277, 3, 1, 3),
        (279, 4, 3, 230), (284, 3, 1, 2),
    ]  # fmt: skip
    table = b"".join(
        struct.pack(">HHI", *entry[:3]) + (struct.pack(">HH", entry[3], 0) if entry[1:3] == (3, 1) else struct.pack(">I", entry[3]))
        for entry in entries
    )
    head = struct.pack(">2sHIH", b"MM", 42, 8, len(entries)) + table + bytes(4)
    data = head.ljust(200, b"\0") + struct.pack(">5H", 16, 16, 16, 0, 0) + struct.pack(">3I", 250, 262, 274)
    data = data.ljust(230, b"\0") + struct.pack(">3I", 12, 12, 12)
    encoded, _ = restored(data.ljust(250, b"\0") + planes)
    assert np.array_equal(by_cv2(encoded.data), pixels)


def test_a_tiff_in_one_long_strip_is_restored() -> None:
    stored = zlib.compress(b"\7" * 56_000_000, 0)  # libtiff alone refuses more than 50 MB at once
    place = len(tiff())
    data = tiff((256, 4, 1, 8_000), (257, 4, 1, 7_000), (259, 3, 1, 8), (273, 4, 1, place), (279, 4, 1, len(stored)), behind=stored)
    assert (decoded(data).colour == 7).all()


def test_white_is_zero_in_some_tiffs_and_looks_the_same_afterwards() -> None:
    made = Image.fromarray(noise(5, 9, 1)[:, :, 0] > 99)
    data = saved(made, "TIFF", tiffinfo={262: 0})
    assert np.array_equal(np.asarray(reopened(restored(data)[0].data)), np.asarray(reopened(data).convert("L")))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("channels", [1, 2])
def test_also_with_more_bits_and_with_alpha(channels: int, depth: type) -> None:
    pixels = pixels_of(3, 4, channels, depth)
    data = bytearray(tiff_of(pixels))
    entry = data.index(struct.pack("<HH", 262, 3))
    data[entry + 8] = 0
    back = by_vips(restored(bytes(data))[0].data)
    assert np.array_equal(back[:, :, 0], np.iinfo(depth).max - pixels[:, :, 0])
    assert np.array_equal(back[:, :, 1:], pixels[:, :, 1:])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [3, 4])
def test_a_webp_without_loss_comes_back_bit_for_bit_also_where_nobody_sees_it(channels: int, size: tuple[int, int]) -> None:
    pixels = pixels_of(*size, channels, np.uint8)
    pixels[:, :, 3:] //= 128  # mostly transparent
    encoded, notes = restored(saved(image(pixels), "WEBP", lossless=True, exact=True))
    assert (encoded.type, notes) == ("image/webp", [])
    assert b"VP8L" in encoded.data[:64]
    assert np.array_equal(np.asarray(reopened(encoded.data).convert("RGBA"))[:, :, :channels], pixels)


def test_a_webp_with_loss_comes_back_nearly_as_it_was_and_with_exactly_its_alpha() -> None:
    pixels = gradient(33, 47, 4)
    before = saved(image(pixels), "WEBP", quality=90)
    encoded, notes = restored(before)
    old, new = (np.asarray(reopened(data)).astype(int) for data in (before, encoded.data))
    assert np.abs(new - old)[:, :, :3].max() <= 8
    assert np.array_equal(new[:, :, 3], old[:, :, 3])
    assert notes == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_bmp_comes_back_bit_for_bit(mode: str, size: tuple[int, int]) -> None:
    picture = image(noise(size[0], size[1], 3)).convert(mode)
    encoded, notes = restored(saved(picture, "BMP"))
    assert (encoded.type, notes) == ("image/bmp", [])
    back = reopened(encoded.data)
    assert back.mode == ("RGB" if mode == "RGB" else "L")
    assert np.array_equal(np.asarray(back), np.asarray(picture.convert(back.mode)))


@pytest.mark.parametrize("size", SIZES)
def test_a_bmp_with_alpha_comes_back_bit_for_bit(size: tuple[int, int]) -> None:
    pixels = pixels_of(*size, 4, np.uint8)
    first, _ = restored(saved(image(pixels)), "bmp")
    encoded, notes = restored(first.data)
    assert notes == []
    assert np.array_equal(np.asarray(reopened(encoded.data)), pixels)
    assert np.array_equal(by_cv2(encoded.data), pixels)


def test_a_bmp_stored_from_the_top_down_is_not_turned_over() -> None:
    pixels = noise(5, 8, 3)
    data = bytearray(saved(image(pixels), "BMP"))
    data[22:26] = struct.pack("<i", -5)
    assert np.array_equal(by_cv2(restored(bytes(data))[0].data), pixels[::-1])


@pytest.mark.parametrize("format_", ["TIFF", "BMP"])
def test_a_palette_is_expanded_and_a_note_says_so(format_: str) -> None:
    palette = image(noise(8, 8, 3)).quantize(16)
    encoded, notes = restored(saved(palette, format_))
    assert np.array_equal(np.asarray(reopened(encoded.data)), np.asarray(palette.convert("RGB")))
    assert notes == ["palette_expanded"]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_transparent_colour_of_16_bits_becomes_alpha(channels: int) -> None:
    pixels = pixels_of(4, 5, channels, np.uint16)
    key = chunk(b"tRNS", struct.pack(f">{channels}H", *pixels[2, 3]))
    encoded, _ = restored(png16_of(pixels, key))
    back = by_vips(encoded.data)
    assert np.array_equal(back[:, :, :channels], pixels)
    assert np.array_equal(back[:, :, channels] == 0, (pixels == pixels[2, 3]).all(axis=2))


# -- what the network sees, and what is carried past it -----------------------------------------------------------------


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("colours", [1, 3])
def test_channels_beside_the_colour_are_carried_past_the_network(colours: int, depth: type) -> None:
    pixels = pixels_of(6, 5, colours + 3, depth)
    source = decoded(with_photometric(tiff_of(pixels, compression="lzw"), 1 if colours == 1 else 2))
    inverted = np.iinfo(depth).max - source.colour
    back = by_vips(codec.encode(inverted, source, "keep").data)
    assert np.array_equal(back[:, :, colours:], pixels[:, :, colours:])
    assert np.array_equal(back[:, :, :colours], np.iinfo(depth).max - pixels[:, :, :colours])


def with_photometric(data: bytes, kind: int) -> bytes:
    """A TIFF whose first channels are grey (1) or RGB (2), and whose others nobody explains."""
    for tag, new, value in ((262, 262, kind), (338, 65_000, 0)):
        entry = data.index(struct.pack("<HH", tag, 3))
        data = data[:entry] + struct.pack("<H", new) + data[entry + 2 : entry + 8] + struct.pack("<H", value) + data[entry + 10 :]
    return data


def with_extra(data: bytes, *kinds: int) -> bytes:
    """A TIFF with other ExtraSamples; two fit its entry."""
    entry = data.index(struct.pack("<HHI", 338, 3, len(kinds)))
    return data[: entry + 8] + struct.pack("<2H", *kinds, *[0] * (2 - len(kinds))) + data[entry + 12 :]


@pytest.mark.parametrize(("kinds", "alpha"), [((0, 2), 4), ((2, 0), 3)])
def test_channels_keep_their_order_and_their_meaning(kinds: tuple[int, int], alpha: int) -> None:
    pixels = pixels_of(4, 3, 5, np.uint8)
    data = with_extra(tiff_of(pixels), *kinds)
    source = decoded(data)
    assert source.alpha is not None
    assert np.array_equal(source.alpha, pixels[:, :, alpha])
    encoded, _ = restored(data)
    assert np.array_equal(by_vips(encoded.data), pixels)
    assert tags_of(encoded.data)[338] == (3, 2, struct.pack("<HH", *kinds))
    back, notes = restored(data, "png")
    assert np.array_equal(by_vips(back.data), pixels[:, :, [0, 1, 2, alpha]])
    assert notes == ["channels_dropped"]


def test_colour_that_was_multiplied_by_its_alpha_stays_so_in_a_tiff_and_is_divided_elsewhere() -> None:
    pixels = pixels_of(4, 3, 4, np.uint16)
    pixels[:, :, :3] = pixels[:, :, :3].astype(int) * pixels[:, :, 3:] // 65_535
    data = with_extra(tiff_of(pixels), 1)
    encoded, _ = restored(data)
    assert np.array_equal(by_cv2(encoded.data), pixels)
    assert tags_of(encoded.data)[338][2][:2] == b"\1\0"
    divided = by_vips(restored(data, "png")[0].data)
    again = divided[:, :, :3].astype(float) * divided[:, :, 3:] / 65_535
    assert np.abs(again - pixels[:, :, :3]).max() <= 1


# -- other formats than it came in --------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", DEPTHS)
def test_a_png_and_a_tiff_hold_the_same(depth: type, channels: int) -> None:
    pixels = pixels_of(7, 9, channels, depth)
    as_png, notes = restored(tiff_of(pixels), "png")
    assert notes == []
    as_tiff, notes = restored(as_png.data, "tiff")
    assert notes == []
    assert np.array_equal(by_vips(as_png.data), pixels)
    assert np.array_equal(by_vips(as_tiff.data), pixels)
    assert as_png.bits == as_tiff.bits == np.iinfo(depth).bits


@pytest.mark.parametrize(
    ("channels", "format_", "expected", "kept"),
    [
        (1, "jpeg", ["depth_reduced"], 1), (2, "jpeg", ["alpha_dropped", "depth_reduced"], 1),
        (4, "jpeg", ["alpha_dropped", "depth_reduced"], 3),
        (1, "webp", ["grey_expanded", "depth_reduced"], 3), (4, "webp", ["depth_reduced"], 4), (1, "bmp", ["depth_reduced"], 1),
        (2, "bmp", ["grey_expanded", "depth_reduced"], 4), (5, "png", ["channels_dropped"], 4),
    ],
)  # fmt: skip
def test_what_a_format_cannot_hold_is_dropped_with_a_note(channels: int, format_: str, expected: list[str], kept: int) -> None:
    pixels = pixels_of(6, 7, channels, np.uint16)
    encoded, notes = restored(tiff_of(pixels), format_)
    assert notes == expected
    assert encoded.bits == (16 if format_ == "png" else 8)
    back = reopened(encoded.data)
    assert len(back.getbands()) == kept or format_ == "png"
    if format_ in {"webp", "bmp"}:
        colours = [0] * 3 if channels <= 2 and kept > 1 else list(range(min(channels, 3)))
        further = [channels - 1] if channels in {2, 4} else []
        assert np.array_equal(np.asarray(back).reshape(6, 7, kept), in_eight_bits(pixels[:, :, colours + further]))


def test_eight_bits_are_the_nearest_to_sixteen() -> None:
    shades = np.arange(65_536, dtype=np.uint16).reshape(256, 256, 1)
    assert np.array_equal(in_eight_bits(shades), np.round(shades / 257))


# -- CMYK ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb_that_looks_alike_and_a_note_says_so(format_: str) -> None:
    paper, cyan, black = (0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255)
    made = Image.new("CMYK", (24, 8))
    for place, ink in enumerate((paper, cyan, black)):
        made.paste(ink, (8 * place, 0, 8 * place + 8, 8))
    encoded, notes = restored(saved(made, format_, **({"quality": 95} if format_ == "JPEG" else {})))
    back = reopened(encoded.data)
    assert (back.format, back.mode, notes) == (format_, "RGB", ["converted_from_cmyk"])
    white, blue, dark = (np.asarray(back)[4, place].astype(int) for place in (4, 12, 20))
    assert white.min() >= 240
    assert blue[0] < 60
    assert blue[2] > 120
    assert dark.max() < 70
    assert ImageCms.ImageCmsProfile(io.BytesIO(back.info["icc_profile"])).profile.xcolor_space.strip() == "RGB"


def test_cmyk_is_converted_by_its_own_profile() -> None:
    inks = Image.fromarray(np.full((8, 8, 4), 100, np.uint8), "CMYK")
    common: bytes = pyvips.Image.profile_load("cmyk")
    other = bytearray(common)
    for entry in range(132, 132 + 12 * int.from_bytes(common[128:132]), 12):
        name, place, length = struct.unpack_from(">4sII", common, entry)
        if name in {b"A2B0", b"A2B1", b"A2B2"}:
            other[place + length // 2 : place + length] = bytes(length - length // 2)
    plain, same, changed, broken = (
        decoded(saved(inks, "TIFF", icc_profile=profile)).colour
        for profile in (None, common, bytes(other), bytes(16) + b"CMYK" + bytes(200))
    )
    assert np.array_equal(plain, same)
    assert not np.array_equal(plain, changed)
    assert np.array_equal(plain, broken), "a damaged profile cost the picture"


def test_cmyk_of_16_bits_stays_deep() -> None:
    pixels = pixels_of(4, 4, 4, np.uint16)
    made = pyvips.Image.new_from_memory(pixels.tobytes(), 4, 4, 4, "ushort").copy(interpretation="cmyk")
    encoded, notes = restored(made.tiffsave_buffer(compression="lzw"))
    back = by_vips(encoded.data)
    assert back.dtype == np.uint16
    assert (encoded.bits, back.shape, notes) == (16, (4, 4, 3), ["converted_from_cmyk"])


# -- what is no pixels --------------------------------------------------------------------------------------------------


def exif_of(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[MAKE], exif[ORIENTATION] = "Lacuna", orientation
    exif.get_ifd(EXIF).update({TAKEN: "2020:01:02 03:04:05", WIDTH: 31, HEIGHT: 17})
    exif.get_ifd(0x8825)[1] = "N"
    return exif


def photoshop_of(iptc: bytes) -> bytes:
    return b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + b"\0" * (len(iptc) % 2)


def described(format_: str, orientation: int = 6) -> bytes:
    """A picture of 31 × 17 pixels with everything that its format can say of it."""
    pixels = noise(17, 31, 3)
    exif = exif_of(orientation)
    if format_ == "BMP":
        return restored(saved(image(pixels), icc_profile=PROFILE, dpi=(300, 150)), "bmp")[0].data
    if format_ == "WEBP":
        return saved(image(pixels), format_, lossless=True, icc_profile=PROFILE, exif=exif, xmp=XMP)
    if format_ == "JPEG":
        made = saved(image(pixels), format_, icc_profile=PROFILE, exif=exif, dpi=(300, 150), xmp=XMP)
        return made[:2] + segment(0xED, b"Photoshop 3.0\0" + photoshop_of(IPTC)) + made[2:]
    if format_ == "PNG":
        block = photoshop_of(IPTC)
        text = b"Raw profile type iptc\0\0" + zlib.compress(b"\niptc\n%8d\n%s\n" % (len(block), block.hex().encode()))
        more = chunk(b"zTXt", text) + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP) + chunk(b"gAMA", struct.pack(">I", 50_000))
        made = saved(image(pixels), format_, icc_profile=PROFILE, exif=exif, dpi=(300, 150))
        return made[:33] + more + made[33:]
    info = {700: XMP, 33723: IPTC, 34675: PROFILE, MAKE: "Lacuna", ORIENTATION: orientation, EXIF: exif.get_ifd(EXIF)}
    return saved(image(pixels), format_, tiffinfo=info, dpi=(300, 150))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_everything_that_a_file_says_of_its_picture_stays_and_stands_upright(format_: str, orientation: int) -> None:
    data = described(format_, orientation)
    encoded, notes = restored(data)
    back = reopened(encoded.data)
    assert (back.format, notes) == (format_, [])
    assert back.info["icc_profile"] == PROFILE
    tags = back.getexif()
    assert (tags[MAKE], tags[ORIENTATION], tags.get_ifd(EXIF)[TAKEN]) == ("Lacuna", 1, "2020:01:02 03:04:05")
    sideways = orientation >= 5
    assert (tags.get_ifd(EXIF)[WIDTH], tags.get_ifd(EXIF)[HEIGHT]) == ((17, 31) if sideways else (31, 17))
    assert UPRIGHT_XMP in encoded.data
    if format_ != "TIFF":
        assert XMP not in encoded.data
    if format_ != "WEBP":
        assert back.info["dpi"] == pytest.approx((150, 300) if sideways else (300, 150), abs=0.02)
    if format_ != "JPEG":
        assert np.array_equal(np.asarray(back.convert("RGB")), upright(noise(17, 31, 3), orientation))
    if format_ in {"JPEG", "TIFF"}:
        assert IptcImagePlugin.getiptcinfo(back) == {(2, 5): b"a scan", (2, 25): b"cats"}  # type: ignore[arg-type]
    if format_ == "PNG":
        text = re.search(rb"iptc\n +\d+\n([0-9a-f]+)\n", zlib.decompress(encoded.data.split(b"Raw profile type iptc\0\0")[1][:2000]))
        assert text is not None
        assert IPTC in bytes.fromhex(text[1].decode())
        assert encoded.data.count(b"gAMA") == 1
        assert encoded.data.count(b"pHYs") == 1


def test_a_bmp_keeps_its_profile_and_its_resolution() -> None:
    encoded, notes = restored(described("BMP"))
    assert notes == []
    assert encoded.data.endswith(PROFILE)
    assert reopened(encoded.data).info["dpi"] == pytest.approx((300, 150), abs=0.02)


@pytest.mark.parametrize("to", ["png", "jpeg", "tiff", "webp", "bmp"])
@pytest.mark.parametrize("before", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_what_a_file_says_goes_with_it_into_another_format(before: str, to: str) -> None:
    encoded, notes = restored(described(before), to)
    back = reopened(encoded.data)
    if to == "bmp":
        assert encoded.data.endswith(PROFILE)
        assert set(notes) == {"exif_dropped", "xmp_dropped"} | ({"iptc_dropped"} if before != "WEBP" else set())
        return
    assert notes == (["iptc_dropped"] if to == "webp" and before != "WEBP" else [])
    tags = back.getexif()
    assert (tags[MAKE], tags[ORIENTATION], tags.get_ifd(EXIF)[TAKEN]) == ("Lacuna", 1, "2020:01:02 03:04:05")
    assert back.info["icc_profile"] == PROFILE
    assert UPRIGHT_XMP in encoded.data
    if before != "WEBP":
        resolution = (tags[282], tags[283]) if to == "webp" else back.info["dpi"]
        assert [float(side) for side in resolution] == pytest.approx([150, 300], abs=0.02)
    if before != "WEBP" and to in {"jpeg", "tiff"}:
        assert IptcImagePlugin.getiptcinfo(back) == {(2, 5): b"a scan", (2, 25): b"cats"}  # type: ignore[arg-type]


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_16_bits_keep_what_8_bits_keep(format_: str) -> None:
    encoded, _ = restored(described(format_), "png" if format_ == "TIFF" else "tiff")
    again, _ = restored(encoded.data)
    assert again.data == encoded.data, "a file that has been through it once changes when it goes through again"


def test_a_profile_longer_than_a_segment_stays_whole() -> None:
    long = np.random.default_rng(0).bytes(200_000)
    for format_ in ("PNG", "JPEG", "TIFF", "WEBP"):
        back = reopened(restored(saved(image(gradient(8, 8, 3)), format_, icc_profile=long))[0].data)
        assert back.info["icc_profile"] == long


def test_a_profile_of_grey_does_not_go_with_a_picture_that_became_rgb() -> None:
    profile = PROFILE[:16] + b"GRAY" + PROFILE[20:]
    data = saved(image(noise(8, 8, 1)), icc_profile=profile)
    assert reopened(restored(data)[0].data).info["icc_profile"] == profile
    encoded, notes = restored(data, "webp")
    assert notes == ["grey_expanded", "profile_dropped"]
    assert "icc_profile" not in reopened(encoded.data).info


def test_what_is_too_long_for_a_jpeg_is_dropped_with_notes() -> None:
    name = b"XML:com.adobe.xmp\0\0\0\0\0"
    data = described("PNG").replace(chunk(b"iTXt", name + XMP), chunk(b"iTXt", name + XMP * 700))
    assert restored(data, "jpeg")[1] == ["xmp_dropped"]
    assert restored(data, "tiff")[1] == []


def test_tags_that_lie_upon_each_other_do_not_become_more_than_the_file() -> None:
    many = [(40_000 + number, 7, 60_000, 100) for number in range(1_000)]
    source = decoded(tiff(*many, behind=bytes(100_000)))
    assert source.kept.exif is not None
    assert len(source.kept.exif.directory) <= 3
    assert source.notes == ["exif_corrupt"]


# -- more than one picture, and what lies behind ------------------------------------------------------------------------


def test_a_gain_map_behind_a_photo_is_dropped_with_a_note() -> None:
    first, second = saved(image(gradient(16, 24, 3)), "JPEG"), saved(image(gradient(4, 6, 1)), "JPEG")
    encoded, notes = restored(first + second)
    assert notes == ["secondary_images_dropped"]
    assert b"\xff\xd8" not in encoded.data[2:]


def test_a_tiff_with_reduced_copies_comes_back_as_its_full_page() -> None:
    pixels = pixels_of(300, 280, 3, np.uint16)
    encoded, notes = restored(tiff_of(pixels, pyramid=True, tile=True, tile_width=128, tile_height=128))
    assert np.array_equal(by_cv2(encoded.data), pixels)
    assert notes == ["secondary_images_dropped"]


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_bytes_behind_the_end_are_told(format_: str) -> None:
    encoded, notes = restored(saved(image(gradient(16, 24, 3)), format_) + b"more than padding")
    assert notes == ["trailing_bytes"]
    assert b"more than padding" not in encoded.data
    assert restored(saved(image(gradient(16, 24, 3)), format_) + bytes(64))[1] == []  # cameras pad


def test_chroma_that_pillow_cannot_write_is_told() -> None:
    data = bytearray(saved(image(gradient(32, 32, 3)), "JPEG", subsampling="4:2:2"))
    data[data.index(b"\xff\xc0") + 11] = 0x12  # 4:4:0
    encoded, notes = restored(bytes(data))
    back = reopened(encoded.data)
    assert isinstance(back, JpegImagePlugin.JpegImageFile)
    assert (JpegImagePlugin.get_sampling(back), notes) == (0, ["subsampling_changed"])


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_corrupt_exif_is_dropped_and_told(format_: str) -> None:
    data = saved(image(noise(5, 5, 3)), format_, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xffnonsense")
    encoded, notes = restored(data)
    assert notes == ["exif_corrupt"]
    assert not reopened(encoded.data).getexif()


# -- damaged files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "expected"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_by_its_code(data: bytes, expected: str) -> None:
    with pytest.raises(Refused) as error:
        decoded(data, MAX_PIXELS)
    assert error.value.code == expected


@pytest.mark.parametrize("depth", [8, 16])
def test_a_flipped_byte_in_a_png_s_data_is_found_also_where_no_decoder_looks(depth: int) -> None:
    rows = zlib.compress(bytes(9 * (9 * depth // 8 + 1)), 0) + b"behind the end of the data"
    data = PNG + ihdr(9, 9, depth) + chunk(b"IDAT", rows) + chunk(b"IEND")
    assert decoded(data).colour.shape == (9, 9, 1)
    place = data.index(b"behind")
    with pytest.raises(Refused) as error:
        decoded(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert error.value.code == "image_corrupt"


def test_data_that_unpack_to_more_than_the_picture_are_not_unpacked_further() -> None:
    bomb = chunk(b"IDAT", zlib.compress(b"\0" * 301 + bytes(30_000_000)))
    assert not decoded(PNG + ihdr(100, 3) + bomb + chunk(b"IEND")).colour.any()


@pytest.mark.parametrize("seed", range(0, 200, 2))
def test_a_damaged_file_is_restored_or_refused(seed: int) -> None:
    assert damaged.outcome(damaged.damaged(seed)) in damaged.REFUSALS | {"restored"}
