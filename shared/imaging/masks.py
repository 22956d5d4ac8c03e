"""Which pixels of a picture are to be filled, and that the others came back as they were."""

import numpy as np
from numpy.typing import NDArray

from shared.errors import Fault, Refused
from shared.imaging import codec
from shared.imaging.codec import Source


def holes(mask: Source, height: int, width: int) -> NDArray[np.bool_]:
    """What is to be filled of a picture of that size, as a viewer displays both: bool (height, width).

    A pixel of the mask means "fill" where any of its channels is not zero, unless it is wholly transparent.
    Raises `Refused` mask_size, mask_empty or mask_full.
    """
    if mask.colour.shape[:2] != (height, width):
        found = "{1} × {0}".format(*mask.colour.shape[:2])
        raise Refused("mask_size", f"The mask has {found} pixels, the picture, as it is displayed, {width} × {height}.")
    marked = np.asarray(mask.colour.any(axis=2))
    if mask.alpha is not None:
        marked &= mask.alpha != 0
    if not marked.any():
        raise Refused("mask_empty")
    if marked.all():
        raise Refused("mask_full")
    return marked


def assert_known(before: Source, after: Source, marked: NDArray[np.bool_]) -> None:
    """Raises `Fault("internal")` unless `after` is `before`, bit for bit, wherever nothing is marked, and in its alpha.

    Where only one of them has its colour multiplied by its alpha, the other's is what counts.
    """
    alike = codec.associated(before) == codec.associated(after)
    old, new = (before.colour, after.colour) if alike else (codec.straight(before), codec.straight(after))
    if new.shape != old.shape or new.dtype != old.dtype or ((new != old).any(axis=2) & ~marked).any():
        raise Fault("internal", "The file would not have held the known pixels as they were, so it was not kept.")
    if before.alpha is not None and (after.alpha is None or not np.array_equal(after.alpha, before.alpha)):
        raise Fault("internal", "The file would not have held the alpha channel as it was, so it was not kept.")
