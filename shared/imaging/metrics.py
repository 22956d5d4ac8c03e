"""How close two pictures are: PSNR, SSIM, MSE, RMSE, MAE. They agree with scikit-image to 1e-6 (tests/unit/test_metrics.py)."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import Refused

PROTOCOL = "lacuna-1"  # stands beside every stored figure, so that only like is compared with like

SSIM_SIGMA = 1.5
SSIM_RADIUS = 5  # int(3.5 · sigma + 0.5), the window of Wang, Bovik, Sheikh, Simoncelli (2004)
STRIP_PIXELS = 1 << 17  # float64 exists for so many pixels at a time

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Quality:
    """Figures of one picture against its reference. `psnr` is infinite for equal pictures; mse, rmse, mae are in grey levels."""

    psnr: float
    ssim: float
    mse: float
    rmse: float
    mae: float

    def json(self) -> dict[str, float | None]:
        """As a document and a row of a table hold it: what is infinite or no number is None."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def require_size(reference: NDArray[np.integer], height: int, width: int) -> None:
    """Raises `Refused("reference_size")` unless the reference has that size."""
    if reference.shape[:2] != (height, width):
        found = "{1} × {0}".format(*reference.shape[:2])
        raise Refused("reference_size", f"The reference has {found} pixels, the picture, as it is displayed, {width} × {height}.")


def judge(output: NDArray[np.integer], before: NDArray[np.integer], reference: NDArray[np.integer]) -> dict[str, Any]:
    """What stands on a job: the figures of its output, and of its input, each as `alike` makes it comparable."""
    return {
        "protocol": PROTOCOL,
        "output": compare(*alike(output, reference)).json(),
        "input": compare(*alike(before, reference)).json(),
    }


def alike(picture: NDArray[np.integer], reference: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Both, (height, width, 1 or 3) each, in the finer depth of the two, and in colour if one of them is; nothing is thrown away.

    8 bits become 16 by the factor 257, which takes 0 to 0 and white to white; grey becomes three equal channels.
    """
    depth = np.promote_types(picture.dtype, reference.dtype)
    channels = max(picture.shape[2], reference.shape[2])

    def made(given: NDArray[np.integer]) -> NDArray[np.integer]:
        factor = np.iinfo(depth).max // np.iinfo(given.dtype).max
        deep = given if factor == 1 else given.astype(depth) * depth.type(factor)
        return np.broadcast_to(deep, (*given.shape[:2], channels))

    return made(picture), made(reference)


def compare(picture: NDArray[np.integer], reference: NDArray[np.integer]) -> Quality:
    """Figures of `picture` against `reference`: the same shape (height, width[, channels]) and integer type.

    The data range is that of the integer type. SSIM is NaN where a side is shorter than its window of 11 pixels.
    Raises ValueError for different shapes or types.
    """
    if picture.shape != reference.shape or picture.dtype != reference.dtype:
        raise ValueError(f"{picture.shape} {picture.dtype} is not {reference.shape} {reference.dtype}")
    if picture.shape[0] < picture.shape[1]:  # the figures do not care which way is up, and strips are cut from the longer side
        picture, reference = picture.swapaxes(0, 1), reference.swapaxes(0, 1)
    return _figures(picture, reference, _ssim(picture, reference))


def compare_holes(picture: NDArray[np.integer], reference: NDArray[np.integer], holes: NDArray[np.bool_]) -> Quality:
    """As `compare`, of the pixels where `holes` (height, width) is true. SSIM is the mean of the windows around these.

    SSIM is NaN if no window that lies whole inside the picture has such a pixel in its middle. Raises ValueError if nothing is marked.
    """
    if not holes.any():
        raise ValueError("no pixel is marked")
    within, expected = (pixels[holes].reshape(np.count_nonzero(holes), -1) for pixels in (picture, reference))
    return _figures(within, expected, _ssim(picture, reference, holes))


def _figures(picture: NDArray[np.integer], reference: NDArray[np.integer], ssim: float) -> Quality:
    peak = float(np.iinfo(reference.dtype).max)
    squares = absolutes = 0.0
    for a, b in _strips(picture, reference, overlap=0):
        difference = a - b
        squares += float(np.sum(difference**2))
        absolutes += float(np.sum(np.abs(difference)))
    mse = squares / picture.size
    return Quality(
        psnr=10 * math.log10(peak**2 / mse) if mse else math.inf,
        ssim=ssim,
        mse=mse,
        rmse=math.sqrt(mse),
        mae=absolutes / picture.size,
    )


def _strips(picture: NDArray[np.integer], reference: NDArray[np.integer], overlap: int) -> Iterator[Pair]:
    """Both in strips of rows, float64, each with the first `overlap` rows of the next."""
    rows = max(1, STRIP_PIXELS // picture.shape[1])
    for top in range(0, picture.shape[0] - overlap, rows):
        strip = np.s_[top : top + rows + overlap]
        yield picture[strip].astype(np.float64), reference[strip].astype(np.float64)


def _ssim(picture: NDArray[np.integer], reference: NDArray[np.integer], marked: NDArray[np.bool_] | None = None) -> float:
    """Structural similarity with a Gaussian window, mean over pixels (those `marked`, if that is given) and channels."""
    if min(picture.shape[:2]) <= 2 * SSIM_RADIUS:
        return math.nan
    peak = float(np.iinfo(reference.dtype).max)
    total, count, top = 0.0, 0, SSIM_RADIUS
    for a, b in _strips(picture, reference, overlap=2 * SSIM_RADIUS):
        similar = _similarity(a, b, peak)
        if marked is not None:
            middles = marked[top : top + len(similar), SSIM_RADIUS:-SSIM_RADIUS]
            top += len(similar)
            similar = similar[middles]
        total += float(np.sum(similar))
        count += similar.size
    return total / count if count else math.nan


def _similarity(a: NDArray[np.float64], b: NDArray[np.float64], peak: float) -> NDArray[np.float64]:
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a = _blur(a * a) - mean_a**2
    variance_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    return np.asarray(top / bottom)


def _blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian mean over each window that lies whole inside the picture: (h, w, …) → (h − 10, w − 10, …)."""
    import cv2  # ten times as fast as NumPy; not for those who only read a header

    offsets = np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1)
    kernel = np.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    kernel /= kernel.sum()
    return np.asarray(cv2.sepFilter2D(x, cv2.CV_64F, kernel, kernel)[SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS])
