"""All eight turns and mirrorings are seen once each, and what comes back lies as it lay."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainer.execution.ensemble import averaged


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 2))
def test_a_network_that_changes_nothing_gives_back_every_pixel_however_it_is_turned(height: int, width: int, count: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (count, height, width, 3)).astype(np.float32)
    assert np.array_equal(averaged(lambda *inputs: inputs[0], 1)(picture), picture)


def test_each_way_is_seen_once_and_a_mask_turns_with_its_picture() -> None:
    picture = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
    seen = []

    def run(*inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        assert np.array_equal(inputs[0], inputs[1])
        seen.append(inputs[0].tobytes() + bytes(inputs[0].shape))
        return inputs[0]

    averaged(run, 1)(picture, picture)
    assert len(set(seen)) == len(seen) == 8


def test_what_a_network_does_to_one_side_is_shared_by_all_sides() -> None:
    def darkens_the_left(*inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        output = inputs[0].copy()
        output[:, :, 0] -= 8
        return output

    restored = averaged(darkens_the_left, 1)(np.zeros((1, 3, 3, 1), np.float32))
    assert restored[0, :, :, 0].tolist() == [[-4, -2, -4], [-2, 0, -2], [-4, -2, -4]]
