"""What is looked for in the pictures of a data set."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.datasets import checks
from tests.contracts.photos import noisy, photo


def look() -> None:
    """Nothing to see."""


@pytest.mark.parametrize("grey", [True, False])
@pytest.mark.parametrize("sigma", [5, 15, 30, 50])
def test_added_noise_is_measured_as_what_it_is(sigma: int, grey: bool) -> None:
    found = checks.noise(noisy(photo(1, 320, 240, grey), sigma))
    assert 0.8 * sigma < found < 1.1 * sigma


def test_soft_pictures_and_edges_are_no_noise_whatever_their_depth() -> None:
    edges = np.kron(np.random.default_rng(0).integers(0, 2, (12, 12)), np.full((32, 32), 150)).astype(np.uint8)[:, :, np.newaxis] + 50
    assert checks.noise(edges) < 1
    assert checks.noise(photo(2)) < 3
    assert checks.noise(noisy(photo(2), 20).astype(np.uint16) * 257) == pytest.approx(checks.noise(noisy(photo(2), 20)), rel=0.01)


@pytest.mark.parametrize("size", [(16, 16), (16, 400), (17, 31), (1000, 16)])
def test_the_smallest_pictures_can_be_looked_at(size: tuple[int, int]) -> None:
    width, height = size
    pixels = photo(3, width, height)
    assert checks.noise(pixels) >= 0
    assert checks.fingerprint(pixels) >= 0
    checks.shift(pixels, pixels)


def test_pictures_that_look_the_same_have_nearly_the_same_print() -> None:
    whole = photo(4, 320, 240)
    others = {
        "half": np.asarray(Image.fromarray(whole).resize((160, 120), Image.Resampling.LANCZOS)),
        "brighter": (whole * 0.8 + 40).astype(np.uint8),
        "grey": np.asarray(Image.fromarray(whole).convert("L"))[:, :, np.newaxis],
        "noisy": noisy(whole, 25),
        "deep": whole.astype(np.uint16) * 257,
    }
    prints = [checks.fingerprint(whole), *(checks.fingerprint(other) for other in others.values())]
    assert len(set(checks.alike(prints, look))) == 1
    assert len(set(checks.alike([checks.fingerprint(photo(seed, 320, 240)) for seed in range(200)], look))) == 200


def test_what_is_alike_through_others_is_of_one_group() -> None:
    chain = [0, 0xFF, 0xFFFF, 1 << 60, 0, 2**64 - 1]
    groups = checks.alike(chain, look)
    assert groups[0] == groups[1] == groups[2] == groups[3] == groups[4]
    assert groups[5] != groups[0]
    assert checks.alike([], look) == []


@pytest.mark.parametrize("sigma", [0, 15, 50])
@pytest.mark.parametrize("moved", [(1, 0), (0, 1), (-1, 1), (5, -3), (40, 17)])
def test_a_shift_of_a_pixel_or_more_is_seen_through_noise(moved: tuple[int, int], sigma: int) -> None:
    dx, dy = moved
    scene = photo(5, 480, 400)
    one, other = (scene[60 + y : 320 + y, 80 + x : 400 + x] for x, y in ((-dx, -dy), (0, 0)))
    found = checks.shift(noisy(one, sigma), other)
    assert found is not None
    assert found == pytest.approx((dx, dy), abs=1)


@pytest.mark.parametrize("sigma", [0, 15, 50, 100])
def test_what_lies_on_each_other_is_not_shifted(sigma: int) -> None:
    for seed in range(10):
        assert checks.shift(noisy(photo(seed, 200, 150), sigma), photo(seed, 200, 150)) is None
    flat = np.full((64, 64, 1), 90, np.uint8)
    assert checks.shift(noisy(flat, sigma), flat) is None


CLEAN = ("CLIC2025", "gb82", "CBSD68", "IBM-MAX-samples")


def photos() -> list[Path]:
    folder = Path(os.environ.get("DATA", "../shared/data"))
    found = sorted(path for name in CLEAN for path in (folder / name).rglob("*") if path.suffix.lower() in (".png", ".jpg", ".webp"))
    if not found:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{folder} holds no photos")
        pytest.skip(f"{folder} holds no photos; DATA names the folder of pictures")
    return found[:: max(1, len(found) // 24)]


def test_real_photos_are_clean_and_with_noise_of_15_they_are_noisy() -> None:
    called, missed = [], []
    for path in photos():
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        called += [path.name] if checks.noise(pixels) >= checks.NOISY else []
        missed += [path.name] if checks.noise(noisy(pixels)) < checks.NOISY else []
    assert (len(called) <= 1, missed) == (True, []), (called, missed)
