"""The trainer beside its loop: optimisers, masks and evaluation."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from shared.errors import Refused
from shared.imaging import metrics
from shared.models import card, manifest, registry
from shared.trainings.recipe import Recipe, Supervision, Task
from trainer import datasets, evaluation, masks, optimizers
from trainer.__main__ import main
from trainer.datasets import Picture


def test_muon_moves_a_kernel_by_an_orthogonal_step_and_leaves_the_layers_at_the_pixels_to_adamw() -> None:
    import keras

    optimizer = optimizers.build("muon", 1.0, weight_decay=0, clip_norm=1e9)
    inner, outer = (keras.Variable(np.zeros((3, 3, 8, 16), np.float32), name="kernel") for _ in range(2))
    inner._path, outer._path = "down0_block0_conv0/kernel", "head/kernel"
    optimizer.build([inner, outer])
    gradient = np.random.default_rng(0).normal(size=inner.shape).astype(np.float32)
    optimizer.apply([gradient, gradient], [inner, outer])
    step = -np.asarray(inner.value).reshape(-1, 16) / (0.2 * np.sqrt(72))
    assert np.linalg.svd(step, compute_uv=False) == pytest.approx(np.ones(16), abs=0.35)
    assert np.abs(np.asarray(outer.value)) == pytest.approx(np.ones(outer.shape), abs=0.01)  # AdamW's first step is the sign


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


PHOTOS = [Picture(str(seed), "0", np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)) for seed in range(3)]


def compared(networks: dict[str, Any], task: Task, kind: Supervision, pictures: list[Picture], named: str) -> list[evaluation.Report]:
    recipe = Recipe(task=task, supervision=kind)
    return evaluation.comparison(networks, recipe, pictures, named, evaluation.conditions(recipe))


def test_a_report_sets_every_network_beside_a_classical_method_and_the_untouched_picture() -> None:
    found = compared({"a@1": lambda batch: batch, "b@2": np.zeros_like}, "denoise", "clean", PHOTOS, "photos")
    (report,) = found
    assert report.protocol.startswith(evaluation.PROTOCOL)
    assert {(row["method"], row["sigma"]) for row in report.rows} == {
        (method, sigma) for method in ("a@1", "b@2", "opencv-nlm") for sigma in evaluation.SIGMAS
    }
    for row in report.rows:
        assert row["images"] == 3
        if row["method"] == "a@1":
            assert all(row[figure] == row["input"][figure] for figure in row["input"])
    assert len(report.images) == 27
    json.dumps(report.json(), allow_nan=False)
    described = manifest.read(registry.shipped_artifact("inpaint-classic", 1)).model_copy(
        update={"metrics": {"evaluations": [report.json()]}}
    )
    assert [row["method"] for row in described.rows] == [row["method"] for row in report.rows]
    assert "opencv-nlm" in card.card(described)


def test_of_holes_a_report_tells_what_came_of_the_hole_and_known_pixels_are_put_back() -> None:
    (report,) = compared({"a@1": lambda picture, mask: np.full_like(picture, 0.5)}, "inpaint", "clean", PHOTOS, "photos")
    assert {row["mask"] for row in report.rows} == {"strokes", "scratches", "boxes", "dust", "pixels-50", "pixels-80"}
    assert {row["method"] for row in report.rows} == {"a@1", "opencv-telea", "opencv-ns"}
    for row in report.images:
        assert row["mse"] == pytest.approx(row["hole"]["mse"] * row["share"], rel=1e-6)


def test_pairs_are_measured_as_they_are_and_of_noisy_pictures_only_what_was_removed_is_told() -> None:
    paired = [Picture("a", "0", PHOTOS[0].pixels, PHOTOS[1].pixels)]
    (report,) = compared({"a@1": lambda batch: batch}, "denoise", "paired", paired, "pairs")
    assert report.rows[0]["psnr"] == pytest.approx(metrics.compare(PHOTOS[0].pixels, PHOTOS[1].pixels).psnr)
    (report,) = compared({"a@1": lambda batch: batch + np.float32(10 / 255)}, "denoise", "noisy", [dark()], "noisy")
    assert report.rows[0]["removed_rms"] == pytest.approx(10)
    assert "psnr" not in report.rows[0]


def dark() -> Picture:
    return Picture("dark", "0", np.random.default_rng(0).integers(0, 100, (20, 30, 1), dtype=np.uint8))


def test_a_recipe_with_a_degradation_of_its_own_is_measured_at_that() -> None:
    steps = Recipe.model_validate({"degradation": [{"kind": "jpeg"}, {"kind": "blur"}]})
    (condition,) = evaluation.conditions(steps)
    assert condition.told == {"degradation": "jpeg, blur"}
    one, again = (condition.show(4, PHOTOS[0]) for _ in range(2))
    assert one is not None
    assert again is not None
    assert np.array_equal(one.inputs[0], again.inputs[0])


def test_the_noise_of_a_picture_is_found() -> None:
    for sigma in (10, 40):
        assert evaluation.sigma_of(evaluation.add_noise(np.full((128, 128, 3), 128, np.uint8), sigma)) == pytest.approx(sigma, rel=0.05)
