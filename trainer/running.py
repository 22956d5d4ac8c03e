"""A training in a process of its own, as a service runs it: `python -m trainer.running FOLDER`.

FOLDER holds `order.json`, the packed data set in `dataset/` and, if the training was interrupted, `checkpoint.safetensors`. What
comes of it lies there too: the checkpoint, `samples/`, and at the end `artifact/`. What happens is told on stdout, one JSON object
a line; docs/training.md lists them. SIGTERM ends it after the step under way, with a checkpoint.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from shared import children
from shared.errors import LacunaError, Refused, Transient, outcome_of
from shared.models.manifest import DataUsed
from shared.trainings.recipe import Recipe

if TYPE_CHECKING:  # SIGTERM is heard before NumPy is imported
    from trainer.plans import Plan

SPACE_BYTES = 64 << 20  # less free space than this explains a failure
CHECKPOINT, SAMPLES, ARTIFACT, DATASET, ORDER = "checkpoint.safetensors", "samples", "artifact", "dataset", "order.json"


class Order(BaseModel):
    """What is to be trained. `base` is the folder of an artifact; `memory` is what the training may take, in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: int
    recipe: Recipe
    base: Path | None = None
    base_reference: str | None = None
    data: list[DataUsed]
    licence: str = ""
    memory: int | None = None


class Voice:
    """What is told on stdout, which is nobody else's: whatever else is printed goes to stderr."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self.step = 0  # of the newest checkpoint

    def tell(self, event: dict[str, Any]) -> None:
        """One event, at once."""
        if event["event"] in ("started", "epoch", "checkpoint"):
            self.step = event["step"]
        self._file.write(json.dumps(event, allow_nan=False) + "\n")
        self._file.flush()


class Stopped(Exception):
    """It was asked to stop between two pictures that it measures."""


class Stop:
    """Whether SIGTERM has come. Before the training has begun nothing is lost by ending at once."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self.asked = False
        self.begun = False
        signal.signal(signal.SIGTERM, self._hear)

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.asked

    def raised(self) -> None:
        """Raises `Stopped` if it is to stop."""
        if self.asked:
            raise Stopped

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if not self.begun:
            self._voice.tell({"event": "stopped", "step": self._voice.step})
            os._exit(0)


def conduct(folder: Path, work: Callable[[Path, Voice, Stop], bool]) -> int:
    """Let `work` do what the folder's order says; whether it came to its end. The exit status: 1 after a fault."""
    voice = Voice()
    stop = Stop(voice)
    children.hold_lifeline()
    children.beat()
    children.expendable()
    try:
        done = work(folder, voice, stop)
    except Stopped:
        done = False
    except Exception as error:  # noqa: BLE001 # whatever it is, it ends as a fault with a code
        if not isinstance(error, LacunaError):
            traceback.print_exc()
        outcome = outcome_of(_full(folder) or error)
        told = {"code": outcome.code, "detail": outcome.detail, "refused": isinstance(error, Refused), "retryable": outcome.retryable}
        voice.tell({"event": "fault", **told})
        return 1
    voice.tell({"event": "done"} if done else {"event": "stopped", "step": voice.step})
    return 0


def _full(folder: Path) -> LacunaError | None:
    """What explains any error where the disk is full; libraries say it in words of their own."""
    return Transient("storage_full") if shutil.disk_usage(folder).free < SPACE_BYTES else None


def train(folder: Path, voice: Voice, stop: Stop) -> bool:
    """Whether it came to its end."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the import, or TensorFlow chatters
    from trainer import datasets, finishing, loop, validation  # all of it now: the files may be others when it ends
    from trainer.examples import Examples
    from trainer.validation import Run

    order = Order.model_validate_json((folder / ORDER).read_bytes())
    index, pictures = datasets.unpack(folder / DATASET)
    if index.kind != order.recipe.supervision:
        raise Refused(
            "invalid_field",
            f"The data set is {index.kind}; the training wants {order.recipe.supervision}.",
            fields={"supervision": index.kind},
        )
    training, held_out = datasets.split(pictures, order.recipe.validation_share)
    datasets.Crops(training, order.recipe.patch, order.recipe.half_share)  # refused before anything is built
    planned = _planned(folder, order)

    def look(epoch: int, epochs: int | None, run: Run, crops: Sequence[Examples]) -> None:
        if validation.sampled(epoch, epochs):
            name = f"epoch-{epoch:04d}.png"
            validation.write_strip(folder / SAMPLES / name, order.recipe, run, crops)
            voice.tell({"event": "sample", "name": name})

    def tell(event: dict[str, Any]) -> None:
        stop.begun = True
        voice.tell(event)

    weights = loop.train(planned, training, held_out, folder / CHECKPOINT, tell, stop, look)
    if weights is None:
        return False
    identity = finishing.Identity(order.name, order.version, order.data, order.licence, order.base, order.base_reference)
    reports = finishing.finish(planned, weights, voice.step, identity, held_out, folder / ARTIFACT, stop.raised)
    for one in reports:
        voice.tell({"event": "evaluation", **one.json(), "images": one.images})
    return True


def _planned(folder: Path, order: Order) -> "Plan":
    from trainer import artifact, plans, rehearsal

    base = artifact.load_weights(order.base) if order.base else None
    if (folder / CHECKPOINT).exists():  # it says in how many parts a batch is learnt
        return plans.plan(order.recipe, base)
    planned = plans.plan(order.recipe, base, order.memory)
    return rehearsal.fitted(planned, plans.room(order.memory))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python -m trainer.running FOLDER")
    sys.exit(conduct(Path(sys.argv[1]), train))
