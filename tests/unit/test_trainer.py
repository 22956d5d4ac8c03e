"""The trainer: seeded, resumable, and honest about what it was given."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from shared.errors import Refused
from shared.models import registry
from trainer import datasets, evaluation, loop, masks, optimizers
from trainer.__main__ import main
from trainer.datasets import Crops, Picture
from trainer.degradations import BlindGaussian

TINY = loop.Recipe(config={"widths": (4, 8), "blocks": 1}, steps=8, batch=2, patch=16, warmup_steps=2)


def draw(count: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    return generator.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_interrupted_training_ends_with_the_same_weights_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    recipe = TINY.model_copy(update={"optimizer": optimizer})
    undisturbed = loop.train(recipe, draw, tmp_path / "a" / "checkpoint", lambda _: None, every=4)

    class StopError(Exception):
        pass

    def stop(progress: loop.Progress) -> None:
        if progress.step == 8:
            raise StopError

    with pytest.raises(StopError):  # the checkpoint of step 4 is the last
        loop.train(recipe, draw, tmp_path / "b" / "checkpoint", stop, every=4)
    resumed = loop.train(recipe, draw, tmp_path / "b" / "checkpoint", lambda _: None, every=4)
    assert undisturbed.keys() == resumed.keys()
    assert all(np.array_equal(undisturbed[name], resumed[name]) for name in undisturbed)


def test_muon_moves_a_kernel_by_an_orthogonal_step_and_leaves_the_layers_at_the_pixels_to_adamw() -> None:
    import keras

    optimizer = optimizers.build("muon", 1.0, weight_decay=0, clip_norm=1e9, ema=0.9)
    inner, outer = (keras.Variable(np.zeros((3, 3, 8, 16), np.float32), name="kernel") for _ in range(2))
    inner._path, outer._path = "down0_block0_conv0/kernel", "head/kernel"
    optimizer.build([inner, outer])
    gradient = np.random.default_rng(0).normal(size=inner.shape).astype(np.float32)
    optimizer.apply([gradient, gradient], [inner, outer])
    step = -np.asarray(inner.value).reshape(-1, 16) / (0.2 * np.sqrt(72))
    assert np.linalg.svd(step, compute_uv=False) == pytest.approx(np.ones(16), abs=0.35)
    assert np.abs(np.asarray(outer.value)) == pytest.approx(np.ones(outer.shape), abs=0.01)  # AdamW's first step is the sign


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    loop.train(TINY, draw, tmp_path / "checkpoint", lambda _: None)
    with pytest.raises(Refused, match="another recipe"):
        loop.train(TINY.model_copy(update={"seed": 1}), draw, tmp_path / "checkpoint", lambda _: None)


def test_what_goes_wrong_with_the_pictures_is_raised_where_one_trains(tmp_path: Path) -> None:
    def broken(count: int, generator: np.random.Generator) -> NDArray[np.uint8]:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        loop.train(TINY, broken, tmp_path / "checkpoint", lambda _: None)


def test_noise_is_the_same_for_the_same_seed_and_has_the_level_it_says() -> None:
    clean = np.full((4, 64, 64, 3), 128, dtype=np.uint8)
    degradation = BlindGaussian(25, 25, rounded_share=0, grey_share=0)
    noisy, target = degradation.apply(clean, np.random.default_rng(3))
    again, _ = degradation.apply(clean, np.random.default_rng(3))
    assert np.array_equal(noisy, again)
    assert np.std((noisy - target) * 255) == pytest.approx(25, rel=0.02)


def test_grey_patches_have_equal_channels_and_rounded_ones_are_8_bit() -> None:
    clean = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    noisy, target = BlindGaussian(rounded_share=1, grey_share=1).apply(clean, np.random.default_rng(0))
    assert np.ptp(noisy, axis=3).max() == 0
    assert np.ptp(target, axis=3).max() < 1e-6
    assert np.abs(noisy * 255 - np.round(noisy * 255)).max() < 1e-3
    assert noisy.min() >= 0
    assert noisy.max() <= 1


def test_a_held_out_picture_stays_held_out_when_the_set_grows() -> None:
    pictures = [Picture(str(index), f"{index * 40_000_003 % 2**32:08x}", np.zeros((1, 1, 3), np.uint8)) for index in range(200)]
    _, held_out = datasets.split(pictures[:100], 0.2)
    _, later = datasets.split(pictures, 0.2)
    assert {picture.name for picture in held_out} <= {picture.name for picture in later}
    assert 0 < len(held_out) < 50


def test_crops_are_of_the_pictures_and_small_pictures_are_left_out() -> None:
    big = np.arange(32 * 40 * 3, dtype=np.uint8).reshape(32, 40, 3)
    crops = Crops([Picture("big", "0", big), Picture("small", "1", np.zeros((8, 8, 3), np.uint8))], 16)
    drawn = crops.draw(20, np.random.default_rng(0))
    assert drawn.shape == (20, 16, 16, 3)
    assert set(np.unique(drawn)) <= set(np.unique(big))
    with pytest.raises(Refused):
        Crops([Picture("small", "1", np.zeros((8, 8, 3), np.uint8))], 16)


def test_a_share_of_the_crops_comes_from_the_pictures_at_half_their_size() -> None:
    bright, dark = (Picture(str(value), str(value), np.full((side, side, 3), value, np.uint8)) for value, side in ((200, 40), (50, 20)))
    crops = Crops([bright, dark], 16, half_share=0.25)
    assert [pixels.shape[0] for pixels in crops.pixels] == [40, 20, 20]  # the dark one at half its size is too small
    assert crops.share == pytest.approx([0.6, 0.75, 1.0])
    assert {int(crop.mean()) for crop in crops.draw(40, np.random.default_rng(0))} == {200, 50}
    with pytest.raises(Refused, match="half its size"):
        Crops([bright, dark], 24, half_share=0.25)


def test_a_folder_without_pictures_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="holds no"):
        datasets.picture_files(tmp_path)


def test_the_protocols_noise_is_seeded_anew_for_each_picture_and_not_clipped() -> None:
    clean = np.zeros((50, 40, 3), np.uint8)
    first, second = evaluation.add_noise(clean, 25), evaluation.add_noise(clean, 25)
    assert np.array_equal(first, second)
    assert first.min() < 0
    expected = np.random.RandomState(0).normal(0, 25 / 255, clean.shape)
    assert np.abs(first - expected).max() < 1e-6


def test_evaluation_measures_output_and_input_against_the_original(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    rows = evaluation.evaluate(lambda batch: batch, [datasets.read(tmp_path / "a.png")], 25)
    assert rows[0]["output"] == rows[0]["input"]
    assert 18 < evaluation.mean(rows, "output")["psnr"] < 23


def damage(folder: Path) -> Path:
    """A folder with one picture of damage: a cross of half opacity on black."""
    folder.mkdir()
    pixels = np.zeros((60, 60), np.uint8)
    pixels[30], pixels[:, 20] = 128, 128
    Image.fromarray(pixels).save(folder / "cross.png")
    return folder


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (7, 5), (64, 64), (131, 97), (97, 200)])
def test_masks_have_the_size_of_the_picture_and_are_the_same_for_the_same_seed(tmp_path: Path, height: int, width: int) -> None:
    for kind, draw in (masks.DRAWN | {"film": masks.film(damage(tmp_path / "film"))}).items():
        one, again = (draw(height, width, np.random.default_rng(5)) for _ in range(2))
        assert (one.shape, one.dtype) == ((height, width), np.dtype(bool)), kind
        assert np.array_equal(one, again), kind
        if min(height, width) >= 64:
            drawn = [draw(height, width, np.random.default_rng(seed)) for seed in range(20)]
            assert len({mask.tobytes() for mask in drawn}) > 5, kind
            assert 0 < np.mean(drawn) < 0.85, kind
            assert sum(mask.any() for mask in drawn) >= 18, kind


def test_masks_of_pixels_have_the_share_they_say_and_scratches_are_thin() -> None:
    generator = np.random.default_rng(0)
    assert masks.pixels(0.8)(400, 400, generator).mean() == pytest.approx(0.8, abs=0.01)
    assert np.mean([masks.scratches(400, 400, generator).mean() for _ in range(20)]) < 0.1


def test_filling_is_measured_within_the_hole_and_what_the_hole_held_is_not_shown() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    seen = []

    def grey(picture: NDArray[np.float32], mask: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append((picture, mask))
        return np.full_like(picture, 0.5)  # known pixels too: they are put back

    (row,) = evaluation.evaluate_filling(grey, [Picture("a", "0", pixels)], masks.boxes)
    ((picture, mask),) = seen
    hole = mask[0, :, :, 0] > 0
    assert (picture[0][hole] == 0).all()
    assert picture[0][~hole] * 255 == pytest.approx(pixels[~hole], abs=1e-3)
    assert row["share"] == hole.mean()
    assert row["hole"]["mse"] == pytest.approx(np.mean((pixels[hole] - 128.0) ** 2))
    assert row["output"]["mse"] == pytest.approx(row["hole"]["mse"] * hole.mean())


def test_a_model_that_fills_is_evaluated_on_every_kind_of_mask(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)).save(pictures / "a.png")
    classic = str(registry.shipped_artifact("inpaint-classic", 1))
    film = ["--film", str(damage(tmp_path / "film"))]
    answer = CliRunner().invoke(main, ["evaluate", classic, str(pictures), *film, "--json"])
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert [row["mask"] for row in told["rows"]] == [*masks.DRAWN, "film"]
    assert told["protocol"].startswith("holes")
    for row in told["rows"]:
        assert row["images"] == 1
        assert 0 < row["share"] < 1
        assert row["hole"]["psnr"] < row["psnr"]
        assert math.isfinite(row["hole"]["ssim"])
    unknown = CliRunner().invoke(main, ["evaluate", classic, str(pictures), "--masks", "boxes rain"])
    assert unknown.exit_code == 2
    assert "no masks called rain" in unknown.output
