"""Training on the device (trainer/accelerated), on the CPU. JAX warns of every fork of its process, so none of it runs in this one."""

import dataclasses
import io
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shared.models import manifest
from trainer import artifact

SMALL = '{"widths": [8, 16], "blocks": 1}'
ON_THE_CPU = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiling takes longest
Apart = Callable[..., Any]


def on_the_cpu() -> None:
    os.environ.update(ON_THE_CPU)


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    """Calls a function in another process, where it may import JAX."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), on_the_cpu) as other:
        yield lambda function, *arguments: other.submit(function, *arguments).result(timeout=300)


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Soft shapes and a little texture, (height, width, 3)."""
    generator = np.random.default_rng(seed)
    colours = 128 + generator.normal(0, 50, (height // 8, width // 8, 1)) + generator.normal(0, 10, (height // 8, width // 8, 3))
    coarse = Image.fromarray(colours.clip(0, 255).astype(np.uint8))
    soft = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return (soft + generator.normal(0, 4, soft.shape)).round().clip(0, 255).astype(np.uint8)


def packed(pixels: NDArray[np.uint8], quality: int, halved: bool) -> NDArray[np.uint8]:
    from jax import numpy as jnp

    from trainer.accelerated.jpeg import jpeg

    made = jpeg(jnp.asarray(pixels[None] / np.float32(255)), jnp.array([float(quality)]), jnp.array([halved]))
    return np.asarray(np.round(np.asarray(made[0]) * 255), np.uint8)


@pytest.mark.parametrize("halved", [False, True])
@pytest.mark.parametrize("quality", [30, 60, 95])
def test_jpeg_on_the_device_is_what_pillow_makes_of_it(apart: Apart, quality: int, halved: bool) -> None:
    pixels = photo(96, 128)
    ours = apart(packed, pixels, quality, halved).astype(float)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=2 if halved else 0)
    theirs = np.asarray(Image.open(file), float)
    apart_by, error = np.sqrt(np.mean((ours - theirs) ** 2)), np.sqrt(np.mean((theirs - pixels) ** 2))
    assert apart_by < min(1.5, error / 2), f"It differs from Pillow by {apart_by:.2f} levels, Pillow from the picture by {error:.2f}."


def noised(sigma_5_to_30_share: float, rounded_share: float, grey_share: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    import jax

    from trainer.accelerated.degrading import noisy
    from trainer.accelerated.stages import Noise

    clean = jax.random.uniform(jax.random.key(1), (200, 32, 32, 3))
    made = noisy(jax.random.key(0), clean, Noise(grey_share, rounded_share, sigma_5_to_30_share))
    return np.asarray(made[0]), np.asarray(made[1])


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0.0, 55.0), (1.0, 5.0, 30.0)])
def test_blind_noise_has_every_sigma_that_was_asked_for(apart: Apart, share: float, least: float, most: float) -> None:
    noisy, clean = apart(noised, share, 0.0, 0.0)
    sigmas = (noisy - clean).std((1, 2, 3)) * 255
    assert least * 0.95 <= sigmas.min() < least + 3
    assert most - 3 < sigmas.max() <= most * 1.05
    assert sigmas.mean() == pytest.approx((least + most) / 2, rel=0.1)


def test_grey_crops_have_the_same_noise_in_all_channels_and_rounded_ones_whole_levels(apart: Apart) -> None:
    noisy, clean = apart(noised, 0.0, 1.0, 1.0)
    for pixels in (noisy, clean):
        assert np.ptp(pixels, axis=3).max() < 1e-6
    assert np.abs(noisy * 255 - np.round(noisy * 255)).max() < 1e-3
    assert noisy.min() >= 0
    assert noisy.max() <= 1


def wear(side: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    import jax
    from jax import numpy as jnp

    from trainer.accelerated.degrading import worn
    from trainer.accelerated.stages import Wear

    clean = jnp.asarray(np.stack([photo(side + 16, side + 16, seed) for seed in range(count)]) / np.float32(255))
    made = jax.jit(lambda key, clean: worn(key, clean, Wear(grey_share=0.15)))(jax.random.key(0), clean)
    return np.asarray(made[0]), np.asarray(made[1])


def test_worn_crops_are_whole_levels_some_of_them_clean_and_most_near_what_they_were(apart: Apart) -> None:
    worn, clean = apart(wear, 32, 200)
    assert worn.shape == clean.shape == (200, 32, 32, 3)
    for pixels in (worn, clean):
        assert np.abs(pixels * 255 - np.round(pixels * 255)).max() < 1e-3
    rms = np.sqrt(np.mean((worn - clean) ** 2, (1, 2, 3))) * 255
    assert 0.04 < np.mean(rms == 0) < 0.13  # 8 % clean, and noise of σ 0 to 0.3
    assert np.median(rms) < 20
    assert 20 < rms.max() < 80


def cuts(pictures: list[NDArray[np.uint8]], side: int, count: int) -> NDArray[np.uint8]:
    import jax

    from trainer.accelerated.pictures import cut, pooled

    return np.asarray(cut(pooled([pictures[:1], pictures[1:]], (0.5, 0.5), side), jax.random.key(0), count, side))


def test_crops_are_pieces_of_the_pictures_turned_and_mirrored(apart: Apart) -> None:
    numbered = [np.arange(picture * 1000, picture * 1000 + 130).reshape(10, 13) for picture in range(2)]
    pictures = [np.stack([one // 256, one % 256, 0 * one], 2).astype(np.uint8) for one in [*numbered, np.zeros((7, 20), int)]]
    crops = apart(cuts, pictures, 8, 400).astype(int)
    found = crops[..., 0] * 256 + crops[..., 1]
    steps = set()
    for crop in found:
        source = numbered[crop.min() // 1000]
        top, left = np.argwhere(source == crop.min())[0]
        piece = source[top : top + 8, left : left + 8]
        turns = [turned for quarter in range(4) for turned in (np.rot90(piece, quarter), np.rot90(piece, quarter).T)]
        assert any(np.array_equal(crop, turned) for turned in turns)
        steps.add((crop[1, 0] - crop[0, 0], crop[0, 1] - crop[0, 0]))
    assert len(steps) == 8, "Every turn and mirroring occurs."
    assert np.mean(found < 1000) == pytest.approx(0.5, abs=0.1), "Each group has its share; what is smaller than a crop is left out."
    assert {crop.min() % 1000 for crop in found} == {13 * top + left for top in range(3) for left in range(6)}, "They begin everywhere."


def drawn(side: int, count: int) -> tuple[dict[str, NDArray[np.bool_]], NDArray[np.float32]]:
    import jax

    from trainer.accelerated import holes
    from trainer.accelerated.pictures import pooled

    film = np.zeros((80, 70, 1), np.uint8)
    film[:, 33:36] = 200
    damage = pooled([[film]], (1.0,), side)
    key = jax.random.key(0)
    kinds, masks = jax.jit(lambda damage: (holes.kinds(key, damage, count, side), holes.draw(key, damage, count, side)))(damage)
    return {name: np.asarray(mask) for name, mask in kinds.items()}, np.asarray(masks)


def test_holes_of_each_kind_take_a_share_of_the_crop_that_fits_them(apart: Apart) -> None:
    kinds, masks = apart(drawn, 64, 200)
    bounds = {"pixels": (0.45, 0.6), "boxes": (0.05, 0.12), "strokes": (0.07, 0.2), "scratches": (0.05, 0.1), "film": (0.08, 0.16)}
    means = {name: mask.mean() for name, mask in kinds.items()}
    outside = {name: round(float(means[name]), 3) for name, (low, high) in bounds.items() if not low < means[name] < high}
    assert means.keys() == bounds.keys()
    assert not outside
    shares = kinds["pixels"].mean((1, 2))
    assert 0.05 < shares.min() < 0.2
    assert 0.85 < shares.max() < 0.99
    assert masks.shape == (200, 64, 64, 1)
    assert set(np.unique(masks)) == {0.0, 1.0}
    assert masks.mean() == pytest.approx(np.mean(list(means.values())), abs=0.06), "As many of each."


def orthogonal(matrices: NDArray[np.float32]) -> NDArray[np.float32]:
    from jax import numpy as jnp

    from trainer.accelerated import muon

    return np.asarray(muon.orthogonal(jnp.asarray(matrices)))


@pytest.mark.parametrize("shape", [(3, 24, 8), (3, 8, 24)])
def test_muon_moves_kernels_by_matrices_whose_singular_values_are_near_one(apart: Apart, shape: tuple[int, ...]) -> None:
    made = apart(orthogonal, np.random.default_rng(0).normal(size=shape).astype(np.float32))
    assert np.linalg.svd(made, compute_uv=False) == pytest.approx(np.ones((3, 8)), abs=0.35)


def followed(lost_at: int) -> tuple[list[dict[str, Any]], list[float], list[float]]:
    """What a training says, each step's rate, and what it kept, if the weights of that step are no numbers; it is looked at after each."""
    from jax import numpy as jnp

    from trainer.accelerated import muon, training
    from trainer.accelerated.stages import STAGES

    events: list[dict[str, Any]] = []
    rates: list[float] = []
    kept: list[float] = []

    def step(state: muon.State, rate: float) -> tuple[muon.State, Any]:
        rates.append(rate)
        lost = jnp.nan if len(rates) == lost_at else 1.0
        return state._replace(step=state.step + 1, average=[one + lost for one in state.average]), jnp.asarray(lost)

    training.TELL_S = 0
    training._follow(
        dataclasses.replace(STAGES["denoise"], warmup_steps=1, constant_share=0.999),
        muon.begin([jnp.zeros(())]),
        1.0,
        step,
        lambda state: {"PSNR": 30 + float(state.average[0])},
        events.append,
        lambda state, progress: kept.append(float(state.average[0])),
    )
    return events, rates, kept


def test_a_training_that_comes_to_no_numbers_goes_back_and_on_with_half_the_rate(apart: Apart) -> None:
    events, rates, kept = apart(followed, 4)  # the first step compiles
    back = next(place for place, event in enumerate(events) if "went_back" in event)
    assert np.isnan(events[back - 1]["loss"])
    assert events[back + 1]["held_out"] == {"PSNR": events[back - 2]["held_out"]["PSNR"] + 1}, (
        "It goes on from where it was last looked at."
    )
    assert rates[:5] == [0.0, 1.5e-3, 1.5e-3, 1.5e-3, 0.75e-3]
    assert np.isfinite(kept).all()
    assert len(kept) == 1


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "trainer.accelerated", *map(str, arguments)]
    return subprocess.run(argv, env=os.environ | ON_THE_CPU, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(4):
        Image.fromarray(photo(80, 96, seed)).save(folder / f"{seed}.webp", lossless=True)
    return folder


@pytest.mark.parametrize(("stage", "task"), [("denoise-real", "denoise"), ("inpaint", "inpaint")])
def test_some_seconds_on_the_device_make_a_model_that_the_rest_of_the_trainer_reads(photos: Path, stage: str, task: str) -> None:
    out = photos.parent / "out"
    extra: list[str | Path] = []
    if task == "inpaint":
        damage = photos.parent / "damage"
        damage.mkdir()
        Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(damage / "scratch.png")
        extra = ["--damage", damage]
    sizes = ["--batch", "2", "--patch", "32", "--config", SMALL, "--minutes", "0.05"]
    done = run(stage, photos, "--out", out, *sizes, "--terms", "my own", *extra)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-2])
    assert last["step"] > 0
    assert np.isfinite([last["loss"], *last["held_out"].values()]).all()

    described, model = artifact.load_network(out)
    assert described.reference == f"{stage}@1"
    assert described.task == task
    assert described.recipe["batch"] == 2
    assert described.recipe["steps"] == last["step"]
    first = described.data[0]
    assert (first.name, first.images, first.terms) == ("photos", 4, "my own")
    assert described.parameters == sum(int(np.prod(variable.shape)) for variable in model.variables)
    moved = [variable for variable in model.variables if "conv1" in variable.path and "kernel" in variable.path]  # they began at zero
    assert all(np.abs(np.asarray(variable.value)).max() > 0 for variable in moved if "gate" not in variable.path)


def test_a_base_of_other_sizes_is_refused_before_any_picture_is_read(tmp_path: Path) -> None:
    shipped = Path(artifact.__file__).with_name("pretrained") / "denoise-fast@1"
    done = run("denoise-fast", tmp_path, "--out", tmp_path / "out", "--base", shipped, "--config", SMALL)
    assert done.returncode == 2
    assert "denoise-fast@1 is another network than this would be" in " ".join(done.stderr.split())
    assert not manifest.read(shipped).config


def test_without_jax_it_says_what_to_install() -> None:
    program = (
        "import sys, runpy; sys.modules['jax'] = None; sys.argv = ['x', 'denoise', '.', '--out', 'out']; "
        "runpy.run_module('trainer.accelerated', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 1
    assert "pip install 'jax>=0.10'" in done.stderr
    assert "Traceback" not in done.stderr
