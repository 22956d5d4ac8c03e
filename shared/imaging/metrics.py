"""How close two pictures are: PSNR, SSIM, MSE, RMSE, MAE. They agree with scikit-image to 1e-6 (tests/unit/test_metrics.py)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PROTOCOL = "lacuna-1"  # stands beside every stored figure, so that only like is compared with like

SSIM_SIGMA = 1.5
SSIM_RADIUS = 5  # int(3.5 · sigma + 0.5), the window of Wang, Bovik, Sheikh, Simoncelli (2004)


@dataclass(frozen=True)
class Quality:
    """Figures of one picture against its reference. `psnr` is infinite for equal pictures; mse, rmse, mae are in grey levels."""

    psnr: float
    ssim: float
    mse: float
    rmse: float
    mae: float


def compare(picture: NDArray[np.integer], reference: NDArray[np.integer]) -> Quality:
    """Figures of `picture` against `reference`: the same shape (height, width[, channels]) and integer type.

    The data range is that of the integer type. SSIM is NaN where a side is shorter than its window of 11 pixels.
    Raises ValueError for different shapes or types.
    """
    if picture.shape != reference.shape or picture.dtype != reference.dtype:
        raise ValueError(f"{picture.shape} {picture.dtype} is not {reference.shape} {reference.dtype}")
    peak = float(np.iinfo(reference.dtype).max)
    difference = picture.astype(np.float64) - reference.astype(np.float64)
    mse = float(np.mean(difference**2))
    return Quality(
        psnr=10 * math.log10(peak**2 / mse) if mse else math.inf,
        ssim=_ssim(picture.astype(np.float64), reference.astype(np.float64), peak),
        mse=mse,
        rmse=math.sqrt(mse),
        mae=float(np.mean(np.abs(difference))),
    )


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64], peak: float) -> float:
    """Structural similarity with a Gaussian window, mean over pixels and channels."""
    if min(a.shape[:2]) <= 2 * SSIM_RADIUS:
        return math.nan
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a = _blur(a * a) - mean_a**2
    variance_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    return float(np.mean(top / bottom))


def _blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian mean over each window that lies whole inside the picture: (h, w, …) → (h − 10, w − 10, …)."""
    offsets = np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1)
    kernel = np.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    kernel /= kernel.sum()
    height, width = x.shape[0] - 2 * SSIM_RADIUS, x.shape[1] - 2 * SSIM_RADIUS
    rows = sum(weight * x[index : index + height] for index, weight in enumerate(kernel))
    return np.asarray(sum(weight * rows[:, index : index + width] for index, weight in enumerate(kernel)))
