"""`python -m trainer train|evaluate|export|executor`: the trainer without a queue."""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from shared import settings
from shared.errors import LacunaError, Refused
from shared.models import manifest
from shared.models.manifest import DataUsed, Manifest
from trainer import artifact, datasets, evaluation, loop, masks, networks
from trainer.datasets import Picture
from trainer.execution import Network, choice, export

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PROTOCOL = "gaussian, RandomState(0) per image, not clipped, 8-bit RGB output"
FILLING = "holes drawn by default_rng(place of the image), 8-bit RGB output, known pixels kept"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train, evaluate and export networks without a queue."""


@main.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the artifact, the checkpoint and the log.")
@click.option("--name", default="denoise", show_default=True)
@click.option("--version", default=1, show_default=True)
@click.option("--recipe", "recipe_json", default="{}", help="JSON of the recipe's fields; the rest are defaults.")
@click.option("--base", type=click.Path(path_type=Path), help="Folder of an artifact to start from.")
@click.option("--terms", multiple=True, help="The terms of each folder, in order, for the manifest.")
@click.option("--licence", default="", help="The licence of the weights, for the manifest.")
def train(
    folders: tuple[Path, ...],
    out: Path,
    name: str,
    version: int,
    recipe_json: str,
    base: Path | None,
    terms: tuple[str, ...],
    licence: str,
) -> None:
    """Train on FOLDERS of clean pictures. Goes on from the checkpoint in --out if there is one."""
    recipe = loop.Recipe.model_validate_json(recipe_json)
    sets = {folder: datasets.load([folder]) for folder in folders}
    training, validation = datasets.split(datasets.load(folders), recipe.validation_share)
    crops = datasets.Crops(training, recipe.patch, recipe.half_share)
    pixels = sum(picture.pixels.shape[0] * picture.pixels.shape[1] for picture in training)
    print(f"{len(training)} pictures to train on ({pixels / 1e6:.1f} Mpx), {len(validation)} held out", flush=True)

    log = out / "log.jsonl"
    out.mkdir(parents=True, exist_ok=True)

    def tell(progress: loop.Progress) -> None:
        row = {"step": progress.step, "loss": round(progress.loss, 6), "steps_per_s": round(progress.steps_per_s, 2)}
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    start = _base(base, recipe) if base is not None else None
    weights = loop.train(recipe, crops.draw, out / "checkpoint.safetensors", tell, base=start[1] if start else None)
    described = Manifest(
        schema=1,
        name=name,
        version=version,
        task="denoise",
        architecture=recipe.architecture,
        config=recipe.config,
        weights_sha256="0" * 64,
        parameters=sum(int(tensor.size) for tensor in weights.values()),
        created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        base=start[0].reference if start else None,
        recipe=recipe.model_dump() | ({"base_recipe": start[0].recipe} if start else {}),
        data=[
            DataUsed(
                name=folder.name, sha256=datasets.fingerprint(sets[folder]), images=len(sets[folder]),
                terms=terms[index] if index < len(terms) else "not stated",
            )
            for index, folder in enumerate(folders)
        ],
        metrics={},
        licence=licence,
    )  # fmt: skip
    artifact.publish(out, weights, described)
    print(f"wrote {out / artifact.WEIGHTS} and manifest.json")


def _base(folder: Path, recipe: loop.Recipe) -> tuple[Manifest, dict[str, NDArray[np.float32]]]:
    """The manifest and weights of the artifact to start from."""
    described, model = artifact.load_network(folder)
    if networks.parse(described.architecture, described.config) != networks.parse(recipe.architecture, recipe.config):
        raise Refused(
            "artifact_invalid", f"{described.reference} has another network than the recipe: give it the same architecture and config."
        )
    return described, {variable.path: np.asarray(variable.value).copy() for variable in model.variables}


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
        protocol, table = FILLING, _filling(network, pictures, _drawers(kinds, film), as_json)
    else:
        protocol = PROTOCOL + (", 8-bit noise" if rounded else "")
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
