"""Whether a batch fits into memory, found out by a process that may die of it: `python -m trainer.rehearsal`.

A processor's memory does not end with an error that one could answer: the kernel kills, or a library aborts. So where the estimate
says that it may become tight, a child learns from one batch first, of noise, and its parent looks at how it fared.
"""

import contextlib
import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from shared import children
from shared.errors import Fault
from shared.trainings.recipe import Recipe
from trainer import plans
from trainer.plans import Plan

SECONDS = 300.0  # of one try; a child that is short of memory may also hang
STEPS = 2
TIGHT = 0.5  # of the memory there is: from here on an estimate is not trusted


def fitted(planned: Plan, room: int) -> Plan:
    """The plan with as few parts as fit `room` bytes.

    Raises `Fault("out_of_memory")` if not even a single crop does.
    """
    if plans.estimate(planned.recipe, planned.architecture, planned.config, planned.parts) < TIGHT * room:
        return planned
    parts = planned.parts
    while not _fits(planned, parts, room):
        if parts >= planned.recipe.batch:
            raise Fault(
                "out_of_memory",
                f"A single crop of {planned.recipe.patch} pixels does not fit into {room / 1e9:.1f} GB: take a smaller patch or network.",
            )
        parts = min(2 * parts, planned.recipe.batch)
    return replace(planned, parts=parts)


def _fits(planned: Plan, parts: int, room: int) -> bool:
    asked = {
        "recipe": planned.recipe.model_dump_json(), "architecture": planned.architecture, "config": dict(planned.config),
        "precision": planned.precision, "parts": parts,
    }  # fmt: skip
    child = children.Child(children.python("trainer.rehearsal", json.dumps(asked)), stdout=subprocess.PIPE)
    try:
        told, _ = child.process.communicate(timeout=SECONDS)
        return child.process.returncode == 0 and int(told) <= room
    except subprocess.TimeoutExpired:
        return False
    finally:
        child.kill()
        child.close()


def main(asked: str) -> None:
    """Learn from a batch of noise; prints the most memory it took, in bytes."""
    children.hold_lifeline()
    children.expendable()
    from trainer import examples
    from trainer.learner import Learner

    found = json.loads(asked)
    recipe = Recipe.model_validate_json(found["recipe"])
    generator = np.random.default_rng(0)
    crops = generator.random((recipe.batch, recipe.patch, recipe.patch, 3), dtype=np.float32)
    batch = examples.make(recipe, crops, crops, generator)
    learner = Learner(recipe, found["architecture"], found["config"], found["precision"])
    for number in range(STEPS):
        learner.step(batch, number, 1e-9, 0.9, found["parts"])
    print(_most())


def _most() -> int:
    """The most memory that this program had, in bytes."""
    with contextlib.suppress(FileNotFoundError):  # elsewhere than on Linux
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # on Linux also what its parent had, which it was before
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    main(sys.argv[1])
