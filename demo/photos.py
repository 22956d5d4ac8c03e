"""The demo's photos: what scikit-image's wheel carries, so nothing has to be fetched."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGMA = 25.0
NAMES = ("astronaut", "camera", "chelsea", "coffee", "rocket")


def photo(name: str) -> NDArray[np.uint8]:
    """uint8 (height, width) or (height, width, 3)."""
    import skimage.data

    loaded: Any = getattr(skimage.data, name)()
    return np.asarray(loaded, dtype=np.uint8)


def noisy(clean: NDArray[np.uint8], sigma: float = SIGMA) -> NDArray[np.uint8]:
    """Gaussian noise of `sigma` grey levels, as a camera's file would hold it: clipped and rounded to 8 bit."""
    noise = np.random.RandomState(0).normal(0, sigma, clean.shape)
    return np.round(np.clip(clean + noise, 0, 255)).astype(np.uint8)
