"""Pixels come back bit for bit where the format can, and what is not pixels is kept."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms, JpegImagePlugin

from shared.errors import Refused
from shared.imaging import codec
from tests.unit.pictures import MODES, PNG, chunk, decoded, gradient, ihdr, image, noise, png, reopened, saved

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


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 7)])
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


@pytest.mark.parametrize(("quality", "least"), [(30, 90), (75, 90), (90, 90), (95, 94), (98, 97), (100, 99)])
def test_a_jpeg_is_written_at_least_as_well_as_it_came_and_never_under_90(quality: int, least: int) -> None:
    source = decoded(saved(image(gradient(32, 32, 3)), "JPEG", quality=quality))
    assert least <= source.kept["quality"] <= max(90, quality)
    assert codec.encode(source.colour, source, "keep").type == "image/jpeg"


@pytest.mark.parametrize(("sampling", "back"), [("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)])
def test_the_chroma_subsampling_is_kept(sampling: str, back: int) -> None:
    data = saved(image(gradient(32, 32, 3)), "JPEG", subsampling=sampling)
    picture, _ = restored(data)
    assert isinstance(picture, JpegImagePlugin.JpegImageFile)
    assert JpegImagePlugin.get_sampling(picture) == back


def test_chroma_halved_in_height_only_comes_back_in_full() -> None:
    data = bytearray(saved(image(gradient(32, 32, 3)), "JPEG", subsampling="4:2:2"))
    luma = data.index(b"\xff\xc0") + 11
    assert data[luma] == 0x21
    data[luma] = 0x12  # 4:4:0 has as many blocks, so that the rest of the file fits
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


def test_data_that_end_too_soon_or_are_damaged_are_told_apart_from_faults() -> None:
    assert refused(png(ihdr(9, 9), chunk(b"IDAT", b"this is not a zlib stream"))) == "image_corrupt"
    whole = saved(image(noise(64, 64, 3)), "JPEG")
    assert refused(whole[: len(whole) // 2]) == "image_truncated"
    assert refused(b"\xff\xd8\xff\xe0") in {"image_truncated", "image_corrupt"}


GOOD: list[bytes] = [
    saved(image(noise(9, 7, channels)), format_, **options)
    for channels, format_, options in (
        (3, "PNG", {}), (4, "PNG", {"exif": exif_of(orientation=5)}), (1, "PNG", {"icc_profile": PROFILE[:200]}),
        (3, "JPEG", {"exif": exif_of(orientation=3)}), (1, "JPEG", {}), (3, "JPEG", {"progressive": True}),
    )
]  # fmt: skip


@given(st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, 40))
def test_whatever_happened_to_a_file_it_is_decoded_or_refused(data: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    bad = bytearray(data[: len(data) - cut])
    for place, value in changes:
        bad[place % len(bad)] = value
    try:
        source = decoded(bytes(bad), max_pixels=10_000)
    except Refused as error:
        assert error.kind.status in {413, 415, 422}
    else:
        back = reopened(codec.encode(source.colour, source, "keep").data)
        assert back.size == source.colour.shape[1::-1]


def test_decoding_reads_the_file_it_is_given_from_its_beginning() -> None:
    data = saved(image(noise(3, 3, 3)))
    file = io.BytesIO(data)
    file.seek(5)
    pixels: NDArray[np.uint8] = codec.decode(io.BytesIO(file.getvalue()), len(data), 100).colour
    assert pixels.shape == (3, 3, 3)
