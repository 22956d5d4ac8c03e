"""What a mask marks, whatever its depth, and what counts as a known pixel that changed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shared.errors import Fault, Refused
from shared.imaging import masks
from tests.unit.pictures import decoded, image, noise, saved


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_any_channel_that_is_not_zero_marks_in_every_depth(depth: type[np.integer]) -> None:
    source = decoded(saved(image(noise(3, 4, 3))))
    colour: Any = np.zeros((3, 4, 3), depth)
    colour[0, 0, 2] = 1
    colour[2, 3] = np.iinfo(depth).max
    assert np.argwhere(masks.holes(replace(source, colour=colour), 3, 4)).tolist() == [[0, 0], [2, 3]]


def test_a_transparent_pixel_marks_nothing_however_bright() -> None:
    source = decoded(saved(image(np.full((1, 3, 4), 255, np.uint8))))
    alpha = np.array([[0, 1, 255]], np.uint8)
    assert masks.holes(replace(source, alpha=alpha), 1, 3).tolist() == [[False, True, True]]


@pytest.mark.parametrize(
    ("mask", "code"), [(np.zeros((4, 3, 1)), "mask_size"), (np.zeros((3, 4, 1)), "mask_empty"), (np.ones((3, 4, 1)), "mask_full")]
)
def test_a_mask_that_cannot_be_meant_is_refused(mask: Any, code: str) -> None:
    source = replace(decoded(saved(image(noise(3, 4, 1)))), colour=mask.astype(np.uint8))
    with pytest.raises(Refused) as refused:
        masks.holes(source, 3, 4)
    assert refused.value.code == code


def test_one_known_bit_or_the_alpha_or_the_depth_that_changed_is_noticed() -> None:
    before = decoded(saved(image(noise(6, 7, 4))))
    marked = np.zeros((6, 7), bool)
    marked[2, 3] = True
    inside, outside, alpha = before.colour.copy(), before.colour.copy(), before.alpha.copy() if before.alpha is not None else None
    inside[2, 3] ^= 1
    outside[2, 4, 1] ^= 1
    assert alpha is not None
    alpha[0, 0] ^= 1
    masks.assert_known(before, replace(before, colour=inside), marked)
    deeper: Any = before.colour.astype(np.uint16)
    for after in ({"colour": outside}, {"alpha": alpha}, {"alpha": None}, {"colour": deeper}, {"colour": before.colour[:, :, :1]}):
        with pytest.raises(Fault):
            masks.assert_known(before, replace(before, **after), marked)
