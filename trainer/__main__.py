"""`python -m trainer train|evaluate|export|executor`: the trainer without a queue."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
from pydantic import ValidationError

from shared import settings
from shared.errors import LacunaError
from shared.models import manifest
from shared.trainings.recipe import Recipe
from trainer import artifact, datasets, evaluation, finishing, loop, masks, plans
from trainer.datasets import Picture
from trainer.execution import Network, choice, export

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train, evaluate and export networks without a queue."""


@main.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the artifact, the checkpoint and the log.")
@click.option("--name", default="denoise", show_default=True)
@click.option("--version", default=1, show_default=True)
@click.option("--recipe", "recipe_json", default="{}", help="JSON of the recipe's fields; the rest are defaults.")
@click.option("--clean", multiple=True, type=click.Path(path_type=Path), help="For pairs: the clean counterpart of each folder, in order.")
@click.option("--base", type=click.Path(path_type=Path), help="Folder of an artifact to start from.")
@click.option("--terms", multiple=True, help="The terms of each folder, in order, for the manifest.")
@click.option("--licence", default="", help="The licence of the weights, for the manifest.")
def train(
    folders: tuple[Path, ...],
    out: Path,
    name: str,
    version: int,
    recipe_json: str,
    clean: tuple[Path, ...],
    base: Path | None,
    terms: tuple[str, ...],
    licence: str,
) -> None:
    """Train on the pictures of FOLDERS. Goes on from the checkpoint in --out if there is one."""
    recipe = _recipe(recipe_json)
    if len(clean) != (len(folders) if recipe.supervision == "paired" else 0):
        raise click.UsageError("Give --clean once for each folder if the recipe's supervision is paired, else not at all.")
    sets = {folder: datasets.pairs(folder, clean[index]) if clean else datasets.load([folder]) for index, folder in enumerate(folders)}
    pictures = {picture.sha256: picture for found in sets.values() for picture in found}
    training, held_out = datasets.split([pictures[sha256] for sha256 in sorted(pictures)], recipe.validation_share)
    pixels = sum(picture.pixels.shape[0] * picture.pixels.shape[1] for picture in training)
    print(f"{len(training)} pictures to train on ({pixels / 1e6:.1f} Mpx), {len(held_out)} held out", flush=True)

    out.mkdir(parents=True, exist_ok=True)
    step = 0

    def tell(event: dict[str, Any]) -> None:
        nonlocal step
        step = event.get("step", step)
        line = json.dumps(event)
        with (out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)

    planned = plans.plan(recipe, artifact.load_weights(base) if base else None)
    weights = loop.train(planned, training, held_out, out / "checkpoint.safetensors", tell)
    assert weights is not None  # noqa: S101 # nobody stops it
    data = datasets.used(sets, terms)
    for one in finishing.finish(planned, weights, step, finishing.Identity(name, version, data, licence, base), held_out, out):
        for row in one.rows:
            print(json.dumps(row))
    print(f"wrote {out / artifact.WEIGHTS} and manifest.json")


def _recipe(text: str) -> Recipe:
    try:
        return Recipe.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise click.BadParameter(f"{where}: {first['msg']}" if where else first["msg"], param_hint="--recipe") from error


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--sigmas", default="15 25 50", show_default=True, help="Noise levels in grey levels, separated by spaces.")
@click.option("--rounded", is_flag=True, help="Clip and round the noisy picture to 8 bit first, as a user's file is.")
@click.option("--masks", "kinds", default=" ".join(masks.DRAWN), show_default=True, help="What a model that fills is to fill.")
@click.option("--film", type=click.Path(path_type=Path), help="A folder of grey pictures of damage: one more kind of mask.")
@click.option("--executor", default="auto", show_default=True, type=click.Choice(["auto", "openvino", "tensorflow"]))
@click.option("--json", "as_json", is_flag=True)
@click.option("--record", is_flag=True, help="Write the figures into the artifact's manifest.")
def evaluate(
    model: Path, folder: Path, sigmas: str, rounded: bool, kinds: str, film: Path | None, executor: str, as_json: bool, record: bool
) -> None:
    """Figures of the artifact in folder MODEL on the clean pictures of FOLDER: with noise, or with holes for a model that fills."""
    described = manifest.read(model)
    network = choice.Fitting(choice.choose(executor, settings.load().networks, "float32")).load(model)  # as the protocol says
    pictures = [datasets.read(path) for path in datasets.picture_files(folder)]
    if described.task == "inpaint":
        protocol, table = evaluation.FILLING, _filling(network, pictures, _drawers(kinds, film), as_json)
    else:
        protocol = evaluation.PROTOCOL + (", 8-bit noise" if rounded else "")
        table = _denoising(network, pictures, [float(word) for word in sigmas.split()], rounded, as_json)
    if as_json:
        print(json.dumps({"protocol": protocol, "folder": folder.name, "rows": table}))
    if record:
        _record(model, {"protocol": protocol, "set": folder.name, "rows": table})


def _denoising(network: Network, pictures: list[Picture], sigmas: list[float], rounded: bool, quiet: bool) -> list[dict[str, object]]:
    table: list[dict[str, object]] = []
    for sigma in sigmas:
        rows = evaluation.evaluate(network.run, pictures, sigma, rounded)
        means = evaluation.mean(rows, "output")
        table.append({"sigma": sigma, **means, "input": evaluation.mean(rows, "input"), "images": len(rows)})
        if not quiet:
            print(f"σ {sigma:g}: {means['psnr']:.2f} dB, SSIM {means['ssim']:.4f}", flush=True)
    return table


def _filling(network: Network, pictures: list[Picture], drawers: dict[str, masks.Drawer], quiet: bool) -> list[dict[str, object]]:
    table: list[dict[str, object]] = []
    for kind, draw in drawers.items():
        rows = evaluation.evaluate_filling(network.run, pictures, draw)
        whole, hole = evaluation.mean(rows, "output"), evaluation.mean(rows, "hole")
        share = float(np.mean([row["share"] for row in rows]))
        table.append({"mask": kind, "share": share, **whole, "hole": hole, "images": len(rows)})
        if not quiet:
            print(
                f"{kind} ({share:.0%}): hole {hole['psnr']:.2f} dB, SSIM {hole['ssim']:.4f}; "
                f"whole {whole['psnr']:.2f} dB, SSIM {whole['ssim']:.4f}",
                flush=True,
            )
    return table


def _drawers(kinds: str, film: Path | None) -> dict[str, masks.Drawer]:
    known = masks.DRAWN | ({"film": masks.film(film)} if film else {})
    wanted = kinds.split() + ["film"] * bool(film)
    if unknown := [kind for kind in wanted if kind not in known]:
        raise click.UsageError(f"There are no masks called {', '.join(unknown)}; there are {', '.join(known)}.")
    return {kind: known[kind] for kind in wanted}


def _record(folder: Path, figures: dict[str, object]) -> None:
    described = manifest.read(folder)
    rows = [
        row for row in described.metrics.get("evaluations", []) if (row["protocol"], row["set"]) != (figures["protocol"], figures["set"])
    ]
    updated = described.model_copy(update={"metrics": {"evaluations": [*rows, figures]}})
    (folder / "manifest.json").write_text(manifest.dump(updated), encoding="utf-8")


@main.command(name="export")
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
def export_command(models: tuple[Path, ...]) -> None:
    """Export the artifacts in the folders MODELS for OpenVINO, each beside its weights, unless that is done."""
    for model in models:
        described = manifest.read(model)
        try:
            if export.read(model / export.FOLDER, described) is None:
                export.make(model, model / export.FOLDER)
            exported = export.read(model / export.FOLDER, described)
        except export.Inexpressible as error:
            print(f"{described.reference}: OpenVINO cannot run it, TensorFlow will: {error}")
            continue
        if exported is None:
            sys.exit(f"{described.reference}: what was exported does not read back; is the disk full?")
        record = exported.record
        print(
            f"{described.reference}: exported; differs from Keras by {record.difference:.1e}, "
            f"tiles with a halo of {record.halo} pixels agree to {record.tiled_psnr:.0f} dB"
        )


@main.command()
@click.option("--setting", default="auto", show_default=True, type=click.Choice(["auto", "openvino", "tensorflow"]))
def executor(setting: str) -> None:
    """Say what networks run on here, as JSON. This is what `lacunad doctor` asks."""
    print(json.dumps(vars(choice.choose(setting, settings.load().networks).describe())))


if __name__ == "__main__":
    try:
        main()
    except LacunaError as error:
        sys.exit(f"{error.kind.title}. {error.detail}")
    except (choice.CannotRun, settings.SettingsError) as error:
        sys.exit(str(error))
