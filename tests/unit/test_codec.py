"""Pixels come back bit for bit where the format can, and what is not pixels is kept."""

import errno
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, JpegImagePlugin, PngImagePlugin

from shared.errors import Refused
from shared.imaging import codec
from tests.unit.pictures import MODES, PNG, chunk, decoded, gradient, ihdr, image, noise, png, reopened, resealed, saved, segment

MAKE, DESCRIPTION, ORIENTATION, GPS = 0x010F, 0x010E, 0x0112, 0x8825
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def restored(data: bytes, format_: str = "keep") -> tuple[Image.Image, list[str]]:
    """What a network that changes nothing makes of a file, and the notes."""
    source = decoded(data)
    encoded = codec.encode(source.colour, source, format_)
    return reopened(encoded.data), source.notes + encoded.notes


def exif_of(**tags: Any) -> Image.Exif:
    exif = Image.Exif()
    exif[MAKE], exif[DESCRIPTION] = "Lacuna", "a scan"
    for tag, value in tags.items():
        exif[{"orientation": ORIENTATION}[tag]] = value
    return exif


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 7), (128, 128), (16_385, 1), (131, 127)])  # libvips writes the last two
@pytest.mark.parametrize("mode", MODES)
def test_a_png_comes_back_bit_for_bit(mode: str, size: tuple[int, int]) -> None:
    pixels = noise(size[1], size[0], MODES[mode])
    back, notes = restored(saved(image(pixels)))
    assert (back.format, back.mode, back.size) == ("PNG", mode, size)
    assert np.array_equal(np.asarray(back).reshape(pixels.shape), pixels)
    assert notes == []


def test_alpha_is_carried_through_untouched_whatever_the_network_does() -> None:
    pixels = noise(6, 5, 4)
    source = decoded(saved(image(pixels)))
    back = reopened(codec.encode(255 - source.colour, source, "keep").data)
    assert np.array_equal(np.asarray(back)[:, :, 3], pixels[:, :, 3])
    assert np.array_equal(np.asarray(back)[:, :, :3], 255 - pixels[:, :, :3])


@pytest.mark.parametrize("side", [8, 200])  # Pillow writes the one, libvips the other
def test_a_png_says_nothing_but_what_its_source_said(side: int) -> None:
    source = decoded(saved(image(noise(side, side, 3)), exif=exif_of(), dpi=(300, 300)))
    data = codec.encode(source.colour, source, "keep").data
    assert reopened(data).info["dpi"] == pytest.approx((300, 300), abs=0.02)
    assert decoded(data).kept == source.kept


def test_a_bi_level_picture_becomes_grey() -> None:
    pixels = noise(9, 11, 1)[:, :, 0] > 127
    back, _ = restored(saved(Image.fromarray(pixels)))
    assert back.mode == "L"
    assert np.array_equal(np.asarray(back), pixels * np.uint8(255))


def test_a_palette_is_expanded_and_a_note_says_so() -> None:
    palette = image(noise(8, 8, 3)).quantize(16)
    back, notes = restored(saved(palette))
    assert back.mode == "RGB"
    assert np.array_equal(np.asarray(back), np.asarray(palette.convert("RGB")))
    assert notes == ["palette_expanded"]


def test_transparent_colours_become_alpha() -> None:
    palette = image(noise(8, 8, 3)).quantize(16)
    back, notes = restored(saved(palette, transparency=0))
    assert (back.mode, notes) == ("RGBA", ["palette_expanded"])
    assert np.array_equal(np.asarray(back)[:, :, 3] == 0, np.asarray(palette) == 0)
    for mode, key, with_alpha in (("L", 7, "LA"), ("RGB", (7, 7, 7), "RGBA")):
        opaque = Image.new(mode, (3, 2), key if mode == "L" else "white")
        opaque.putpixel((1, 1), key)
        back, notes = restored(saved(opaque, transparency=key))
        assert (back.mode, notes) == (with_alpha, [])
        assert np.asarray(back)[1, 1, -1] == 0


@pytest.mark.parametrize(("bits", "row"), [(1, 0b01000000), (2, 0b00011011), (4, 0x1B), (8, 0x01)])
def test_the_transparent_grey_is_transparent_at_every_depth(bits: int, row: int) -> None:
    key = chunk(b"tRNS", struct.pack(">H", 1))
    source = decoded(png(ihdr(8 // bits, 1, bits), key, chunk(b"IDAT", zlib.compress(bytes([0, row])))))
    assert source.alpha is not None
    highest = 2**bits - 1
    stored = [row >> shift & highest for shift in range(8 - bits, -1, -bits)]
    assert source.colour.ravel().tolist() == [grey * 255 // highest for grey in stored]
    assert source.alpha.ravel().tolist() == [0 if grey == 1 else 255 for grey in stored]


def test_a_palette_of_half_transparent_colours_keeps_their_alpha() -> None:
    palette = image(noise(8, 8, 3)).quantize(16)
    back, _ = restored(saved(palette, transparency=bytes(range(0, 160, 10))))
    assert np.array_equal(np.asarray(back)[:, :, 3], np.array([*range(0, 160, 10), *[255] * 240], np.uint8)[np.asarray(palette)])


@pytest.mark.parametrize("name", ["icc_profile", "dpi", "exif", "xmp", "transparency", "Raw profile type exif"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_text_is_not_taken_for_what_bears_the_same_name(mode: str, name: str) -> None:
    picture = image(noise(4, 4, 3)).convert(mode)
    text = PngImagePlugin.PngInfo()
    text.add_text(name, "hello")
    for format_ in ("png", "jpeg"):
        back, _ = restored(saved(picture, pnginfo=text), format_)
        assert back.mode == ("L" if mode == "L" else "RGB")
        assert not {"icc_profile", "dpi", "exif"} & back.info.keys()


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_profile_exif_and_resolution_stay(format_: str) -> None:
    data = saved(image(gradient(20, 30, 3)), format_, icc_profile=PROFILE, exif=exif_of(), dpi=(600, 600))
    back, notes = restored(data)
    assert back.info["icc_profile"] == PROFILE
    assert back.getexif()[MAKE] == "Lacuna"
    assert back.getexif()[DESCRIPTION] == "a scan"
    assert back.info["dpi"] == pytest.approx((600, 600), abs=0.01)
    assert notes == []


def test_a_file_without_metadata_gets_none() -> None:
    back, _ = restored(saved(image(noise(4, 4, 3))))
    assert not back.getexif()
    assert not {"icc_profile", "dpi", "exif"} & back.info.keys()


UPRIGHT = np.arange(6, dtype=np.uint8).reshape(2, 3)
TURNS: dict[int, Any] = {  # TIFF 6.0, Orientation: what a viewer does with the stored rows
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: np.transpose, 6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T, 8: np.rot90,
}  # fmt: skip


@pytest.mark.parametrize("orientation", TURNS)
def test_a_picture_comes_back_as_a_viewer_displays_it_and_is_not_turned_twice(orientation: int) -> None:
    back, _ = restored(saved(Image.fromarray(UPRIGHT), exif=exif_of(orientation=orientation)))
    assert np.array_equal(np.asarray(back), TURNS[orientation](UPRIGHT))
    assert back.getexif()[ORIENTATION] == 1
    assert back.getexif()[MAKE] == "Lacuna"


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", TURNS)
def test_the_resolution_is_turned_with_the_picture(orientation: int, format_: str) -> None:
    back, _ = restored(saved(Image.fromarray(UPRIGHT), format_, exif=exif_of(orientation=orientation), dpi=(300, 150)))
    assert back.info["dpi"] == pytest.approx((150, 300) if orientation >= 5 else (300, 150), abs=0.02)


def test_alpha_is_turned_with_the_picture() -> None:
    pixels = noise(3, 5, 4)
    back, _ = restored(saved(image(pixels), exif=exif_of(orientation=6)))
    assert np.array_equal(np.asarray(back), np.rot90(pixels, -1))


def test_the_stale_thumbnail_goes() -> None:
    thumbnail = saved(Image.new("RGB", (4, 4), "red"), "JPEG")
    exif = exif_of()
    exif.get_ifd(1).update({0x0103: 6, 0x0201: 0, 0x0202: len(thumbnail)})
    with_thumbnail = exif.tobytes() + thumbnail
    back, _ = restored(saved(image(gradient(16, 16, 3)), "JPEG", exif=with_thumbnail))
    assert back.getexif()[MAKE] == "Lacuna"
    assert thumbnail not in back.info["exif"]


@pytest.mark.parametrize("broken", [b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0nonsense"])
def test_damaged_exif_never_costs_the_picture(broken: bytes) -> None:
    pixels = noise(5, 5, 3)
    data = PNG + ihdr(5, 5, 8, 2) + chunk(b"eXIf", broken[6:]) + saved(image(pixels))[len(PNG) + 25 :]
    back, notes = restored(data)
    assert np.array_equal(np.asarray(back), pixels)
    assert notes == ["exif_corrupt"]


@pytest.mark.parametrize("quality", [1, 30, 75, 89, *range(90, 101)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_is_written_at_least_as_well_as_it_came_and_never_under_90(channels: int, quality: int) -> None:
    picture = image(gradient(32, 32, channels))
    back, _ = restored(saved(picture, "JPEG", quality=quality))
    expected = reopened(saved(picture, "JPEG", quality=max(90, quality)))
    assert isinstance(back, JpegImagePlugin.JpegImageFile)
    assert isinstance(expected, JpegImagePlugin.JpegImageFile)
    assert back.quantization == expected.quantization


@pytest.mark.parametrize("quality", [1, 37, 90, 100])
@pytest.mark.parametrize(("before", "sampling"), [("JPEG", 2), ("PNG", 0)])
def test_a_jpeg_has_the_quality_that_was_asked_for_also_under_90_and_is_sampled_as_without(
    before: str, sampling: int, quality: int
) -> None:
    picture = image(gradient(32, 32, 3))
    source = decoded(saved(picture, before))
    back = reopened(codec.encode(source.colour, source, "jpeg", quality).data)
    expected = reopened(saved(picture, "JPEG", quality=quality))
    assert isinstance(back, JpegImagePlugin.JpegImageFile)
    assert isinstance(expected, JpegImagePlugin.JpegImageFile)
    assert (back.quantization, JpegImagePlugin.get_sampling(back)) == (expected.quantization, sampling)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize(("before", "asked"), [("WEBP", "keep"), ("PNG", "webp"), ("JPEG", "webp")])
def test_a_webp_has_the_quality_that_was_asked_for_and_is_lossy_then(before: str, asked: str, lossless: bool) -> None:
    source = decoded(saved(image(noise(40, 40, 3)), before, **({"lossless": lossless} if before == "WEBP" else {})))
    low, high = (codec.encode(source.colour, source, asked, quality).data for quality in (5, 100))
    kept = codec.encode(source.colour, source, asked).data
    assert b"VP8 " in low[:16] + high[:16]
    assert len(low) < len(high) / 3
    assert (b"VP8L" in kept[:16]) == (before == "PNG" or (before == "WEBP" and lossless))


@pytest.mark.parametrize("broken", [b"nonsense", b"II*\0", b"II*\0\x08\0\0\0\xff\xff", b"MM\0*\xff\xff\xff\xff"])
@pytest.mark.parametrize("jfif", [True, False])
def test_damaged_exif_of_a_jpeg_is_told_too_and_only_once(broken: bytes, jfif: bool) -> None:
    data = saved(image(gradient(8, 8, 3)), "JPEG", exif=b"Exif\0\0" + broken, dpi=(72, 72))
    back, notes = restored(data if jfif else data[:2] + data[20:])
    assert (back.size, notes) == ((8, 8), ["exif_corrupt"])


def test_a_resolution_that_the_other_format_cannot_hold_is_left_out() -> None:
    fine = saved(image(gradient(8, 8, 3)), dpi=(100_000, 100_000))  # a microscope's
    assert restored(fine)[0].info["dpi"] == pytest.approx((100_000, 100_000))
    assert "dpi" not in restored(fine, "jpeg")[0].info
    data = saved(image(gradient(8, 8, 3)), "JPEG")
    for kind, value in ((5, struct.pack(">LL", 2**32 - 1, 1)), (10, struct.pack(">ll", -300, 1)), (12, struct.pack(">d", float("inf")))):
        entries = struct.pack(">HHLL", 0x011A, kind, 1, 38) + struct.pack(">HHLHH", 0x0128, 3, 1, 2, 0)
        exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 2) + entries + b"\0" * 4 + value
        absurd = data[:2] + segment(0xE1, exif) + data[20:]
        assert "dpi" not in restored(absurd, "png")[0].info
        assert restored(absurd)[0].size == (8, 8)


def test_exif_that_a_jpeg_cannot_hold_is_dropped_with_a_note_and_stays_in_a_png() -> None:
    exif = exif_of()
    exif[DESCRIPTION] = "x" * 70_000
    data = saved(image(gradient(8, 8, 3)), exif=exif)
    assert restored(data)[0].getexif()[DESCRIPTION] == "x" * 70_000
    back, notes = restored(data, "jpeg")
    assert not back.getexif()
    assert notes == ["exif_dropped"]


@pytest.mark.parametrize(("sampling", "back"), [("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)])
def test_the_chroma_subsampling_is_kept(sampling: str, back: int) -> None:
    data = saved(image(gradient(32, 32, 3)), "JPEG", subsampling=sampling)
    picture, _ = restored(data)
    assert isinstance(picture, JpegImagePlugin.JpegImageFile)
    assert JpegImagePlugin.get_sampling(picture) == back


def test_a_jpeg_with_further_pictures_comes_back_as_its_first() -> None:
    first, second = image(gradient(16, 24, 3)), image(noise(16, 24, 3))
    back, notes = restored(saved(first, "MPO", save_all=True, append_images=[second]))
    assert (back.format, notes) == ("JPEG", ["secondary_images_dropped"])
    assert np.abs(np.asarray(back).astype(int) - np.asarray(first)).max() <= 8


@pytest.mark.parametrize("sampling", [0x12, 0x41])
def test_chroma_that_pillow_cannot_write_comes_back_in_full(sampling: int) -> None:
    """4:4:0 has as many blocks as 4:2:2, and 4:1:1 as 4:2:0: the rest of the file fits."""
    data = bytearray(saved(image(gradient(32, 32, 3)), "JPEG", subsampling="4:2:2" if sampling == 0x12 else "4:2:0"))
    luma = data.index(b"\xff\xc0") + 11
    assert data[luma] == (0x21 if sampling == 0x12 else 0x22)
    data[luma] = sampling
    picture, _ = restored(bytes(data))
    assert isinstance(picture, JpegImagePlugin.JpegImageFile)
    assert JpegImagePlugin.get_sampling(picture) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_comes_back_nearly_as_it_was(channels: int) -> None:
    data = saved(image(gradient(40, 50, channels)), "JPEG", quality=95)
    back, notes = restored(data)
    before = np.asarray(reopened(data)).astype(int)
    assert back.mode == ("L" if channels == 1 else "RGB")
    assert np.abs(np.asarray(back).astype(int) - before).max() <= 3
    assert notes == []


def test_a_jpeg_cannot_hold_alpha_and_a_note_says_that_it_was_dropped() -> None:
    back, notes = restored(saved(image(gradient(8, 8, 4))), "jpeg")
    assert (back.format, back.mode, notes) == ("JPEG", "RGB", ["alpha_dropped"])


def test_of_damaged_exif_what_can_be_read_stays() -> None:
    data = saved(image(gradient(8, 8, 3)), "JPEG", exif=exif_of())
    offset = data.index(b"\x01\x0f\0\x02") + 8  # where the maker's name lies
    back, notes = restored(data[:offset] + b"\0\xff\xff\xff" + data[offset + 4 :])
    assert back.getexif()[DESCRIPTION] == "a scan"
    assert MAKE not in back.getexif()
    assert notes == ["exif_corrupt"]


def test_a_jpeg_asked_for_as_png_is_exact_and_keeps_what_a_png_can_hold() -> None:
    data = saved(image(gradient(8, 8, 3)), "JPEG", icc_profile=PROFILE, exif=exif_of())
    back, notes = restored(data, "png")
    assert (back.format, notes) == ("PNG", [])
    assert np.array_equal(np.asarray(back), np.asarray(reopened(data)))
    assert back.info["icc_profile"] == PROFILE
    assert back.getexif()[MAKE] == "Lacuna"


def test_a_png_asked_for_as_jpeg_is_written_well_and_without_subsampling() -> None:
    picture, _ = restored(saved(image(gradient(16, 16, 3))), "jpeg")
    assert isinstance(picture, JpegImagePlugin.JpegImageFile)
    assert JpegImagePlugin.get_sampling(picture) == 0


def refused(data: bytes, max_pixels: int = 10**9) -> str:
    with pytest.raises(Refused) as error:
        decoded(data, max_pixels)
    return error.value.code


def test_a_picture_over_the_limit_is_refused_before_anything_is_allocated_for_it() -> None:
    assert refused(png(ihdr(60_000, 60_000), chunk(b"IDAT", b"x"))) == "too_many_pixels"


@pytest.mark.parametrize("marker", [0xF0, 0xFB, 0xC8])
def test_a_size_hidden_where_only_pillow_looks_is_refused_before_anything_is_allocated_for_it(marker: int) -> None:
    data = saved(image(gradient(8, 8, 3)), "JPEG")
    frame = data[data.index(b"\xff\xc0") :][:19]
    huge = frame[:5] + struct.pack(">HH", 60_000, 60_000) + frame[9:]
    scan = data[data.index(b"\xff\xda") :][:14]
    assert refused(data[:2] + segment(marker, huge + scan) + data[2:], max_pixels=10_000) == "image_corrupt"


class Failing(io.BytesIO):
    """A file on a disk that dies after so many readings."""

    left = 0

    def read(self, size: int | None = -1) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.EIO, "the disk died")
        return super().read(size)


def test_a_disk_that_dies_is_never_called_a_damaged_picture() -> None:
    data = saved(image(noise(60, 60, 3)))
    outcomes: list[object] = []
    for readings in range(60):
        file = Failing(data)
        file.left = readings
        try:
            outcomes.append(codec.decode(file, len(data), 10_000).colour.shape)
        except OSError as error:
            outcomes.append(error.errno)
    assert set(outcomes) == {errno.EIO, (60, 60, 3)}


def test_data_that_end_too_soon_or_are_damaged_are_told_apart_from_faults() -> None:
    assert refused(png(ihdr(9, 9), chunk(b"IDAT", b"this is not a zlib stream"))) == "image_corrupt"
    assert refused(png(ihdr(9, 9))) == "image_corrupt"
    assert refused(png(ihdr(9, 9), chunk(b"IDAT", zlib.compress(b"\0" * 90)[:-8]))) == "image_truncated"
    whole = saved(image(noise(64, 64, 3)), "JPEG")
    assert refused(whole[: len(whole) // 2]) == "image_truncated"
    assert refused(b"\xff\xd8\xff\xe0") in {"image_truncated", "image_corrupt"}


PALETTE = image(noise(9, 7, 3)).quantize(16)
GOOD: list[bytes] = [
    saved(picture, format_, **options)
    for picture, format_, options in (
        (image(noise(9, 7, 3)), "PNG", {"exif": exif_of(orientation=5), "icc_profile": PROFILE[:200], "dpi": (300, 150)}),
        (image(noise(9, 7, 4)), "PNG", {}), (image(noise(9, 7, 1)), "PNG", {"transparency": 5}),
        (PALETTE, "PNG", {"transparency": bytes(range(16)), "exif": exif_of(orientation=8)}), (PALETTE, "PNG", {"transparency": 0}),
        (image(noise(9, 7, 3)), "JPEG", {"exif": exif_of(orientation=3), "dpi": (72, 72)}), (image(noise(9, 7, 1)), "JPEG", {}),
        (image(noise(9, 7, 3)), "JPEG", {"progressive": True, "exif": exif_of(orientation=6)}),
    )
]  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(GOOD),
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=6),
    st.one_of(st.just(0), st.integers(0, 40)),
    st.booleans(),
    st.sampled_from(["keep", "png", "jpeg"]),
)
def test_whatever_happened_to_a_file_it_is_decoded_or_refused(
    data: bytes, changes: list[tuple[int, int]], cut: int, seal: bool, format_: str
) -> None:
    bad = bytearray(data[: len(data) - cut])
    for place, value in changes:
        bad[place % len(bad)] = value
    try:
        source = decoded(resealed(bytes(bad)) if seal else bytes(bad), max_pixels=10_000)
    except Refused as error:
        assert error.kind.status in {413, 415, 422}
    else:
        back = reopened(codec.encode(source.colour, source, format_).data)
        assert back.size == source.colour.shape[1::-1]


def test_decoding_reads_the_file_it_is_given_from_its_beginning() -> None:
    data = saved(image(noise(3, 3, 3)))
    file = io.BytesIO(data)
    file.seek(5)
    pixels = codec.decode(io.BytesIO(file.getvalue()), len(data), 100).colour
    assert pixels.shape == (3, 3, 3)
