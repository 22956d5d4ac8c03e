"""The figures are scikit-image's, to 1e-6."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from shared.imaging import metrics

DEPTHS: list[Any] = [np.uint8, np.uint16]


def pair(depth: Any, shape: tuple[int, ...]) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """A picture with structure, and the same with noise."""
    generator = np.random.default_rng(5)
    peak = np.iinfo(depth).max
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    structure = (np.sin(rows / 7) * np.cos(columns / 5) + 1) / 2
    clean = np.broadcast_to(structure.reshape(structure.shape + (1,) * (len(shape) - 2)), shape) * 0.8 * peak
    noisy = np.clip(clean + generator.normal(0, 0.05 * peak, shape), 0, peak)
    return np.round(noisy).astype(depth), np.round(clean).astype(depth)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("shape", [(40, 31), (40, 31, 3), (11, 11), (12, 64, 3)])
def test_the_figures_agree_with_scikit_image(depth: Any, shape: tuple[int, ...]) -> None:
    noisy, clean = pair(depth, shape)
    peak = np.iinfo(depth).max
    found = metrics.compare(noisy, clean)
    mse = mean_squared_error(clean, noisy)
    ssim = structural_similarity(
        clean, noisy, data_range=peak, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        channel_axis=2 if len(shape) == 3 else None,
    )  # fmt: skip
    assert found.psnr == pytest.approx(peak_signal_noise_ratio(clean, noisy, data_range=peak), abs=1e-6)
    assert found.ssim == pytest.approx(ssim, abs=1e-6)
    assert found.mse == pytest.approx(mse, rel=1e-9)
    assert found.rmse == pytest.approx(math.sqrt(mse), rel=1e-9)
    assert found.mae == pytest.approx(np.mean(np.abs(clean.astype(float) - noisy.astype(float))), rel=1e-9)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("shape", [(60, 31, 3), (31, 60), (3000, 60, 3)])
def test_the_figures_of_holes_are_scikit_image_s_map_and_pixels_within_them(depth: Any, shape: tuple[int, ...]) -> None:
    noisy, clean = pair(depth, shape)
    holes = np.zeros(shape[:2], bool)
    holes[8:20, 9:15] = holes[-1, 5] = holes[-9, -9] = True  # one of them at the edge, where no window lies whole
    peak = np.iinfo(depth).max
    _, similar = structural_similarity(
        clean, noisy, data_range=peak, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        channel_axis=2 if len(shape) == 3 else None, full=True,
    )  # fmt: skip
    inside = np.zeros_like(holes)
    inside[5:-5, 5:-5] = holes[5:-5, 5:-5]
    found = metrics.compare_holes(noisy, clean, holes)
    assert found.ssim == pytest.approx(similar[inside].mean(), abs=1e-6)
    assert found.psnr == pytest.approx(peak_signal_noise_ratio(clean[holes], noisy[holes], data_range=peak), abs=1e-6)
    assert found.mae == pytest.approx(np.mean(np.abs(clean[holes].astype(float) - noisy[holes].astype(float))), rel=1e-9)


def test_holes_at_the_edge_have_no_ssim_and_no_holes_no_figures() -> None:
    noisy, clean = pair(np.uint8, (20, 30, 3))
    holes = np.zeros((20, 30), bool)
    with pytest.raises(ValueError, match="no pixel"):
        metrics.compare_holes(noisy, clean, holes)
    holes[0] = True
    found = metrics.compare_holes(noisy, clean, holes)
    assert math.isnan(found.ssim)
    assert found.psnr > 0


def test_equal_pictures_have_no_error_and_no_finite_psnr() -> None:
    noisy, _ = pair(np.uint8, (20, 20, 3))
    assert metrics.compare(noisy, noisy.copy()) == metrics.Quality(math.inf, 1, 0, 0, 0)


def test_a_picture_smaller_than_the_window_has_no_ssim_but_the_other_figures() -> None:
    noisy, clean = pair(np.uint8, (10, 40))
    found = metrics.compare(noisy, clean)
    assert math.isnan(found.ssim)
    assert found.psnr > 0


@pytest.mark.parametrize("other", [np.zeros((5, 6), np.uint8), np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5), np.uint16)])
def test_only_like_is_compared_with_like(other: NDArray[np.integer]) -> None:
    with pytest.raises(ValueError, match="is not"):
        metrics.compare(other, np.zeros((5, 5), np.uint8))


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_figures_do_not_depend_on_the_strips_they_are_counted_in(depth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in ((83, 20, 3), (20, 83, 3), (83, 20)):
        noisy, clean = pair(depth, shape)
        whole = metrics.compare(noisy, clean)
        for pixels in (1, 20 * 7, 20 * 72, 20 * 73):
            monkeypatch.setattr(metrics, "STRIP_PIXELS", pixels)
            assert vars(metrics.compare(noisy, clean)) == pytest.approx(vars(whole), rel=1e-12)
        monkeypatch.undo()


def test_8_and_16_bits_are_compared_in_16_and_grey_and_colour_in_colour() -> None:
    fine, _ = pair(np.uint16, (20, 30, 3))
    coarse, grey = pair(np.uint8, (20, 30, 1))
    one, other = metrics.alike(coarse, fine)
    assert one.dtype == np.uint16
    assert one.shape == other.shape == (20, 30, 3)
    assert np.array_equal(one[:, :, 2], coarse[:, :, 0].astype(np.uint16) * 257)
    assert np.array_equal(other, fine)
    one, other = metrics.alike(np.full((1, 1, 3), 255, np.uint8), np.full((1, 1, 1), 65_535, np.uint16))
    assert metrics.compare(one, other).mse == 0, "white is not white in both depths"
    one, other = metrics.alike(coarse, grey)
    assert one.dtype == np.uint8
    assert metrics.compare(one, other).psnr == pytest.approx(peak_signal_noise_ratio(grey, coarse, data_range=255), abs=1e-6)


def test_what_is_infinite_or_no_number_is_none_in_json() -> None:
    figures = metrics.judge(*[np.zeros((5, 5, 1), np.uint8)] * 3)
    nothing = {"psnr": None, "ssim": None, "mse": 0, "rmse": 0, "mae": 0}
    assert figures == {"protocol": "lacuna-1", "output": nothing, "input": nothing}
