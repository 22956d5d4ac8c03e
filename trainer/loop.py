"""The training loop: from pictures to weights. It knows nothing of queues, and tells what happens as it happens.

The batch of step k is a function of the recipe and k alone, and a checkpoint holds all that the next step depends on; so a
training that was interrupted, however roughly, goes on from its last checkpoint and ends with the same weights, bit for bit.
"""

import itertools
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import Fault
from shared.trainings.recipe import DEFAULT_MINUTES, Recipe
from trainer import checkpoints, examples, schedules, validation
from trainer.checkpoints import Arrays, Progress
from trainer.datasets import Crops, Picture
from trainer.examples import Examples
from trainer.learner import Learner, Weights
from trainer.plans import Plan
from trainer.validation import Run

CHECKPOINT_SECONDS = 30.0
TELL_SECONDS = 1.0
RESOLVE_STEP = 100  # here minutes become steps, or earlier, when a quarter of them is gone
UNTIMED_STEPS = 10  # the first ones trace and warm up
AHEAD = 4  # batches that are made before they are needed

Tell = Callable[[dict[str, Any]], None]
Look = Callable[[int, int | None, Run, Sequence[Examples]], None]  # (epoch, epochs, network, held-out crops), after each epoch


def train(
    planned: Plan,
    training: Sequence[Picture],
    held_out: Sequence[Picture],
    checkpoint: Path,
    tell: Tell,
    stopping: Callable[[], bool] = lambda: False,
    look: Look | None = None,
) -> Weights | None:
    """Train to the end, from `checkpoint` if it is there, and return the weights to keep by name; None if `stopping` ended it.

    What is told are the events `started`, `step`, `epoch`, `checkpoint` and `note`, as docs/training.md has them. Raises `Refused`
    if no picture is large enough, `Fault("training_diverged")` when the loss is no number, `Fault("out_of_memory")`.
    """
    return _Training(planned, training, held_out, checkpoint, tell, stopping, look).run()


class _Training:
    def __init__(
        self, planned: Plan, training: Sequence[Picture], held_out: Sequence[Picture], checkpoint: Path, tell: Tell,
        stopping: Callable[[], bool], look: Look | None,
    ) -> None:  # fmt: skip
        recipe = planned.recipe
        self._recipe, self._planned, self._checkpoint = recipe, planned, checkpoint
        self._tell, self._stopping, self._look = tell, stopping, look
        self._crops = Crops(training, recipe.patch, recipe.half_share)
        self._held_out = validation.held_out(recipe, held_out)
        self._pictures = (len(training), len(held_out))
        self._best: Arrays = {}
        self._timed: list[float] = []  # seconds of steps, until the minutes have become steps
        self._began = time.monotonic()
        self._saved_at = self._told_at = self._began
        self._untold: list[float] = []
        self._progress = Progress(total=recipe.steps, precision=planned.precision, parts=planned.parts)

    def run(self) -> Weights | None:
        found = checkpoints.load(self._checkpoint, self._recipe)
        if found is not None:
            self._progress = found[0]
        planned = self._planned
        self._learner = Learner(self._recipe, planned.architecture, planned.config, self._progress.precision, planned.base)
        if found is not None:
            self._take(found[1])
            self._saved_step = self._progress.step
        else:
            self._save()  # so that there is always one to go back to
        progress = self._progress
        self._tell({
            "event": "started", "step": progress.step, "steps": progress.total, "training": self._pictures[0],
            "held_out": self._pictures[1], "precision": progress.precision, "parameters": self._learner.parameters,
            "epochs": list(progress.epochs),
        })  # fmt: skip
        if found is None:
            self._tell({"event": "checkpoint", "step": 0})  # in how many parts a batch is learnt must not be decided twice
        if progress.parts > 1:
            self._tell({"event": "note", "note": "batch_split"})
        while not self._progress.over:
            if self._stopping():
                return None
            try:
                self._go_on()
            except (self._learner.exhausted, MemoryError) as error:
                self._split(error)
        return self._weights()

    def _weights(self) -> Weights:
        """The best of the averages where a training may end for want of progress, else the last."""
        return dict(self._best) if self._best else self._learner.weights()

    def _go_on(self) -> None:
        """Steps until the end, or until it is to stop."""
        progress = self._progress
        since = time.monotonic()
        for batch in batches(self._recipe, self._crops, progress.step):
            if progress.over:
                return
            if self._stopping():
                if self._saved_step != progress.step:
                    self._save_between()
                return
            self._step(batch)
            now = time.monotonic()
            progress.seconds += now - since
            if progress.total is None:
                self._timed.append(now - since)
                if self._is_time_to_resolve():
                    self._resolve()
            if self._ends_an_epoch():
                self._end_epoch()
            elif now - self._saved_at >= CHECKPOINT_SECONDS:
                self._save_between()
            since = time.monotonic()

    def _ends_an_epoch(self) -> bool:
        return self._progress.over or self._progress.step % self._recipe.steps_per_epoch == 0

    def _step(self, batch: Examples) -> None:
        progress, recipe = self._progress, self._recipe
        rate = schedules.learning_rate(recipe, progress.step, progress.total)
        loss = self._learner.step(batch, progress.step, rate, schedules.momentum(recipe, progress.step), progress.parts)
        if not math.isfinite(loss):
            where = f"in epoch {progress.step // recipe.steps_per_epoch + 1}, at step {progress.step + 1}"
            raise Fault("training_diverged", f"The loss was no number {where}: try a learning rate below {recipe.rate:g}.")
        progress.step += 1
        progress.loss_sum += loss
        progress.loss_steps += 1
        self._untold.append(loss)
        now = time.monotonic()
        if now - self._told_at >= TELL_SECONDS:
            self._tell({
                "event": "step", "step": progress.step, "steps": progress.total, "loss": float(np.mean(self._untold)),
                "steps_per_s": len(self._untold) / (now - self._told_at),
            })  # fmt: skip
            self._untold, self._told_at = [], now

    def _is_time_to_resolve(self) -> bool:
        gone = time.monotonic() - self._began
        a_quarter = gone > 15 * (self._recipe.minutes or DEFAULT_MINUTES)
        return a_quarter or (self._progress.step >= RESOLVE_STEP and len(self._timed) >= min(RESOLVE_STEP, 5 * UNTIMED_STEPS))

    def _resolve(self) -> None:
        """Minutes become steps, with the time that checkpoints and validation take; from here on nothing depends on time."""
        progress, recipe = self._progress, self._recipe
        self._validate()  # traces
        began = time.monotonic()
        self._validate()
        validated = time.monotonic()
        self._save()
        saving = time.monotonic() - validated
        steps = self._timed[UNTIMED_STEPS:] or self._timed
        a_step = sum(steps) / len(steps) + (validated - began + saving) / recipe.steps_per_epoch
        left = 60 * (recipe.minutes or DEFAULT_MINUTES) - (time.monotonic() - self._began)
        progress.total = progress.step + max(1, int(left / (a_step * (1 + saving / CHECKPOINT_SECONDS))))
        self._save_between()

    def _validate(self) -> dict[str, float | None]:
        return validation.measure(self._recipe, self._learner.average.run, self._held_out)

    def _end_epoch(self) -> None:
        progress, recipe = self._progress, self._recipe
        epoch = -(-progress.step // recipe.steps_per_epoch)
        rows: list[dict[str, Any]] = [
            {"of": "train", "loss": progress.loss_sum / progress.loss_steps, "seconds": round(progress.seconds, 3)}
        ]
        best = False
        if self._held_out:
            began = time.monotonic()
            measured = self._validate()
            rows.append({"of": "validation", **measured, "seconds": round(time.monotonic() - began, 3)})
            best = self._is_best(measured)
        done = {"epoch": epoch, "step": progress.step, "steps": progress.total, "rows": rows, "best": best}
        progress.epochs.append(done)
        progress.loss_sum, progress.loss_steps, progress.seconds = 0.0, 0, 0.0
        self._save()
        self._tell({"event": "epoch", **done})
        if self._look is not None and self._held_out:
            epochs = None if progress.total is None else -(-progress.total // recipe.steps_per_epoch)
            self._look(epoch, epochs, self._learner.average.run, self._held_out)

    def _is_best(self, measured: Mapping[str, float | None]) -> bool:
        """By PSNR, or by the loss where nobody knows the clean pictures. A training that may end early keeps its best."""
        progress, patience = self._progress, self._recipe.early_stopping
        score = measured["psnr"] if measured["psnr"] is not None else -(measured["loss"] or 0.0)
        best = progress.best is None or score > progress.best
        progress.best = score if best else progress.best
        progress.waited = 0 if best else progress.waited + 1
        if patience is not None:
            if best:
                self._best = dict(self._learner.weights())
            if progress.waited >= patience:
                progress.total = progress.step
        return best

    def _save_between(self) -> None:
        self._save()
        self._tell({"event": "checkpoint", "step": self._progress.step})

    def _save(self) -> None:
        arrays = self._learner.state() | {f"best/{name}": array for name, array in self._best.items()}
        checkpoints.save(self._checkpoint, self._recipe, self._progress, arrays)
        self._saved_at, self._saved_step = time.monotonic(), self._progress.step

    def _take(self, arrays: Arrays) -> None:
        self._learner.restore(arrays)
        self._best = {name.removeprefix("best/"): array for name, array in arrays.items() if name.startswith("best/")}

    def _split(self, error: BaseException) -> None:
        """The memory did not hold a batch: go on from the last checkpoint with twice as many parts. A step may have been half done."""
        parts = self._progress.parts * 2
        if parts >= 2 * self._recipe.batch:
            raise Fault(
                "out_of_memory", f"A single crop of {self._recipe.patch} pixels does not fit into memory: take a smaller patch or network."
            ) from error
        found = checkpoints.load(self._checkpoint, self._recipe)
        if found is None:
            raise Fault("internal", "The checkpoint is gone.") from error
        self._progress = found[0]
        self._progress.parts = min(parts, self._recipe.batch)
        self._take(found[1])
        self._save()
        self._untold = []
        self._tell({"event": "note", "note": "batch_split"})


def batches(recipe: Recipe, crops: Crops, first: int) -> Iterator[Examples]:
    """The batches of step `first` and all after it, made a few ahead by a thread of its own."""
    ready: queue.Queue[Examples | BaseException] = queue.Queue(maxsize=AHEAD)
    stopped = threading.Event()

    def make() -> None:
        try:
            for number in itertools.count(first):
                if stopped.is_set():
                    return
                ready.put(batch(recipe, crops, number))
        except BaseException as error:  # noqa: BLE001 # whatever it is belongs to the thread that trains
            ready.put(error)

    maker = threading.Thread(target=make, name="batches", daemon=True)
    maker.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        while maker.is_alive():  # it may wait for room
            while not ready.empty():
                ready.get_nowait()
            maker.join(0.01)


def batch(recipe: Recipe, crops: Crops, number: int) -> Examples:
    """The batch of a step: a function of the recipe, the pictures and the step's number."""
    generator = np.random.default_rng([recipe.seed, number])
    return examples.make(recipe, *crops.draw(recipe.batch, generator), generator)
