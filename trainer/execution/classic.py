"""Classical methods behind the same seam, under names of their own: what they give is no network's.

Bertalmio, Bertozzi, Sapiro: Navier–Stokes, fluid dynamics, and image and video inpainting, CVPR 2001, as OpenCV has it:
it continues lines of equal grey into a hole, from its edge inwards. Each channel by itself, in float32, so that 16 bits stay 16.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import Refused
from shared.models import manifest
from trainer.execution import Described

ARCHITECTURE = "classic"  # of a manifest without weights


class ClassicConfig(BaseModel):
    """`radius` is how far it looks from each pixel that it fills, in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    radius: int = Field(3, ge=1, le=16)


class ClassicNetwork:
    """A filler that looks like a network with two inputs, picture and mask."""

    multiple = 1
    halo = 256  # a hole that no tile cuts needs the radius only; one that a tile cuts is filled from both sides of it
    bytes_per_pixel = 64  # picture and result in float32, one channel of both, and what OpenCV keeps of a hole
    described = Described("opencv", "float32", "cpu")

    def __init__(self, config: ClassicConfig) -> None:
        self._radius = config.radius

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Network.run`. Where nothing is known a picture stays as it is: no call is made on such a one (shared/imaging/tiles.py)."""
        import cv2  # a worker that only denoises does without

        pictures, masks = inputs
        filled = np.empty_like(pictures)
        for index in range(len(pictures)):
            holes = (masks[index, :, :, 0] > 0).astype(np.uint8)
            for channel in range(pictures.shape[3]):
                plane = pictures[index, :, :, channel].copy()
                if not holes.all():
                    plane[holes > 0] = plane[holes == 0].mean()  # at the edges of a picture OpenCV looks at what a hole holds
                filled[index, :, :, channel] = cv2.inpaint(plane, holes, self._radius, cv2.INPAINT_NS)
        return filled


class ClassicExecutor:
    """OpenCV, which a worker has anyway."""

    def load(self, artifact: Path, look: Callable[[], None] = lambda: None) -> ClassicNetwork:
        """See `Executor.load`."""
        described = manifest.read(artifact)
        try:
            return ClassicNetwork(ClassicConfig.model_validate(described.config))
        except ValidationError as error:
            raise Refused("artifact_invalid", f"The config of {described.reference} is wrong: {error.errors()[0]['msg']}.") from error

    def describe(self) -> Described:
        """See `Executor.describe`."""
        return ClassicNetwork.described
