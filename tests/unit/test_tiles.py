"""Every pixel lies in exactly one tile, and comes back where it was."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.errors import Fault
from shared.imaging import tiles
from shared.imaging.pixels import Pixels
from tests.unit.pictures import noise


@given(st.integers(1, 150), st.integers(1, 150), st.integers(0, 40), st.sampled_from([1, 2, 8, 16]), st.integers(7, 60))
def test_every_pixel_lies_in_one_tile_and_every_window_in_the_picture(height: int, width: int, halo: int, multiple: int, side: int) -> None:
    covered = np.zeros((height, width), np.int64)
    for tile in tiles.plan(height, width, halo, multiple, whole_pixels=0, tile=side):
        covered[tile.top : tile.bottom, tile.left : tile.right] += 1
        assert 0 <= tile.window_top <= tile.top < tile.bottom <= tile.window_bottom <= height
        assert 0 <= tile.window_left <= tile.left < tile.right <= tile.window_right <= width
        assert min(tile.top, halo) <= tile.top - tile.window_top
        assert min(width - tile.right, halo) <= tile.window_right - tile.right
        assert tile.window_top % multiple == 0
        assert tile.window_left % multiple == 0
    assert (covered == 1).all()


def test_up_to_the_limit_a_picture_is_one_tile_and_a_pixel_more_makes_several() -> None:
    assert tiles.plan(2000, 2000, 60, 8) == [tiles.Tile(0, 2000, 0, 2000, 0, 2000, 0, 2000)]
    assert len(tiles.plan(2000, 2001, 60, 8)) == 4


def test_tiles_and_halos_grow_to_whole_strides_of_the_network() -> None:
    first, second = tiles.plan(10, 70, 9, 8, whole_pixels=0, tile=33)
    assert first == tiles.Tile(0, 10, 0, 40, 0, 10, 0, 56)
    assert second == tiles.Tile(0, 10, 40, 70, 0, 10, 24, 70)


def test_tiles_come_in_reading_order_one_call_of_the_network_for_each() -> None:
    calls: list[tuple[int, ...]] = []

    def network(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        calls.append(batch.shape)
        return batch

    plan = tiles.plan(50, 70, 8, 8, whole_pixels=0, tile=32)
    assert [(tile.top, tile.left) for tile in plan] == [(0, 0), (0, 32), (0, 64), (32, 0), (32, 32), (32, 64)]
    for done, (tile, _) in enumerate(tiles.apply(network, noise(50, 70, 3), plan), 1):
        assert tile == plan[done - 1]
        assert len(calls) == done  # between two tiles a canceled job can stop
    assert len(calls) == len(plan)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([1, 3]), st.integers(0, 20), st.integers(0, 3600))
def test_a_picture_below_or_above_the_limit_comes_back_as_it_was(height: int, width: int, channels: int, halo: int, limit: int) -> None:
    pixels = noise(height, width, channels)
    plan = tiles.plan(height, width, halo, 8, whole_pixels=limit, tile=16)
    padded = -(-height // 8) * 8 * (-(-width // 8) * 8)  # what the network sees
    assert (len(plan) == 1) == (padded <= limit or max(height, width) <= 16)
    back = np.zeros_like(pixels)
    for tile, restored in tiles.apply(lambda batch: batch, pixels, plan):
        assert restored.dtype == pixels.dtype
        back[tile.top : tile.bottom, tile.left : tile.right] = restored
    assert np.array_equal(back, pixels)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_that_changes_nothing_gives_back_every_pixel(channels: int, kind: type) -> None:
    pixels: Pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, (97, 131, channels)).astype(kind)
    back = np.zeros_like(pixels)
    for tile, restored in tiles.apply(lambda batch: batch, pixels, tiles.plan(97, 131, 9, 8, whole_pixels=0, tile=40)):
        assert restored.dtype == kind
        back[tile.top : tile.bottom, tile.left : tile.right] = restored
    assert np.array_equal(back, pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_of_65_536_shades_goes_through_float32_and_comes_back(channels: int) -> None:
    shades: Pixels = np.arange(65_536, dtype=np.uint16).reshape(256, 256, 1).repeat(channels, axis=2)
    ((_, restored),) = tiles.apply(lambda batch: batch, shades, tiles.plan(256, 256, 8, 8))
    assert np.array_equal(restored, shades)


def test_the_network_sees_zero_to_one_in_float32_and_three_channels_also_of_a_grey_picture() -> None:
    seen: list[NDArray[np.float32]] = []

    def network(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(batch)
        return batch

    list(tiles.apply(network, np.array([[[0], [51], [255]]], np.uint8), tiles.plan(1, 3, 0, 1)))
    assert seen[0].dtype == np.float32
    assert seen[0].shape == (1, 1, 3, 3)
    assert np.array_equal(seen[0][0, 0], np.array([[0] * 3, [0.2] * 3, [1] * 3], np.float32))


def test_of_a_grey_picture_the_mean_of_the_three_channels_is_taken() -> None:
    shift = np.array([0.0, 0.1, 0.2], np.float32)
    ((_, restored),) = tiles.apply(lambda batch: batch + shift, np.full((2, 2, 1), 100, np.uint8), tiles.plan(2, 2, 0, 1))
    assert restored.shape == (2, 2, 1)
    assert (restored == 126).all()  # 100 + 0.1 · 255, rounded half to even


def test_what_leaves_the_range_is_clipped_and_the_rest_rounded() -> None:
    outputs = np.array([[[[-1, 0.4 / 255, 0.6 / 255]], [[2, 254.6 / 255, 254.4 / 255]]]], np.float32)
    ((_, restored),) = tiles.apply(lambda _: outputs, np.zeros((2, 1, 3), np.uint8), tiles.plan(2, 1, 0, 1))
    assert restored.tolist() == [[[0, 0, 1]], [[255, 255, 254]]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_gives_no_numbers_is_a_fault_and_never_a_black_picture(value: float) -> None:
    def broken(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full_like(batch, value)

    with pytest.raises(Fault):
        list(tiles.apply(broken, np.zeros((2, 2, 3), np.uint8), tiles.plan(2, 2, 0, 1)))
