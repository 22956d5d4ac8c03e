"""What a network is shown and what it is asked for, by task and supervision."""

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.trainings.recipe import Loss, Recipe
from trainer import blind_spots, examples, losses, masks


def crops(count: int = 4, side: int = 48) -> NDArray[np.float32]:
    return np.random.default_rng(7).random((count, side, side, 3), dtype=np.float32)


def made(recipe: Recipe, seed: int = 0) -> examples.Examples:
    given = crops()
    return examples.make(recipe, given, given * np.float32(0.5) if recipe.supervision == "paired" else given, np.random.default_rng(seed))


@pytest.mark.parametrize(
    "recipe",
    [Recipe(), Recipe(supervision="paired"), Recipe(supervision="noisy"), Recipe(task="inpaint")],
    ids=["clean", "paired", "noisy", "inpaint"],
)
def test_examples_are_the_same_for_the_same_seed(recipe: Recipe) -> None:
    one, again = made(recipe), made(recipe)
    for array, same in zip((*one.inputs, one.target, one.weight), (*again.inputs, again.target, again.weight), strict=True):
        assert array.dtype == np.float32
        assert np.array_equal(array, same)


def test_of_pairs_both_are_made_grey_or_neither() -> None:
    found = made(Recipe(supervision="paired", grey_share=0.5))
    assert found.inputs[0] * np.float32(0.5) == pytest.approx(found.target, abs=1e-6)
    assert (found.weight == 1).all()


def test_hidden_pixels_hold_what_a_neighbour_holds_and_all_others_what_they_held() -> None:
    given = crops(3, 40)
    shown, hidden = blind_spots.hide(given, np.random.default_rng(0))
    where = hidden[..., 0] > 0
    assert np.array_equal(shown[~where], given[~where])
    assert hidden.mean() == pytest.approx(blind_spots.SHARE, rel=0.3)
    offsets = set()
    for which, row, column in np.argwhere(where):
        rows, columns = np.nonzero((given[which] == shown[which, row, column]).all(axis=2))
        (found,) = zip(rows - row, columns - column, strict=True)  # random colours: there is one such pixel
        offsets.add((int(found[0]), int(found[1])))
    assert (0, 0) not in offsets
    assert offsets <= {(row, column) for row in range(-2, 3) for column in range(-2, 3)}
    assert len(offsets) > 18


@pytest.mark.parametrize("side", [1, 2, 3])
def test_a_pixel_in_a_corner_is_hidden_by_another_one(side: int) -> None:
    given = np.arange(side * 4 * 3, dtype=np.float32).reshape(1, side, 4, 3)
    for seed in range(40):
        shown, hidden = blind_spots.hide(given, np.random.default_rng(seed))
        where = hidden[0, :, :, 0] > 0
        assert where.any()
        assert (shown[0][where] != given[0][where]).all()


def test_the_loss_of_noisy_pictures_counts_hidden_pixels_only() -> None:
    found = made(Recipe(supervision="noisy"))
    error = found.inputs[0] - found.target
    elsewhere = np.where(found.weight > 0, error, error + 100)
    assert float(losses.summed("l1", error, found.weight)) == float(losses.summed("l1", elsewhere, found.weight))
    mean = float(losses.summed("l1", error, found.weight)) / losses.count("l1", found.weight)
    assert mean == pytest.approx(np.abs(error[found.weight[..., 0] > 0]).mean(), rel=1e-5)


def test_what_a_hole_held_is_not_shown_and_the_loss_is_that_of_the_hole() -> None:
    found = made(Recipe(task="inpaint", grey_share=0))
    picture, mask = found.inputs
    assert np.array_equal(mask, found.weight)
    assert (picture[mask[..., 0] > 0] == 0).all()
    assert np.array_equal(picture[mask[..., 0] == 0], crops()[mask[..., 0] == 0])
    assert np.array_equal(found.target, crops())


@pytest.mark.parametrize("kind", [*masks.DRAWN, "pixels", "pixels-7"])
@pytest.mark.parametrize("side", [16, 96])
def test_of_every_crop_something_is_missing_and_never_all(kind: str, side: int) -> None:
    drawn = [masks.for_training([kind], side, side, np.random.default_rng(seed)) for seed in range(12)]
    assert all(mask.shape == (side, side) for mask in drawn)
    assert all(0 < mask.mean() <= masks.MOST_MISSING for mask in drawn)
    assert np.array_equal(drawn[5], masks.for_training([kind], side, side, np.random.default_rng(5)))


def test_pixels_alone_means_a_share_that_varies_and_with_a_number_that_share() -> None:
    shares = [masks.drawer("pixels")(64, 64, np.random.default_rng(seed)).mean() for seed in range(60)]
    assert 0.28 < min(shares) < 0.4
    assert 0.75 < max(shares) < 0.87
    assert masks.drawer("pixels-7")(300, 300, np.random.default_rng(0)).mean() == pytest.approx(0.07, abs=0.01)


@pytest.mark.parametrize("name", ["l1", "l2", "charbonnier", "psnr"])
def test_the_losses_of_parts_add_up_to_that_of_the_batch(name: Loss) -> None:
    error, weight = crops(5) - np.float32(0.5), (crops(5)[..., :1] < 0.3).astype(np.float32)
    whole = float(losses.summed(name, error, weight))
    assert float(losses.summed(name, error[:2], weight[:2])) + float(losses.summed(name, error[2:], weight[2:])) == pytest.approx(
        whole, rel=1e-5
    )


@pytest.mark.parametrize(("name", "expected"), [("l1", 0.1), ("l2", 0.01), ("charbonnier", 0.1000050), ("psnr", -19.998)])
def test_each_loss_is_what_its_name_says(name: Loss, expected: float) -> None:
    error, weight = np.full((2, 4, 4, 3), 0.1, np.float32), np.ones((2, 4, 4, 1), np.float32)
    assert float(losses.summed(name, error, weight)) / losses.count(name, weight) == pytest.approx(expected, rel=1e-5, abs=1e-3)
