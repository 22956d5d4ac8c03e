"""The end of a training: its weights become an artifact, measured on the pictures that were held out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared.models import manifest
from shared.models.manifest import DataUsed, Manifest
from trainer import artifact, evaluation
from trainer.datasets import Picture
from trainer.evaluation import Method, Report
from trainer.execution.tensorflow import TensorFlowExecutor
from trainer.learner import Weights
from trainer.plans import Plan


@dataclass(frozen=True)
class Identity:
    """What a manifest says that the training itself does not know."""

    name: str
    version: int
    data: Sequence[DataUsed]
    licence: str
    base: Path | None = None  # the folder of the artifact it started from
    base_reference: str | None = None  # by default what its manifest says


def finish(
    planned: Plan,
    weights: Weights,
    steps: int,
    identity: Identity,
    held_out: Sequence[Picture],
    folder: Path,
    look: Callable[[], None] = lambda: None,
) -> list[Report]:
    """Write the artifact into `folder` and measure it; before each picture it calls `look`, which ends it by raising."""
    artifact.publish(folder, weights, _described(planned, weights, steps, identity))
    described = manifest.read(folder)
    reports = _measured(planned, described, identity, held_out, folder, look)
    measured = described.model_copy(update={"metrics": {"evaluations": [one.json() for one in reports]}})
    (folder / "manifest.json").write_text(manifest.dump(measured), encoding="utf-8")
    return reports


def _described(planned: Plan, weights: Weights, steps: int, identity: Identity) -> Manifest:
    base = manifest.read(identity.base) if identity.base else None
    done: dict[str, Any] = planned.recipe.model_dump(mode="json")
    done |= {"architecture": planned.architecture, "config": dict(planned.config), "precision": planned.precision, "steps": steps}
    return Manifest(
        schema=1,
        name=identity.name,
        version=identity.version,
        task=planned.recipe.task,
        architecture=planned.architecture,
        config=dict(planned.config),
        weights_sha256="0" * 64,
        parameters=sum(int(tensor.size) for tensor in weights.values()),
        created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        base=(identity.base_reference or base.reference) if base else None,
        recipe=done | ({"base_recipe": base.recipe} if base else {}),
        data=list(identity.data),
        metrics={},
        licence=identity.licence,
    )


def _measured(
    planned: Plan, described: Manifest, identity: Identity, held_out: Sequence[Picture], folder: Path, look: Callable[[], None]
) -> list[Report]:
    if not held_out:
        return []
    executor = TensorFlowExecutor("float32")  # as the protocol says
    methods: dict[str, Method] = {described.reference: evaluation.by_network(executor.load(folder).run)}
    if identity.base is not None:
        reference = identity.base_reference or manifest.read(identity.base).reference
        methods[reference] = evaluation.by_network(executor.load(identity.base).run)
    beside: Mapping[str, Method] = evaluation.classical(planned.recipe.task)
    named = f"{', '.join(one.name for one in identity.data)}, held out"
    return evaluation.report(methods | dict(beside), evaluation.chosen(held_out), evaluation.conditions(planned.recipe), named, look)
