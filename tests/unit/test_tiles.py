"""Every pixel lies in exactly one tile, and comes back where it was."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.errors import Fault
from shared.imaging import tiles
from shared.imaging.pixels import Pixels
from tests.unit.pictures import noise
from trainer.execution.classic import ClassicConfig, ClassicNetwork


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


def stretched(batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """A network that leaves the range on both sides, and each channel differently."""
    return 1.7 * batch - np.float32(0.3) + np.array([0, 0.01, 0.02], np.float32)


def restored(pixels: Pixels, strength: float = 1.0) -> Pixels:
    back = np.zeros_like(pixels)
    plan = tiles.plan(pixels.shape[0], pixels.shape[1], 8, 8, whole_pixels=0, tile=32)
    for tile, part in tiles.apply(stretched, pixels, plan, strength=strength):
        back[tile.top : tile.bottom, tile.left : tile.right] = part
    return back


@pytest.mark.parametrize("channels", [1, 3])
def test_half_the_strength_gives_the_mean_of_before_and_after_to_the_last_of_16_bits(channels: int) -> None:
    before = np.random.default_rng(0).integers(0, 65_536, (50, 70, channels), dtype=np.uint16)
    after, half = restored(before), restored(before, strength=0.5)
    assert np.abs(half - (before.astype(float) + after) / 2).max() <= 0.76  # after is rounded once, and half of that counts; half once
    assert np.array_equal(restored(before, strength=1), after)


@settings(deadline=None)
@given(st.floats(0.001, 1), st.floats(0.001, 1), st.sampled_from([1, 3]), st.sampled_from([np.uint8, np.uint16]))
@example(0.99999999, 1.0, 3, np.uint16)
@example(0.001, 0.99999, 3, np.uint16)
def test_more_strength_is_never_nearer_to_what_was_there(one: float, other: float, channels: int, kind: type) -> None:
    picture: Pixels = np.random.default_rng(1).integers(0, np.iinfo(kind).max, (9, 40, channels)).astype(kind)
    before = picture.astype(int)
    less, more, after = (restored(picture, strength).astype(int) for strength in (min(one, other), max(one, other), 1.0))
    moved = np.sign(after - before)
    assert (moved * (less - before) >= 0).all()
    assert (moved * (more - less) >= 0).all()
    assert (moved * (after - more) >= 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_gives_no_numbers_is_a_fault_and_never_a_black_picture(value: float) -> None:
    def broken(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full_like(batch, value)

    with pytest.raises(Fault):
        list(tiles.apply(broken, np.zeros((2, 2, 3), np.uint8), tiles.plan(2, 2, 0, 1)))


HOLES = {
    "one in a corner": [(0, 1, 0, 1)],
    "one over all tiles": [(10, 12, 0, 400), (0, 300, 200, 203)],
    "far apart": [(0, 5, 0, 5), (290, 300, 390, 400), (150, 152, 200, 205)],
    "one around another": [(20, 280, 20, 24), (20, 280, 376, 380), (20, 24, 20, 380), (276, 280, 20, 380), (150, 152, 200, 205)],
}


@pytest.mark.parametrize("limit", [10**9, 40_000])
@pytest.mark.parametrize("boxes", HOLES.values(), ids=HOLES)
def test_every_hole_lies_in_exactly_one_tile_and_is_cut_only_where_the_whole_is_too_much(
    boxes: list[tuple[int, int, int, int]], limit: int
) -> None:
    holes = np.zeros((300, 400), bool)
    for top, bottom, left, right in boxes:
        holes[top:bottom, left:right] = True
    plan = tiles.around(holes, 16, 8, limit, 64)
    covered = np.zeros(holes.shape, int)
    for tile in plan:
        assert 0 <= tile.window_top <= tile.top < tile.bottom <= tile.window_bottom <= 300
        assert 0 <= tile.window_left <= tile.left < tile.right <= tile.window_right <= 400
        assert tile.window_top % 8 == tile.window_left % 8 == 0
        covered[tile.top : tile.bottom, tile.left : tile.right] += 1
    assert (covered[holes] == 1).all()
    if limit > holes.size:
        for top, bottom, left, right in boxes:
            assert any(
                tile.window_top <= max(0, top - 16) and tile.window_bottom >= min(300, bottom + 16) and
                tile.window_left <= max(0, left - 16) and tile.window_right >= min(400, right + 16)
                for tile in plan
            ), "a hole is cut, or lacks its halo"  # fmt: skip


def test_what_is_far_from_any_hole_is_in_no_tile() -> None:
    holes = np.zeros((1000, 2000), bool)
    assert tiles.around(holes, 16, 8) == []
    holes[500, 500] = holes[999, 1999] = True
    first, second = tiles.around(holes, 16, 8)
    assert (first.window_top, first.window_bottom, first.window_left, first.window_right) == (384, 576, 384, 576)
    assert (second.window_bottom, second.window_right) == (1000, 2000)
    holes[600, 600] = True
    assert len(tiles.around(holes, 16, 8)) == 2, "holes whose surroundings meet do not go together"


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_what_is_no_hole_stays_as_it_is_and_the_network_is_told_of_the_holes(depth: type[np.integer]) -> None:
    pixels = np.random.default_rng(3).integers(0, np.iinfo(depth).max, (20, 30, 3), dtype=depth, endpoint=True)
    holes = np.zeros((20, 30), bool)
    holes[3:5, 7:9] = True

    def network(batch: NDArray[np.float32], masks: NDArray[np.float32]) -> NDArray[np.float32]:
        assert np.array_equal(masks[0, :, :, 0], holes)
        assert masks.dtype == np.float32
        return np.full_like(batch, 0.5)

    ((_, filled),) = tiles.apply(network, pixels, tiles.plan(20, 30, 0, 1), holes)
    assert filled.dtype == depth
    assert np.array_equal(filled[~holes], pixels[~holes])
    assert (filled[holes] == round(np.iinfo(depth).max / 2)).all()


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_pixels_that_a_network_leaves_as_they_are_come_back_bit_for_bit_in_every_depth(depth: type[np.integer]) -> None:
    pixels = np.arange(np.iinfo(depth).max + 1, dtype=depth).reshape(-1, 16, 1)
    ((_, same),) = tiles.apply(lambda batch: batch, pixels, tiles.plan(*pixels.shape[:2], 0, 1))
    assert np.array_equal(same, pixels)


def flooded(colour: Pixels, holes: NDArray[np.bool_], plan: list[tiles.Tile], run: tiles.Run) -> Pixels:
    """The picture with what `apply` gives."""
    back = colour.copy()
    for tile, filled in tiles.apply(run, colour, plan, holes):
        assert filled.dtype == colour.dtype
        back[tile.top : tile.bottom, tile.left : tile.right] = filled
    return back


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_hole_that_no_window_sees_beyond_is_filled_to_its_middle_by_what_is_around(channels: int, depth: type[np.integer]) -> None:
    white = np.iinfo(depth).max
    ramp = np.linspace(0.2, 0.6, 330)[np.newaxis, :, np.newaxis] * white * np.ones((310, 1, channels))
    clean: Pixels = np.round(ramp).astype(depth)
    holes = np.zeros((310, 330), bool)
    holes[20:290, 30:300] = True
    plan = tiles.around(holes, 16, 1, 90_000, 64)
    assert any(holes[tile.window_top : tile.window_bottom, tile.window_left : tile.window_right].all() for tile in plan)
    calls: list[int] = []

    def run(*inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        calls.append(inputs[0][0, :, :, 0].size)
        return ClassicNetwork(ClassicConfig()).run(*inputs)

    first, second = (flooded(np.where(holes[:, :, np.newaxis], depth(damage), clean), holes, plan, run) for damage in (0, white))
    assert np.array_equal(first, second), "what a hole held is seen in what fills it"
    assert np.array_equal(first[~holes], clean[~holes])
    assert np.abs(first.astype(float) - clean).max() < 0.15 * white
    assert max(calls) <= max((tile.window_bottom - tile.window_top) * (tile.window_right - tile.window_left) for tile in plan)


@pytest.mark.parametrize(("height", "width", "factor"), [(7, 9, 3), (8, 10, 3), (5, 5, 9), (6, 4, 1)])
def test_squares_are_the_means_of_what_is_known_in_them_also_at_the_edges(height: int, width: int, factor: int) -> None:
    pixels, known = noise(height, width, 3), noise(height, width, 1, seed=1)[:, :, 0] > 120
    means, some = tiles._shrunk(pixels, known, factor)
    for row in range(-(-height // factor)):
        for column in range(-(-width // factor)):
            square = np.s_[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            assert some[row, column] == known[square].any()
            expected = pixels[square][known[square]].mean(axis=0) / 255 if some[row, column] else np.zeros(3)
            assert means[row, column] == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20))
@settings(max_examples=200)
def test_the_rectangles_around_holes_cover_them_and_neither_overlap_nor_touch(marked: list[tuple[int, int]]) -> None:
    cells = np.zeros((12, 12), bool)
    for cell in marked:
        cells[cell] = True
    grown = np.zeros((14, 14), int)
    covered = np.zeros((12, 12), int)
    for top, bottom, left, right in tiles._rectangles(cells):
        covered[top:bottom, left:right] += 1
        assert not grown[top + 1 : bottom + 1, left + 1 : right + 1].any(), "two touch: a hole of one reaches into the other"
        grown[top : bottom + 2, left : right + 2] += 1
    assert covered.max() <= 1
    assert (covered[cells] == 1).all()
