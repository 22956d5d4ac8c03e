"""A training in a process of its own: killed at any moment it goes on and ends with the same weights; asked to stop it stops."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared import children
from shared.imaging import metrics
from shared.models import manifest
from shared.trainings.recipe import Recipe
from tests.documents.pages import ROOT
from trainer import artifact, datasets, running
from trainer.datasets import Picture

KILLS = int(os.environ.get("KILLS", "1"))  # at random moments; `make kills` does twenty, through the service
LONGEST = 300.0  # seconds: of a child that hangs, not of one that works

TINY = Recipe(
    config={"widths": (4, 8), "blocks": 1}, epochs=12, steps_per_epoch=40, batch=2, patch=16, warmup_steps=20, dropout=0.2,
    optimizer="muon", early_stopping=50, precision="float32",
)  # fmt: skip


HUNGRY = TINY.model_copy(
    update={"config": {"widths": (48, 48), "blocks": 2}, "batch": 8, "patch": 128, "epochs": 1, "steps_per_epoch": 1, "validation_share": 0}
)
ROOM = 1_000 << 20


def ordered(folder: Path, recipe: Recipe, side: int = 64) -> Path:
    """A folder as the service makes one."""
    generator = np.random.default_rng(0)
    waves = np.sin(np.linspace(0, 9, side))[:, np.newaxis, np.newaxis] * generator.uniform(20, 90, (4, 1, 1, 3)) + 127
    pixels = np.round(np.broadcast_to(waves, (4, side, side, 3))).astype(np.uint8)
    (folder / running.DATASET).mkdir(parents=True)
    index = datasets.pack(
        folder / running.DATASET,
        recipe.supervision,
        [Picture(str(one), f"{one}".rjust(8, "0").ljust(64, "a"), pixels[one]) for one in range(4)],
    )
    data = [{"name": "waves", "sha256": index.sha256, "images": 4, "terms": "ours"}]
    order = {"name": "waves", "version": 1, "recipe": recipe.model_dump(mode="json"), "base": None, "base_reference": None, "data": data}
    (folder / running.ORDER).write_text(json.dumps(order | {"licence": "", "memory": None}), encoding="utf-8")
    return folder


def started(folder: Path, limit: int | None = None) -> subprocess.Popen[str]:
    """`limit` is what it and its children may each have in memory, in bytes."""
    command = children.python("trainer.running", str(folder))
    limited = ["prlimit", f"--data={limit}", *command] if limit else command
    return subprocess.Popen(limited, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def told_by(child: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert child.stdout is not None
    return (json.loads(line) for line in child.stdout)


def until(child: subprocess.Popen[str], event: str) -> dict[str, Any]:
    for told in told_by(child):
        if told["event"] == event:
            return told
    raise AssertionError(f"it ended without {event}")


def ended(child: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]]]:
    with child:
        events = list(told_by(child))
        return child.wait(LONGEST), events


def weights(folder: Path) -> bytes:
    return (folder / running.ARTIFACT / artifact.WEIGHTS).read_bytes()


def test_a_training_that_is_killed_at_random_moments_ends_with_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    undisturbed = started(ordered(tmp_path / "undisturbed", TINY))
    killed = ordered(tmp_path / "killed", TINY)
    chance = random.Random()  # noqa: S311 # any moment will do
    interrupted = 0
    for _ in range(KILLS):
        with started(killed) as child:
            until(child, "started")
            try:
                child.wait(chance.uniform(0, 0.7))
            except subprocess.TimeoutExpired:
                interrupted += 1
            child.kill()
    status, events = ended(started(killed))
    assert (status, events[-1]) == (0, {"event": "done"})
    assert events[0]["event"] == "started"
    epochs = [*events[0]["epochs"], *(event for event in events if event["event"] == "epoch")]
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, 13)), "an epoch's figures were lost, or told twice"
    assert interrupted, "it was never interrupted: the training is too short for this machine"

    status, told = ended(undisturbed)
    assert (status, told[-1]) == (0, {"event": "done"})
    assert weights(killed) == weights(tmp_path / "undisturbed")
    figures = [[row["psnr"] for row in epoch["rows"][1:]] for epoch in epochs]
    assert figures == [[row["psnr"] for row in event["rows"][1:]] for event in told if event["event"] == "epoch"]

    described = manifest.read(killed / running.ARTIFACT)
    assert described.reference == "waves@1"
    assert described.recipe["steps"] == 480
    assert {row["method"] for row in described.rows} == {"waves@1", "opencv-nlm"}
    assert {row["sigma"] for row in described.rows} == {15, 25, 50}
    (evaluation,) = (event for event in told if event["event"] == "evaluation")
    assert evaluation["protocol"].startswith("gaussian")
    assert all(set(metrics.Quality.__annotations__) <= set(row) for row in evaluation["images"])
    strips = sorted(path.name for path in (killed / running.SAMPLES).iterdir())
    assert strips[-1] == "epoch-0012.png"
    assert len(strips) <= 12


def test_a_training_that_is_asked_to_stop_leaves_a_checkpoint_and_goes_on_from_it(tmp_path: Path) -> None:
    folder = ordered(tmp_path / "training", TINY.model_copy(update={"epochs": 10_000}))
    with started(folder) as child:
        until(child, "epoch")
        child.send_signal(signal.SIGTERM)
        status, events = ended(child)
    assert status == 0
    assert events[-1]["event"] == "stopped"
    assert events[-1]["step"] >= 40
    with started(folder) as child:
        assert until(child, "started")["step"] == events[-1]["step"]
        child.send_signal(signal.SIGTERM)
        assert child.wait(LONGEST) == 0


@pytest.mark.parametrize(
    ("cares", "code", "word"),
    [({"patch": 128}, "invalid_field", "128 pixels"), ({"supervision": "noisy"}, "invalid_field", "is clean")],
)
def test_what_cannot_be_trained_is_refused_in_a_line(tmp_path: Path, cares: dict[str, Any], code: str, word: str) -> None:
    folder = ordered(tmp_path / "training", TINY)
    order = json.loads((folder / running.ORDER).read_text(encoding="utf-8"))
    order["recipe"] |= cares
    (folder / running.ORDER).write_text(json.dumps(order), encoding="utf-8")
    status, events = ended(started(folder))
    assert status == 1
    assert (events[-1]["event"], events[-1]["code"], events[-1]["refused"]) == ("fault", code, True)
    assert word in events[-1]["detail"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the data of a process")
def test_a_batch_that_the_memory_does_not_hold_is_split_beforehand_and_says_so(tmp_path: Path) -> None:
    folder = ordered(tmp_path / "training", HUNGRY, side=128)
    status, events = ended(started(folder, limit=ROOM))
    assert (status, events[-1]) == (0, {"event": "done"})
    assert {"event": "note", "note": "batch_split"} in events


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the data of a process")
def test_a_crop_that_the_memory_does_not_hold_ends_it_with_a_sentence(tmp_path: Path) -> None:
    folder = ordered(tmp_path / "training", HUNGRY.model_copy(update={"batch": 1, "patch": 512}), side=512)
    status, events = ended(started(folder, limit=ROOM))
    assert status == 1
    assert (events[-1]["event"], events[-1]["code"], events[-1]["refused"]) == ("fault", "out_of_memory", False)
    assert "smaller patch" in events[-1]["detail"]
