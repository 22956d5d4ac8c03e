"""Previews: what they show, and that a child which may not make one says so."""

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shared import children
from shared.imaging import preview
from tests.contracts.api_fixtures import jpeg, png
from tests.unit.test_fidelity import tiff_of, with_extra


def shown(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=["WEBP"])


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(1, 1, (1, 1)), (300, 400, (400, 300)), (3200, 1600, (800, 1600)), (2, 5000, (1600, 1)), (1601, 7, (7, 1600))],
)
def test_a_preview_fits_and_keeps_the_shape(height: int, width: int, size: tuple[int, int]) -> None:
    assert shown(preview.encode(np.full((height, width, 3), 9, np.uint8), None)).size == size


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_preview_has_the_colours_and_the_alpha_of_its_picture(channels: int, with_alpha: bool, kind: type) -> None:
    step = 256 if kind is np.uint16 else 1
    colour: NDArray[Any] = np.full((20, 30, channels), 100 * step, kind)
    alpha: NDArray[Any] | None = np.full((20, 30), 50 * step, kind) if with_alpha else None
    image = shown(preview.encode(colour, alpha))
    assert image.mode == ("RGBA" if with_alpha else "RGB")
    pixels = np.asarray(image, dtype=int)
    assert np.abs(pixels[:, :, :3] - 100).max() <= 3
    if with_alpha:
        assert np.abs(pixels[:, :, 3] - 50).max() <= 1


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("width", [30, 4000])
def test_colour_that_was_multiplied_by_its_alpha_is_shown_divided(width: int, channels: int, kind: type) -> None:
    step = 257 if kind is np.uint16 else 1
    colour: NDArray[Any] = np.full((20, width, channels), 60 * step, kind)
    alpha: NDArray[Any] = np.full((20, width), 120 * step, kind)
    alpha[:, width // 2 :], colour[:, width // 2 :] = 255 * step, 127 * step
    pixels = np.asarray(shown(preview.encode(colour, alpha, associated=True)).convert("RGBA"), dtype=int)
    assert np.abs(pixels[:, :, :3] - 127).max() <= 3
    assert np.abs(pixels[:, 0, 3] - 120).max() <= 1
    assert (pixels[:, -1, 3] == 255).all()


def child(path: Path, memory_bytes: int = 1 << 30, seconds: int = 60, max_pixels: int = 10**9) -> subprocess.CompletedProcess[bytes]:
    arguments = (path.stat().st_size, max_pixels, memory_bytes, seconds)
    with path.open("rb") as file:
        argv = children.python("shared.imaging.preview", *map(str, arguments))
        return subprocess.run(argv, stdin=file, capture_output=True, check=False)


def test_the_child_makes_a_preview_or_says_why_not(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(jpeg())
    done = child(path)
    assert (done.returncode, shown(done.stdout).size) == (0, (8, 8))
    path.write_bytes(png(9, 9)[:-20])
    refused = child(path)
    assert (refused.returncode, json.loads(refused.stdout)["code"]) == (preview.REFUSED, "image_truncated")
    path.write_bytes(png(40, 40))
    refused = child(path, max_pixels=1000)
    assert (refused.returncode, json.loads(refused.stdout)["code"]) == (preview.REFUSED, "too_many_pixels")


def test_the_child_too_divides_colour_that_was_multiplied_by_its_alpha(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(with_extra(tiff_of(np.full((30, 40, 4), (100, 50, 20, 128), np.uint8)), 1))
    assert np.abs(np.asarray(shown(child(path).stdout).convert("RGBA"), int) - (199, 100, 40, 128)).max() <= 8


def test_a_child_that_needs_more_than_it_may_have_ends_alone(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(png(12_000, 12_000))
    assert child(path, memory_bytes=1 << 27).returncode == preview.TOO_LARGE
    assert child(path, seconds=0).returncode < 0
