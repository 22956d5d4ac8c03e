"""What training does to clean pictures. Every degradation takes a generator and gives the same result for the same seed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class BlindGaussian:
    """Additive Gaussian noise of a level the network is not told.

    `sigma_low` and `sigma_high` are in grey levels of 0..255, drawn uniformly per patch. `rounded_share` of the patches
    are clipped and rounded to 8 bit, as a user's file is. `grey_share` are grey, with the same noise in all channels: a
    grey file is fed as three equal channels.
    """

    sigma_low: float = 0.0
    sigma_high: float = 55.0
    rounded_share: float = 0.5
    grey_share: float = 0.2

    def apply(self, clean: NDArray[np.uint8], generator: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """uint8 (n, h, w, 3) → (noisy, clean), both float32 of that shape, clean in 0..1, noisy not clipped."""
        count, height, width, channels = clean.shape
        target = clean.astype(np.float32) / np.float32(255)
        noise = generator.standard_normal((count, height, width, channels), dtype=np.float32)
        grey = generator.random(count) < self.grey_share
        target[grey] = (target[grey] @ LUMA)[..., np.newaxis]
        noise[grey] = noise[grey][..., :1]
        sigma = np.asarray(generator.uniform(self.sigma_low, self.sigma_high, count), dtype=np.float32) / np.float32(255)
        noisy = target + noise * sigma[:, np.newaxis, np.newaxis, np.newaxis]
        rounded = generator.random(count) < self.rounded_share
        noisy[rounded] = np.round(np.clip(noisy[rounded], 0, 1) * 255) / np.float32(255)
        return noisy, target
