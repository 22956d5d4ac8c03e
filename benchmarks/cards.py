"""`python -m benchmarks.cards`: writes what is generated of the pages in docs/models, and the pictures in them.

A page is the model's card (shared/models/card.py) up to “Where it fails”; what stands from there on is written by hand and kept. Its
pictures are of photos that no training set has: given, restored, as they should be, twice as large as they are.
"""

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.photos import photo
from shared import settings
from shared.models import registry
from shared.models.card import card
from shared.models.manifest import Manifest
from shared.trainings.recipe import Degradation, Gaussian, Jpeg, PoissonGaussian
from tests.documents.pages import ROOT
from trainer import degradations, evaluation, masks
from trainer.evaluation import Run
from trainer.execution import choice

Pixels = NDArray[np.uint8]

FOLDER = ROOT / "docs" / "models"
FAILURES = "## Where it fails"
SIDE, SCALE, GAP = 160, 2, 6
Case = tuple[str, int, int, list[Degradation]]  # a photo, where its part begins, and what is done to it
CASES: dict[str, list[Case]] = {
    "denoise": [("chelsea", 90, 150, [Gaussian(sigma=50.0)]), ("coffee", 60, 190, [Jpeg(quality=20.0)])],
    "denoise-real": [
        ("chelsea", 90, 150, [Gaussian(sigma=50.0)]),
        ("astronaut", 0, 180, [PoissonGaussian(photons=30.0, sigma=10.0), Jpeg(quality=30.0)]),
    ],
}


def page(found: Manifest, written: str) -> str:
    """What a page of docs/models holds; `written` is what it held."""
    _, marker, failures = written.partition(FAILURES)
    return card(found) + (f"\n{marker}{failures}" if marker else f"\n{FAILURES}\n\n![{found.reference}]({found.reference}.jpg)\n")


def strips(found: Manifest) -> Image.Image:
    """A row for each case: given, restored, as it should be."""
    run = choice.choose("auto", settings.load().networks, "float32").load(registry.shipped_artifact(found.name, found.version)).run
    rows = _filled(run) if found.task == "inpaint" else [_denoised(run, *case) for case in CASES.get(found.name, CASES["denoise"])]
    return _below([_beside(row) for row in rows])


def _denoised(run: Run, name: str, top: int, left: int, steps: list[Degradation]) -> list[Pixels]:
    clean = photo(name)[top : top + SIDE, left : left + SIDE]
    generator = np.random.default_rng(0)
    given = np.asarray(clean / np.float32(255), np.float32)
    for step in steps:
        given = degradations.apply(step, given, generator)
    given = degradations.to_8_bit(given)
    return [evaluation.to_8bit(given), evaluation.to_8bit(run(given[np.newaxis])[0]), clean]


def _filled(run: Run) -> list[list[Pixels]]:
    rows = []
    for name, top, left, draw in (("coffee", 60, 190, masks.strokes), ("chelsea", 90, 150, masks.boxes)):
        clean = photo(name)[top : top + SIDE, left : left + SIDE]
        mask = draw(SIDE, SIDE, np.random.default_rng(3))
        given = np.asarray(clean / np.float32(255), np.float32)
        given[mask] = 0
        restored = run(given[np.newaxis], mask[np.newaxis, :, :, np.newaxis].astype(np.float32))
        rows.append([evaluation.to_8bit(given), evaluation.to_8bit(restored[0]), clean])
    return rows


def _beside(pictures: Sequence[Pixels]) -> Image.Image:
    side = SIDE * SCALE
    made = Image.new("RGB", (side * len(pictures) + GAP * (len(pictures) - 1), side), "white")
    for index, pixels in enumerate(pictures):
        made.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST), (index * (side + GAP), 0))
    return made


def _below(rows: Sequence[Image.Image]) -> Image.Image:
    made = Image.new("RGB", (rows[0].width, sum(row.height + GAP for row in rows) - GAP), "white")
    for index, row in enumerate(rows):
        made.paste(row, (0, index * (row.height + GAP)))
    return made


@click.command()
def main() -> None:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    for found in registry.shipped():
        if not found.parameters:
            continue
        path = FOLDER / f"{found.reference}.md"
        path.write_text(page(found, path.read_text(encoding="utf-8") if path.exists() else ""), encoding="utf-8")
        strips(found).save(path.with_suffix(".jpg"), quality=88)
        print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    main()
