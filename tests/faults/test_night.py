"""The short form of `make night`, and that its comparison can go red."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults import night, tree
from tests.faults.night import VICTIMS, Came

FILES, BROKEN, KILLS = 28, 8, 1


@pytest.mark.parametrize("start", [night.lacuna_folder, night.lacuna_in_place])
def test_a_folder_goes_through_kills_of_everything_as_if_nothing_had_happened(tmp_path: Path, start: night.Start) -> None:
    if not tree.photos():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            f"There are no photos in {tree.DATA}: name the folder of pictures with DATA."
        )
    found = night.both(tmp_path, FILES, BROKEN, KILLS, 0, night.Hurried, start)
    assert found.differences == []
    assert found.night.kills == dict.fromkeys(VICTIMS, KILLS)


ROW = {"path": "a.png", "state": "succeeded", "sha256_in": "1", "sha256_out": "2", "type": "image/png", "error": None}
FAILED = {"path": "b.png", "state": "failed", "sha256_in": "3", "sha256_out": None, "type": None, "error": "image_corrupt"}
CALM = Came(
    status=1,
    seconds=1.0,
    tree={"a.png": "2"},
    fates={"a.png": "restored", "b.png": "image_corrupt"},
    rows={"a.png": ROW, "b.png": FAILED},
    ended=2,
    twice=[],
)
PICTURES, SPOILED = frozenset({"a.png", "b.png"}), frozenset({"b.png"})


def test_two_runs_that_came_to_the_same_do_not_differ() -> None:
    assert night.differences(CALM, replace(CALM, seconds=9.0, kills=Counter(API=1)), PICTURES, SPOILED) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda came: replace(came, status=0), "the exit status is 0, not 1"),
        (lambda came: replace(came, tree={}), "did not restore 'a.png'"),
        (lambda came: replace(came, tree={"a.png": "cut off"}), "its manifest says"),
        (lambda came: replace(came, tree={**came.tree, ".lacuna-1.part": "4"}), "left '.lacuna-1.part'"),
        (lambda came: replace(came, fates={**came.fates, "b.png": "lost"}), "lost, not image_corrupt"),
        (lambda came: replace(came, fates={"a.png": "restored"}), "did not tell that 'b.png' is broken"),
        (lambda came: replace(came, rows={"a.png": ROW}), "the manifest, 'b.png': nothing, not "),
        (lambda came: replace(came, rows={"a.png": {**ROW, "sha256_in": "5"}, "b.png": FAILED}), "the manifest, 'a.png'"),
        (lambda came: replace(came, twice=["a.png"]), "restored 'a.png' more than once"),
        (lambda came: replace(came, missed=[(1, "API")]), "the run was over"),
    ],
)
def test_what_differs_is_told(change: Callable[[Came], Came], told: str) -> None:
    found: list[Any] = night.differences(CALM, change(CALM), PICTURES, SPOILED)
    assert any(told in line for line in found), found
