"""`python -m benchmarks.training`: how fast a training is beside the same loop called bare, and what short trainings reach.

A training of `lacunad up`, posted as a user posts it (it tells, measures, keeps checkpoints and an average of the weights, all of it
deterministic, and the service copies and records what it tells), against the same network, optimiser and batches in a plain Keras
loop, in pairs that alternate; and, where PyTorch is installed, its loop on the same network. With --five-minutes, --noisy or --inpaint
one training of so many MINUTES on photos of CID22 instead, measured on photos that upstream names for validation. `DATA` names the
folder of pictures.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np

from benchmarks import pairs
from benchmarks.home import Home
from benchmarks.pairs import Row, Timed
from benchmarks.script import png
from shared import children
from shared.trainings.recipe import Recipe
from tests.documents.pages import ROOT
from trainer import datasets, evaluation, loop, masks, networks, optimizers, plans, running
from trainer.datasets import Picture
from trainer.evaluation import Method, Shown
from trainer.examples import Examples
from trainer.execution.tensorflow import TensorFlowExecutor
from trainer.networks.unet import UnetConfig

DATA = Path(os.environ.get("DATA", ROOT.parent / "shared" / "data"))
WARM_UP = 30  # steps that are not timed: they trace
PHOTOS = 20


def photos(validation: bool, count: int) -> list[Picture]:
    """Photos of CID22: those that upstream names for validation, or the others."""
    folder = DATA / "CID22"
    named = {Path(line).stem for line in (folder / "validation.txt").read_text(encoding="utf-8").split()}
    files = [path for path in datasets.picture_files(folder) if (path.stem in named) == validation]
    return [datasets.read(path) for path in files[:count]]


def ordered(folder: Path, recipe: Recipe, pictures: list[Picture]) -> Path:
    """A folder as the service makes one."""
    (folder / running.DATASET).mkdir(parents=True)
    index = datasets.pack(folder / running.DATASET, recipe.supervision, pictures)
    data = [{"name": "CID22", "sha256": index.sha256, "images": len(pictures), "terms": "CC BY-SA 4.0"}]
    order = {"name": "figure", "version": 1, "recipe": recipe.model_dump(mode="json"), "data": data}
    (folder / running.ORDER).write_text(json.dumps(order), encoding="utf-8")
    return folder


def told(folder: Path) -> Iterator[dict[str, Any]]:
    """The events of a training, as they come."""
    with subprocess.Popen(children.python("trainer.running", str(folder)), cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None  # noqa: S101
        yield from map(json.loads, child.stdout)
    if child.returncode:
        sys.exit(f"The training ended with status {child.returncode}.")


# -- speed ------------------------------------------------------------------------------------------------------------------


def ours(recipe: Recipe, pictures: list[Picture]) -> float:
    """Seconds of as many steps of a training that was posted; the end of an epoch lies within them."""
    with Home(redis_url="") as home, httpx.Client(base_url=f"http://{home.up()}", timeout=60) as client:
        fields = recipe.model_dump(exclude_unset=True) | {"name": "figure", "task": recipe.task, "dataset": _sent(client, home, pictures)}
        job_id = client.post("/v1/trainings", json=fields | {"epochs": 2}).raise_for_status().json()["id"]
        steps = recipe.steps or 0
        seen: list[tuple[float, int]] = []  # when the database first had so many steps
        while not seen or seen[-1][1] < 2 * steps:
            job = home.jobs.get(job_id)
            assert job is not None and not job.final, job  # noqa: S101
            if job.progress_done > (seen[-1][1] if seen else WARM_UP):
                seen.append((time.perf_counter(), job.progress_done))
            time.sleep(0.1)
        (began, first), (ended, last) = seen[0], seen[-1]
        return (ended - began) / (last - first) * (steps - WARM_UP)


def _sent(client: httpx.Client, home: Home, pictures: list[Picture]) -> str:
    """The id of a data set of these, once it is ready."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for one in pictures:
            file.writestr(f"{one.name}.png", png(datasets.as_8bit(one.pixels)))
    answer = client.post("/v1/datasets", data={"kind": "clean"}, files={"archive": ("photos.zip", archive.getvalue())})
    home.wait(answer.raise_for_status().json()["id"])
    (found,) = client.get("/v1/datasets").raise_for_status().json()["items"]
    return str(found["id"])


def peer(program: str, recipe: Recipe) -> float:
    """Seconds of the same steps in a plain loop, in a process of its own: `bare` or `torch`."""
    done = subprocess.run(
        children.python("benchmarks.training", "--alone", program, "--recipe", recipe.model_dump_json()), cwd=ROOT, stdout=subprocess.PIPE,
        text=True, check=True,
    )  # fmt: skip
    return float(done.stdout.split()[-1])


def bare(recipe: Recipe, pictures: list[Picture]) -> float:
    """A plain Keras loop: no average of the weights, no checkpoints, nothing measured or told, not deterministic."""
    import tensorflow as tf

    planned = plans.plan(recipe)
    model = networks.build(planned.architecture, planned.config, planned.precision)
    optimizer = optimizers.build(recipe.optimizer, recipe.rate, recipe.weight_decay, recipe.clip_norm)
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def step(noisy: Any, clean: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.abs(model(noisy, training=True) - clean))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    return timed(recipe, pictures, lambda batch: float(step(batch.inputs[0], batch.target)))


def timed(recipe: Recipe, pictures: list[Picture], step: Callable[[Examples], object]) -> float:
    """Seconds of the steps after the warm-up."""
    began = 0.0
    for number, batch in enumerate(loop.batches(recipe, datasets.Crops(pictures, recipe.patch), 0)):
        if number == WARM_UP:
            began = time.perf_counter()
        if number == recipe.steps:
            break
        step(batch)
    return time.perf_counter() - began


def torch_loop(recipe: Recipe, pictures: list[Picture]) -> float:
    """PyTorch's loop on the same network with AdamW, channels last, bfloat16 where ours has it."""
    import torch  # type: ignore[import-not-found, unused-ignore]

    from benchmarks.torch_unet import build

    planned = plans.plan(recipe)
    model = build(UnetConfig.model_validate(dict(planned.config)))
    optimizer = torch.optim.AdamW(model.parameters(), recipe.rate, weight_decay=recipe.weight_decay)

    def step(batch: Examples) -> float:
        noisy, clean = (torch.from_numpy(array).permute(0, 3, 1, 2) for array in (batch.inputs[0], batch.target))
        with torch.autocast("cpu", torch.bfloat16, enabled=planned.precision == "bfloat16"):
            output = model(noisy)
        loss = (output - clean).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        return float(loss.item())

    return timed(recipe, pictures, step)


PROGRAMS = {"bare": bare, "torch": torch_loop}


def speed(recipe: Recipe, pictures: list[Picture], rounds: int, json_path: Path | None) -> None:
    """Pairs that alternate; steps a second are told besides."""
    steps = (recipe.steps or 0) - WARM_UP
    beside = ["bare"]
    try:
        import torch  # type: ignore[import-not-found, unused-ignore]  # noqa: F401

        beside.append("torch")
    except ImportError:
        print("PyTorch is not installed: it is not compared with.")
    taken: dict[str, list[float]] = {name: [] for name in ("ours", *beside)}
    for number in range(rounds):
        for name, seconds in taken.items():
            seconds.append(ours(recipe, pictures) if name == "ours" else peer(name, recipe))
            print(f"round {number + 1}: {name} {steps / seconds[-1]:.2f} steps/s", flush=True)
    mine = Timed(taken["ours"])
    names = {"bare": ("a training beside the same Keras loop called bare", "≥ 0.95"), "torch": ("a training beside PyTorch's loop", "told")}
    pairs.shown((Row(*names[name], mine, Timed(taken[name])) for name in beside), json_path)


# -- what short trainings reach -----------------------------------------------------------------------------------------------


def trained(place: Path, recipe: Recipe, pictures: list[Picture]) -> Path:
    """The artifact of a training, which is told as it goes."""
    began = time.perf_counter()
    for event in told(ordered(place / "training", recipe, pictures)):
        if event["event"] in ("started", "epoch", "note", "fault"):
            event.pop("epochs", None)
            print(f"{time.perf_counter() - began:6.0f} s  {json.dumps(event)}", flush=True)
    return place / "training" / running.ARTIFACT


def gains(artifact: Path, sigma: float, pictures: list[Picture]) -> None:
    """Of a denoiser, on clean photos, by the quality protocol; also with the noise as 8 bit."""
    network = TensorFlowExecutor("float32").load(artifact)
    for rounded in (False, True):
        rows = evaluation.evaluate(network.run, pictures, sigma, rounded)
        before, after = evaluation.mean(rows, "input")["psnr"], evaluation.mean(rows, "output")["psnr"]
        print(f"σ {sigma:g}{', 8-bit noise' * rounded}: {before:.2f} → {after:.2f} dB, gain {after - before:.2f} dB, {len(rows)} photos")


def filled(artifact: Path, pictures: list[Picture]) -> None:
    """Of a filler beside Telea and Navier–Stokes, within the holes."""
    methods: dict[str, Method] = {"model": evaluation.by_network(TensorFlowExecutor("float32").load(artifact).run)}
    methods |= evaluation.classical("inpaint")
    for kind in ("strokes", "scratches", "boxes", "dust", "pixels-50"):
        condition = evaluation.Condition({"mask": kind}, "holes", partial(_holed, masks.drawer(kind)))
        for one in evaluation.report(methods, pictures, [condition], "photos"):
            print("  ".join(f"{row['mask']} {row['method']} {row['hole']['psnr']:.2f} dB" for row in one.rows), flush=True)


def _holed(draw: masks.Drawer, index: int, picture: Picture) -> Shown | None:
    height, width = picture.pixels.shape[:2]
    mask = draw(height, width, np.random.default_rng(index))
    if not mask.any() or mask.all():
        return None
    given = datasets.light(picture.pixels)[np.newaxis]
    given[0, mask] = 0
    return Shown(picture.name, (given, mask[np.newaxis, :, :, np.newaxis].astype(np.float32)), datasets.as_8bit(picture.pixels))


def with_noise(pictures: list[Picture], sigma: float) -> list[Picture]:
    """8-bit noisy pictures, as a microscope leaves them; noise that no measurement uses."""
    made = []
    for index, one in enumerate(pictures):
        noise = np.random.default_rng([1, index]).normal(0, sigma, one.pixels.shape)
        made.append(Picture(one.name, one.sha256, np.round(np.clip(one.pixels + noise, 0, 255)).astype(np.uint8)))
    return made


@click.command()
@click.option("--five-minutes", "figure", flag_value="clean", help="20 clean photos, from nothing; the gain at σ 25.")
@click.option("--noisy", "figure", flag_value="noisy", help="Noise2Void on noisy photos only; the gain at σ 25.")
@click.option("--inpaint", "figure", flag_value="inpaint", help="Holes in photos; beside Telea and Navier–Stokes.")
@click.option("--minutes", type=float, help="By default 5, 10 and 20.")
@click.option("--recipe", "more", default="{}", help="JSON of fields that are to be others.")
@click.option("--keep", type=click.Path(path_type=Path), help="A new folder for what comes of it.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--steps", default=400, show_default=True, help="Of each side in a round.")
@click.option("--json", "json_path", type=click.Path(path_type=Path))
@click.option("--alone", hidden=True, type=click.Choice(sorted(PROGRAMS)))
def main(
    figure: str | None,
    minutes: float | None,
    more: str,
    keep: Path | None,
    rounds: int,
    steps: int,
    json_path: Path | None,
    alone: str | None,
) -> None:
    """Measure."""
    given = json.loads(more)
    if alone:
        print(PROGRAMS[alone](Recipe.model_validate(given), photos(False, PHOTOS)))
        return
    if figure is None:
        recipe = Recipe.model_validate({"epochs": 1, "steps_per_epoch": steps} | given)
        speed(recipe, photos(False, PHOTOS), rounds, json_path)
        return
    fields = {
        "clean": {"minutes": minutes or 5},
        "noisy": {"minutes": minutes or 10, "supervision": "noisy"},
        "inpaint": {"minutes": minutes or 20, "task": "inpaint", "masks": ["strokes"]},
    }[figure]
    learnt_from = photos(False, PHOTOS if figure == "clean" else 180)
    with tempfile.TemporaryDirectory() as place:
        recipe = Recipe.model_validate(fields | given)
        artifact = trained(keep or Path(place), recipe, with_noise(learnt_from, 25) if figure == "noisy" else learnt_from)
        measured = photos(True, PHOTOS)
        if figure == "inpaint":
            filled(artifact, measured)
        else:
            gains(artifact, 25, measured)


if __name__ == "__main__":
    main()
