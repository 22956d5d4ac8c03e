"""Models measured in a process of its own, as a service does it: `python -m trainer.measuring FOLDER`.

FOLDER holds `order.json` and the packed data set in `dataset/`. What happens is told on stdout, one JSON object a line, as
trainer/running.py does it: `measured` with how many pictures are done, `evaluation` for each protocol, then `done` or `fault`.
"""

import os
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from shared.trainings.recipe import EVALUATED_MASKS, Recipe, Task
from trainer.running import DATASET, ORDER, Stop, Voice, conduct

MOST_PICTURES, MOST_SIDE = 200, 1024  # of larger sets as many, evenly; of larger pictures the middle


class Order(BaseModel):
    """What is measured. `models` are folders of artifacts by reference, `set` is what the pictures are called."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Task
    models: dict[str, Path]
    set: str
    sigmas: list[float] | None = None
    masks: list[str] | None = None


def measure(folder: Path, voice: Voice, stop: Stop) -> bool:
    """Every model, the untouched input and the classical methods, on every picture; whether it came to its end."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the import, or TensorFlow chatters
    from shared import settings
    from trainer import datasets, evaluation
    from trainer.execution import choice

    order = Order.model_validate_json((folder / ORDER).read_bytes())
    index, pictures = datasets.unpack(folder / DATASET)
    executor = choice.Fitting(choice.choose("tensorflow", settings.load().networks, "float32"))  # as the protocol says
    measured = evaluation.chosen(pictures, MOST_PICTURES)
    named = order.set if len(measured) == len(pictures) else f"{order.set}, {len(measured)} of its {len(pictures)} pictures"
    networks = {reference: executor.load(artifact).run for reference, artifact in order.models.items()}
    recipe = Recipe(task=order.task, supervision=index.kind, masks=order.masks or list(EVALUATED_MASKS))
    conditions = evaluation.conditions(recipe, order.sigmas or evaluation.SIGMAS, MOST_SIDE)
    stop.begun = True
    done = 0

    def look() -> None:
        nonlocal done
        stop.raised()
        voice.tell({"event": "measured", "done": done, "total": len(measured) * len(conditions)})
        done += 1

    for one in evaluation.comparison(networks, recipe, measured, named, conditions, look):
        voice.tell({"event": "evaluation", **one.json(), "images": one.images})
    return True


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python -m trainer.measuring FOLDER")
    sys.exit(conduct(Path(sys.argv[1]), measure))
