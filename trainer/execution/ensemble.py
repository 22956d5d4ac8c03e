"""The eight ways to turn and mirror a picture, restored one by one and averaged: better by a little, eight times the work.

Timofte, Rothe, Van Gool: Seven ways to improve example-based single image super resolution, CVPR 2016.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trainer.execution import pad

Run = Callable[..., NDArray[np.float32]]

WAYS = tuple((quarter, mirrored) for mirrored in (False, True) for quarter in range(4))


def averaged(run: Run, multiple: int) -> Run:
    """`run` on (n, height, width, channels) → the same, as the mean of eight calls.

    It is padded to `multiple`, the network's own, before it is turned: else the padding, and with it the places that the
    network's strides meet, would be others in each of the eight, and in tiles others than in the whole picture.
    """

    def eight(*inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width = inputs[0].shape[1:3]
        padded = [pad(given, multiple) for given in inputs]
        total = np.zeros_like(padded[0])
        for quarter, mirrored in WAYS:
            turned = [np.ascontiguousarray(np.rot90(given[:, :, ::-1] if mirrored else given, quarter, (1, 2))) for given in padded]
            back = np.rot90(run(*turned), -quarter, (1, 2))
            total += back[:, :, ::-1] if mirrored else back
        return total[:, :height, :width] / np.float32(len(WAYS))

    return eight
