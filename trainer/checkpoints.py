"""Where a training stands: all that the next step depends on, in one file that is replaced as a whole."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import Refused
from shared.trainings.recipe import Recipe
from trainer import artifact

Arrays = dict[str, NDArray[Any]]


@dataclass
class Progress:
    """What is not a tensor. `step` steps are done of `total`, which is None until the minutes have become steps."""

    step: int = 0
    total: int | None = None
    precision: str = "float32"
    parts: int = 1  # in how many the batch is split, for want of memory
    best: float | None = None  # PSNR of the held-out crops, or their loss turned over
    waited: int = 0  # epochs since then
    loss_sum: float = 0.0  # of the epoch under way
    loss_steps: int = 0
    seconds: float = 0.0  # that it has taken so far
    epochs: list[dict[str, Any]] = field(default_factory=list)  # what was told of each that is over

    @property
    def over(self) -> bool:
        """Whether nothing is left to be learnt."""
        return self.total is not None and self.step >= self.total


def save(path: Path, recipe: Recipe, progress: Progress, arrays: Arrays) -> None:
    """Replace the checkpoint."""
    artifact.write_tensors(path, arrays, {"recipe": recipe.model_dump_json(), "progress": json.dumps(asdict(progress))})


def load(path: Path, recipe: Recipe) -> tuple[Progress, Arrays] | None:
    """The checkpoint, if there is one. Raises `Refused` if it belongs to another recipe."""
    if not path.exists():
        return None
    arrays, metadata = artifact.read_tensors(path)
    known = Recipe.model_validate_json(metadata["recipe"])  # not the text: a later Lacuna may know more fields
    if known.model_dump(mode="json") != recipe.model_dump(mode="json"):
        raise Refused("invalid_field", f"{path.name} belongs to another recipe: remove it, or train into another folder.")
    return Progress(**json.loads(metadata["progress"])), {name: np.asarray(array) for name, array in arrays.items()}
