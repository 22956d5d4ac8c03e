"""Pictures to learn from: where they come from, on which side of the split they lie, and the crops that are taken from them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shared.datasets import packed
from shared.errors import Fault, Refused
from trainer import datasets
from trainer.datasets import Crops, Picture


def picture(name: str, height: int, width: int, channels: int = 3, bits: int = 8, **more: Any) -> Picture:
    """Noise, named and hashed by its seed."""
    depth = np.uint16 if bits == 16 else np.uint8
    pixels = np.random.default_rng(int(name)).integers(0, 1 << bits, (height, width, channels), dtype=depth)
    return Picture(name, f"{int(name) * 40_000_003 % 2**32:08x}".ljust(64, "0"), pixels, **more)


def test_a_packed_set_comes_back_as_it_was_and_is_mapped_not_read(tmp_path: Path) -> None:
    given = [picture("1", 20, 30), picture("2", 17, 9, channels=1), picture("3", 8, 8, bits=16), picture("4", 5, 7, channels=1, bits=16)]
    written = datasets.pack(tmp_path, "clean", given)
    index, found = datasets.unpack(tmp_path)
    assert index == written
    assert [one.sha256 for one in found] == sorted(one.sha256 for one in given)
    for one in found:
        (same,) = (other for other in given if other.name == one.name)
        assert one.pixels.dtype.itemsize == same.pixels.dtype.itemsize
        assert np.array_equal(one.pixels, same.pixels)
        base: Any = one.pixels
        while base is not None and not isinstance(base, np.memmap):
            base = base.base
        assert base is not None, "the pixels were read into memory"
    assert all(stored.offset % packed.ALIGNED == 0 for stored in index.images)


def test_pairs_come_back_as_pairs(tmp_path: Path) -> None:
    noisy, clean = picture("1", 20, 30), picture("2", 20, 30)
    datasets.pack(tmp_path, "paired", [Picture("a", "f" * 64, noisy.pixels, clean.pixels, "0" * 64)])
    index, (found,) = datasets.unpack(tmp_path)
    assert index.kind == "paired"
    assert np.array_equal(found.pixels, noisy.pixels)
    assert found.target is not None
    assert np.array_equal(found.target, clean.pixels)
    assert found.key == "0" * 64


def test_an_index_that_points_outside_its_pixels_is_a_fault(tmp_path: Path) -> None:
    datasets.pack(tmp_path, "clean", [picture("1", 20, 30)])
    content = json.loads((tmp_path / packed.INDEX).read_text(encoding="utf-8"))
    for offset in (-64, 64):
        content["images"][0]["offset"] = offset
        (tmp_path / packed.INDEX).write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(Fault, match="damaged"):
            datasets.unpack(tmp_path)


def test_a_held_out_picture_stays_held_out_when_the_set_grows() -> None:
    pictures = [picture(str(number), 1, 1) for number in range(200)]
    _, held_out = datasets.split(pictures[:100], 0.2)
    _, later = datasets.split(pictures, 0.2)
    assert {one.name for one in held_out} <= {one.name for one in later}
    assert 0 < len(held_out) < 50


@pytest.mark.parametrize("share", [0.001, 0.5])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_both_sides_of_the_split_have_a_picture_whenever_there_are_two(share: float, count: int) -> None:
    for first in range(0, 300, 7):
        training, held_out = datasets.split([picture(str(first + number), 1, 1) for number in range(count)], share)
        assert training
        assert held_out
        assert len(training) + len(held_out) == count


def test_pictures_that_look_the_same_lie_on_the_same_side_and_a_share_of_nothing_holds_nothing_out() -> None:
    alike = [picture(str(number), 1, 1, split_key=f"{number % 4 * 0x3FFFFFFF:08x}") for number in range(40)]
    training, held_out = datasets.split(alike, 0.3)
    assert {one.key for one in training}.isdisjoint(one.key for one in held_out)
    assert len(held_out) == 20
    assert datasets.split(alike, 0)[1] == []
    assert datasets.split(alike[:1], 0.5)[1] == []


def test_crops_are_of_the_pictures_and_small_pictures_are_left_out() -> None:
    big = np.arange(32 * 40 * 3, dtype=np.uint8).reshape(32, 40, 3)
    crops = Crops([Picture("big", "0", big), Picture("small", "1", np.zeros((8, 8, 3), np.uint8))], 16)
    drawn, same = crops.draw(20, np.random.default_rng(0))
    assert drawn is same
    assert drawn.shape == (20, 16, 16, 3)
    assert drawn.dtype == np.float32
    assert set(np.unique(np.round(drawn * 255).astype(np.uint8))) <= set(np.unique(big))
    with pytest.raises(Refused, match="at least 16 pixels") as refused:
        Crops([Picture("small", "1", np.zeros((8, 8, 3), np.uint8))], 16)
    assert "patch" in refused.value.fields


def test_both_of_a_pair_are_cropped_flipped_and_turned_alike() -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (40, 50, 3), dtype=np.uint8)
    drawn, wanted = Crops([Picture("a", "0", pixels, pixels + np.uint8(50))], 16).draw(30, np.random.default_rng(1))
    assert wanted - drawn == pytest.approx(np.full_like(drawn, 50 / 255), abs=1e-6)
    assert len({crop.tobytes() for crop in drawn}) == 30


def test_grey_is_fed_as_three_equal_channels_and_16_bits_are_16() -> None:
    grey, _ = Crops([picture("1", 20, 20, channels=1)], 16).draw(3, np.random.default_rng(0))
    assert np.ptp(grey, axis=3).max() == 0
    fine = np.full((20, 20, 3), 257 * 100 + 1, np.uint16)
    deep, _ = Crops([Picture("a", "0", fine)], 16).draw(1, np.random.default_rng(0))
    assert deep == pytest.approx(np.full_like(deep, (257 * 100 + 1) / 65535), abs=1e-7)


def test_a_share_of_the_crops_comes_from_the_pictures_at_half_their_size() -> None:
    bright, dark = (Picture(str(value), str(value), np.full((side, side, 3), value, np.uint8)) for value, side in ((200, 40), (50, 20)))
    crops = Crops([bright, dark], 16, half_share=0.25)
    assert [(one.name, shrink) for one, shrink in crops.sources] == [("200", 1), ("50", 1), ("200", 2)]  # the dark one is too small
    assert crops.share == pytest.approx([0.6, 0.75, 1.0])
    drawn, _ = crops.draw(40, np.random.default_rng(0))
    assert {round(float(crop.mean()) * 255) for crop in drawn} == {200, 50}
    with pytest.raises(Refused, match="half its size"):
        Crops([bright, dark], 24, half_share=0.25)


def test_half_a_picture_keeps_its_light_and_loses_what_is_finer_than_a_pixel() -> None:
    checks = np.indices((32, 32)).sum(axis=0)[..., np.newaxis] % 2 * np.ones(3)
    assert datasets.half(checks.astype(np.float32)) == pytest.approx(np.full((16, 16, 3), 0.5), abs=0.05)


def test_folders_of_pairs_are_matched_by_name(tmp_path: Path) -> None:
    for folder, names in (("noisy", ("a.png", "b.png")), ("clean", ("a.webp", "b.png", "c.png"))):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(np.full((8, 8, 3), len(folder), np.uint8)).save(tmp_path / folder / name, lossless=True)
    found = datasets.pairs(tmp_path / "noisy", tmp_path / "clean")
    assert sorted(one.name for one in found) == ["a.png", "b.png"]
    assert all(one.target is not None for one in found)
    (tmp_path / "clean" / "b.png").unlink()
    with pytest.raises(Refused, match="no picture called b"):
        datasets.pairs(tmp_path / "noisy", tmp_path / "clean")
