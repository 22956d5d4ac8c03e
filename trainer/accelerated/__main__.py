"""`python -m trainer.accelerated`: trains the shipped models on a GPU, without the service. Needs JAX."""

import dataclasses
import json
import os
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shared.errors import LacunaError
from shared.models import manifest
from shared.models.manifest import Manifest
from trainer import artifact, datasets, networks
from trainer.accelerated.stages import PRECISION, STAGES, Stage

if TYPE_CHECKING:
    from trainer.accelerated.training import Progress, Weights

NO_JAX = (
    "This program runs on JAX, which is not installed. In a checkout: pip install 'jax>=0.10'; for a GPU also JAX's plugin for it, "
    "as JAX's documentation on installing says."
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("stage_name", metavar="STAGE", type=click.Choice(list(STAGES)))
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the artifact.")
@click.option("--minutes", default=4.5, show_default=True, type=click.FloatRange(min=0, min_open=True), help="Without compiling.")
@click.option("--batch", type=click.IntRange(min=1), help="Crops in a batch; by default the stage's.")
@click.option("--patch", type=click.IntRange(min=16), help="Side of a crop in pixels; by default the stage's.")
@click.option("--config", help="JSON of the network's sizes; by default the stage's.")
@click.option("--base", type=click.Path(path_type=Path), help="Folder of an artifact to start from.")
@click.option("--damage", type=click.Path(path_type=Path), help="For inpaint: a folder of grey pictures of film damage.")
@click.option("--name", help="By default the stage's.")
@click.option("--version", default=1, show_default=True)
@click.option("--terms", multiple=True, help="The terms of each folder, in order, then of --damage, for the manifest.")
@click.option("--licence", default="", help="The licence of the weights, for the manifest.")
def main(
    stage_name: str,
    folders: tuple[Path, ...],
    out: Path,
    minutes: float,
    batch: int | None,
    patch: int | None,
    config: str | None,
    base: Path | None,
    damage: Path | None,
    name: str | None,
    version: int,
    terms: tuple[str, ...],
    licence: str,
) -> None:
    """Train STAGE on the clean pictures of FOLDERS, all of it on the device."""
    if find_spec("jax") is None or find_spec("jaxlib") is None:
        sys.exit(NO_JAX)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Keras brings TensorFlow along where it finds it
    os.environ["KERAS_BACKEND"] = "jax"  # before anything imports Keras
    import jax

    from trainer.accelerated import material, training

    before = manifest.read(base) if base else None
    stage = _stage(stage_name, before, batch, patch, _config(config))
    if damage and stage.task != "inpaint":
        raise click.UsageError("--damage is for inpaint.")
    model = _model(stage, base)
    sets = {folder: datasets.load([folder]) for folder in folders}
    films = datasets.load([damage]) if damage else []
    gathered = material.gather(stage, [picture for found in sets.values() for picture in found], films)
    ran_on = {"program": f"python -m trainer.accelerated {stage_name}", "device": jax.devices()[0].device_kind}
    data = datasets.used(sets | ({damage: films} if damage else {}), terms)

    def keep(weights: "Weights", progress: "Progress") -> None:
        done = {"steps": progress.step, "minutes": round(progress.elapsed_s / 60, 2)}
        described = Manifest(
            schema=1,
            name=name or stage_name,
            version=version,
            task=stage.task,
            architecture=stage.architecture,
            config=dict(stage.config),
            weights_sha256="0" * 64,
            parameters=model.count_params(),
            created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            base=before.reference if before else None,
            recipe=ran_on | stage.recipe() | done | ({"base_recipe": before.recipe} if before else {}),
            data=data,
            metrics={},
            licence=licence,
        )
        artifact.publish(out, weights, described)

    held_out = len(gathered.held_out)
    _tell({"stage": stage_name, "device": ran_on["device"], "parameters": model.count_params(), "held_out": held_out})
    training.train(stage, model, gathered, minutes * 60, _tell, keep)
    print(f"wrote {out / artifact.WEIGHTS} and manifest.json")


def _stage(name: str, before: Manifest | None, batch: int | None, patch: int | None, config: dict[str, Any] | None) -> Stage:
    """What was asked for; the network's sizes are those of the base, if there is one."""
    stage = STAGES[name]
    if config is None:
        config = before.config if before else stage.config
    if before and (before.architecture, before.config) != (stage.architecture, config):
        raise click.UsageError(f"{before.reference} is another network than this would be. Leave out --base, or --config if it is given.")
    stage = dataclasses.replace(stage, batch=batch or stage.batch, patch=patch or stage.patch, config=config)
    if stage.patch % stage.multiple:
        raise click.BadParameter(f"For this network it is a multiple of {stage.multiple}.", param_hint="--patch")
    return stage


def _model(stage: Stage, base: Path | None) -> Any:
    import keras

    keras.utils.set_random_seed(stage.seed)
    model = networks.build(stage.architecture, stage.config, PRECISION)
    if base:
        _, weights = artifact.load_weights(base)
        for variable in model.variables:
            variable.assign(weights[variable.path])
    return model


def _config(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        sizes = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"This is no JSON: {error}.", param_hint="--config") from error
    if not isinstance(sizes, dict):
        raise click.BadParameter('Give an object, as {"widths": [8, 16]}.', param_hint="--config")
    return sizes


def _tell(event: dict[str, Any]) -> None:
    print(json.dumps(event, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    try:
        main()
    except LacunaError as error:
        sys.exit(f"{error.kind.title}. {error.detail}")
