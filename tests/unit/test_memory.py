"""What LACUNA_MEMORY means: the network never sees more at once than its half holds, and pictures never take more than the other."""

from pathlib import Path

import pytest

from shared.models import registry
from tests.promises import wiring
from worker import memory
from worker.wiring import Networks


def test_the_setting_is_shared_in_two() -> None:
    found = memory.budget(12_800_000)
    assert found == memory.Budget(call_bytes=6_400_000, pixels=100_000)


def test_without_a_setting_half_of_what_the_container_has_is_taken(tmp_path: Path) -> None:
    limit, none = tmp_path / "memory.max", tmp_path / "none"
    limit.write_text("400000000\n")
    none.write_text("max\n")
    assert memory.budget(0, (none, limit, tmp_path / "no such file")).call_bytes == 100_000_000
    assert memory.budget(0, (none,)).call_bytes > 400_000_000, "an unlimited container counts as a limited one"


def padded(side: int) -> int:
    return -(-side // wiring.Identity.multiple) * wiring.Identity.multiple


@pytest.mark.parametrize("megabytes", [1, 3, 10, 100, 5000])
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (481, 321), (3000, 2000), (1, 40_000), (40_000, 1), (1, 4_000_000), (10_000, 12_000)]
)
def test_no_piece_that_the_network_sees_takes_more_than_it_may(megabytes: int, height: int, width: int) -> None:
    class Greedy(wiring.Identity):
        halo = 24
        bytes_per_pixel = 384

    networks = Networks(wiring.Running(Greedy()), registry.shipped_artifact, megabytes * 1_000_000)
    smallest = (64 + 2 * 24) ** 2  # a window that is hardly more than its halo: less makes no sense
    most = max(megabytes * 1_000_000 // 384, smallest)
    plan = networks.plan(Greedy(), height, width)
    windows = [padded(tile.window_bottom - tile.window_top) * padded(tile.window_right - tile.window_left) for tile in plan]
    assert max(windows) <= most
    assert sum((tile.bottom - tile.top) * (tile.right - tile.left) for tile in plan) == height * width
    if padded(height) * padded(width) <= min(most, 4_000_000):
        assert len(plan) == 1, "a picture that fits is split, and pays for the halo"
