"""A training: what it tells, what it keeps, and that it goes on exactly where it stopped."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shared.errors import Fault, Refused
from shared.models.manifest import DataUsed, Manifest
from shared.trainings.recipe import Recipe
from trainer import artifact, checkpoints, datasets, finishing, loop, networks, plans, rehearsal, schedules, validation
from trainer.datasets import Picture
from trainer.learner import Learner, Weights

NET = {"widths": (4, 8), "blocks": 1}
TINY = Recipe(config=NET, epochs=2, steps_per_epoch=4, batch=2, patch=16, warmup_steps=2, precision="float32")


def smooth(seed: int, side: int = 48) -> NDArray[np.uint8]:
    """A picture of a few soft waves: easy to tell from noise."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    waves = [np.sin(2 * np.pi * (generator.uniform(0, 2) * rows + generator.uniform(0, 2) * columns) + phase) for phase in range(3)]
    return np.round(127 + 90 * np.stack(waves, axis=2)).astype(np.uint8)


PICTURES = [Picture(str(seed), f"{seed:08x}", smooth(seed)) for seed in range(3)]


def noisy(one: Picture) -> Picture:
    pixels = np.clip(one.pixels + np.random.default_rng(9).normal(0, 20, one.pixels.shape), 0, 255).astype(np.uint8)
    return Picture(one.name, one.sha256, pixels, one.pixels)


PAIRS = [noisy(one) for one in PICTURES]


def trained(
    recipe: Recipe,
    checkpoint: Path,
    events: list[dict[str, Any]] | None = None,
    stopping: Callable[[], bool] = lambda: False,
    planned: plans.Plan | None = None,
) -> Weights | None:
    pictures = PAIRS if recipe.supervision == "paired" else PICTURES
    told = events if events is not None else []
    return loop.train(planned or plans.plan(recipe), pictures[1:], pictures[:1], checkpoint, told.append, stopping)


def same(one: Weights | None, other: Weights | None) -> bool:
    assert one is not None
    assert other is not None
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "cares",
    [
        {"optimizer": "adamw", "dropout": 0.3, "early_stopping": 2},
        {"optimizer": "muon", "supervision": "noisy", "loss": "l2"},
        {"task": "inpaint", "loss": "charbonnier", "schedule": "constant"},
    ],
    ids=["adamw-dropout", "muon-noisy", "inpaint"],
)
def test_an_interrupted_training_ends_with_the_same_weights_bit_for_bit(tmp_path: Path, cares: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(TINY.model_dump() | cares)
    undisturbed = trained(recipe, tmp_path / "a")
    looks = iter(range(100))
    assert trained(recipe, tmp_path / "b", stopping=lambda: next(looks) >= 6) is None  # in the second epoch
    events: list[dict[str, Any]] = []
    assert same(trained(recipe, tmp_path / "b", events), undisturbed)
    assert events[0]["step"] == 5
    assert [one["epoch"] for one in events[0]["epochs"]] == [1]
    assert [event["epoch"] for event in events if event["event"] == "epoch"] == [2]
    again: list[dict[str, Any]] = []
    assert same(trained(recipe, tmp_path / "b", again), undisturbed), "a training that was over is over"
    assert [event["event"] for event in again] == ["started"]


@pytest.mark.parametrize("supervision", ["clean", "paired", "noisy"])
def test_what_is_told_is_json_and_an_epoch_has_its_figures(tmp_path: Path, supervision: str) -> None:
    recipe = Recipe.model_validate(TINY.model_dump() | {"supervision": supervision})
    events: list[dict[str, Any]] = []
    trained(recipe, tmp_path / "checkpoint", events)
    assert json.loads(json.dumps(events, allow_nan=False)) == events
    started = events[0]
    assert (started["event"], started["step"], started["steps"], started["training"], started["held_out"]) == ("started", 0, 8, 2, 1)
    assert started["precision"] == "float32"
    epochs = [event for event in events if event["event"] == "epoch"]
    assert [(event["epoch"], event["step"]) for event in epochs] == [(1, 4), (2, 8)]
    learnt, held_out = epochs[0]["rows"]
    assert (learnt["of"], held_out["of"]) == ("train", "validation")
    assert learnt["loss"] > 0
    assert held_out["loss"] > 0
    for figure in validation.FIGURES:
        assert (held_out[figure] is None) == (supervision == "noisy")


def test_a_network_learns_and_an_epoch_says_whether_it_is_the_best(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    recipe = TINY.model_copy(update={"epochs": 3, "steps_per_epoch": 60, "batch": 4, "learning_rate": 4e-3})
    trained(recipe, tmp_path / "checkpoint", events)
    epochs = [event for event in events if event["event"] == "epoch"]
    figures = [event["rows"][1]["psnr"] for event in epochs]
    assert figures[-1] > figures[0] + 0.5
    assert [event["best"] for event in epochs] == [figure == max(figures[: place + 1]) for place, figure in enumerate(figures)]


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "checkpoint", TINY, checkpoints.Progress(), {"a": np.zeros(1)})
    with pytest.raises(Refused, match="another recipe"):
        trained(TINY.model_copy(update={"seed": 1}), tmp_path / "checkpoint")


def test_what_goes_wrong_with_the_pictures_is_raised_where_one_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise OSError("the disk is gone")

    monkeypatch.setattr(loop, "batch", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        trained(TINY, tmp_path / "checkpoint")


def test_a_loss_that_is_no_number_ends_it_with_the_epoch_and_a_hint_and_spoils_no_checkpoint(tmp_path: Path) -> None:
    planned = plans.plan(TINY)
    learner = Learner(TINY, planned.architecture, planned.config, planned.precision)
    broken = {name: array + np.float32(np.inf) for name, array in learner.weights().items()}
    with pytest.raises(Fault, match=r"epoch 1, at step 1: try a learning rate below 0\.002") as fault:
        trained(TINY, tmp_path / "checkpoint", planned=plans.Plan(TINY, planned.architecture, planned.config, "float32", base=broken))
    assert fault.value.code == "training_diverged"
    found = checkpoints.load(tmp_path / "checkpoint", TINY)
    assert found is not None
    assert found[0].step == 0


def test_minutes_become_steps_once_and_stay_so(tmp_path: Path) -> None:
    recipe = TINY.model_copy(update={"epochs": None, "minutes": 0.02, "steps_per_epoch": 1000})
    events: list[dict[str, Any]] = []
    looks = iter(range(10**6))
    found = {"at": 10**6}

    def tell(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "checkpoint" and event["step"]:
            found["at"] = next(looks)

    assert loop.train(plans.plan(recipe), PICTURES[1:], PICTURES[:1], tmp_path / "c", tell, lambda: next(looks) > found["at"]) is None
    assert events[0]["steps"] is None
    resolved = checkpoints.load(tmp_path / "c", recipe)
    assert resolved is not None
    assert resolved[0].total is not None
    again: list[dict[str, Any]] = []
    trained(recipe, tmp_path / "c", again)
    assert again[0]["steps"] == again[-1]["step"] == resolved[0].total


def test_early_stopping_ends_it_and_keeps_the_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([10.0, 12.0, 11.0, 11.5, 99.0])
    monkeypatch.setattr(validation, "measure", lambda *_: dict.fromkeys(validation.FIGURES) | {"loss": 1.0, "psnr": next(figures)})
    recipe = TINY.model_copy(update={"epochs": 50, "early_stopping": 2, "schedule": "constant", "warmup_steps": 0})
    events: list[dict[str, Any]] = []
    kept = trained(recipe, tmp_path / "c", events)
    epochs = [event for event in events if event["event"] == "epoch"]
    assert [event["best"] for event in epochs] == [True, True, False, False]
    assert epochs[-1]["steps"] == epochs[-1]["step"] == 16
    figures = iter([10.0, 12.0])
    shorter = recipe.model_copy(update={"epochs": 2, "early_stopping": None})
    assert same(kept, trained(shorter, tmp_path / "d")), "it is not the weights of epoch 2"


def test_dropout_changes_what_is_learnt_but_neither_names_nor_what_a_network_gives(tmp_path: Path) -> None:
    for architecture, config in (("unet", NET), ("dncnn", {"depth": 4, "width": 4}), ("inpaint-unet", NET)):
        plain, dropping = networks.build(architecture, config), networks.build(architecture, config, dropout=0.5)
        assert [(one.path, tuple(one.shape)) for one in plain.weights] == [(one.path, tuple(one.shape)) for one in dropping.weights]
        for one, other in zip(plain.weights, dropping.weights, strict=True):
            other.assign(one)
        given = [np.random.default_rng(0).random((1, 16, 16, part.shape[-1]), np.float32) for part in plain.inputs]
        shown = given if len(given) > 1 else given[0]
        assert np.array_equal(plain(shown, training=False), dropping(shown, training=False))
    assert not same(trained(TINY.model_copy(update={"dropout": 0.5}), tmp_path / "a"), trained(TINY, tmp_path / "b"))


@pytest.mark.parametrize("loss", ["l1", "psnr"])
def test_a_batch_learnt_in_parts_is_the_same_but_for_rounding(loss: str) -> None:
    recipe = TINY.model_copy(update={"batch": 5, "loss": loss, "optimizer": "adamw"})
    crops = datasets.Crops(PICTURES, recipe.patch)
    made = []
    for parts in (1, 2, 5):
        learner = Learner(recipe, "unet", NET, "float32")
        losses = [learner.step(loop.batch(recipe, crops, number), number, 1e-3, 0.5, parts) for number in range(3)]
        made.append((losses, learner.weights()))
    for losses, weights in made[1:]:
        assert losses == pytest.approx(made[0][0], rel=1e-5)
        assert all(weights[name] == pytest.approx(made[0][1][name], abs=2e-4) for name in weights)


def test_a_batch_that_will_not_fit_is_split_beforehand_and_a_crop_that_will_not_is_refused() -> None:
    recipe = Recipe(epochs=1, batch=8, patch=96)
    assert [plans.plan(recipe, memory=size << 30).parts for size in (64, 1)] == [1, 1]
    large = recipe.model_copy(update={"patch": 512, "batch": 8})
    assert [plans.plan(large, memory=size << 30).parts for size in (64, 3, 2)] == [1, 2, 4]
    with pytest.raises(Fault, match="smaller patch") as fault:
        plans.plan(large, memory=1 << 30)
    assert fault.value.code == "out_of_memory"


def test_where_it_may_become_tight_a_child_finds_out() -> None:
    planned = plans.plan(TINY.model_copy(update={"batch": 1}))
    assert rehearsal.fitted(planned, 64 << 30) is planned
    assert rehearsal.fitted(planned, 1400 << 20).parts == 1
    with pytest.raises(Fault, match=r"does not fit into 0\.1 GB") as fault:  # what TensorFlow takes by itself
        rehearsal.fitted(planned, 100 << 20)
    assert fault.value.code == "out_of_memory"


def test_what_its_parent_holds_is_not_counted_as_the_child_s() -> None:
    planned = plans.plan(TINY.model_copy(update={"batch": 1}))
    held = np.ones(1_100_000_000, np.uint8)  # the system counts what a process had before it became another program
    assert rehearsal.fitted(planned, 1000 << 20).parts == 1
    assert held[-1] == 1


def test_a_device_that_runs_out_of_memory_goes_on_from_the_checkpoint_in_smaller_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    step = Learner.step
    tried: list[tuple[int, int]] = []

    def narrow(self: Learner, examples: Any, number: int, rate: float, momentum: float, parts: int = 1) -> float:
        tried.append((number, parts))
        if number >= 2 and parts < 2:
            step(self, examples, number, rate, momentum, parts)  # half done: it must not count
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return step(self, examples, number, rate, momentum, parts)

    monkeypatch.setattr(Learner, "step", narrow)
    events: list[dict[str, Any]] = []
    kept = trained(TINY, tmp_path / "a", events)
    assert tried[:4] == [(0, 1), (1, 1), (2, 1), (0, 2)], "it did not go back to the checkpoint"
    assert [event for event in events if event["event"] == "note"] == [{"event": "note", "note": "batch_split"}]
    monkeypatch.setattr(Learner, "step", step)
    planned = plans.plan(TINY)
    assert same(kept, trained(TINY, tmp_path / "b", planned=replace(planned, parts=2)))

    def none(*_: Any) -> float:
        raise MemoryError

    monkeypatch.setattr(Learner, "step", none)
    with pytest.raises(Fault, match="single crop of 16 pixels"):
        trained(TINY, tmp_path / "c")


def published(folder: Path, recipe: Recipe) -> Path:
    planned = plans.plan(recipe)
    weights = Learner(recipe, planned.architecture, planned.config, "float32").weights()
    data = [DataUsed(name="waves", sha256="0" * 64, images=3, terms="ours")]
    finishing.finish(planned, weights, 0, finishing.Identity("waves", 1, data, ""), [], folder)
    return folder


def test_a_training_goes_on_from_the_weights_of_its_base(tmp_path: Path) -> None:
    base = artifact.load_weights(published(tmp_path / "base", TINY))
    still = Recipe.model_validate(TINY.model_dump() | {"config": {}, "learning_rate": 1e-12, "seed": 5, "weight_decay": 0})
    planned = plans.plan(still, base)
    assert networks.parse("unet", planned.config) == networks.parse("unet", NET)
    kept = trained(still, tmp_path / "c", planned=planned)
    assert kept is not None
    assert all(array == pytest.approx(base[1][name], abs=1e-6) for name, array in kept.items())


@pytest.mark.parametrize(
    ("cares", "field"),
    [
        ({"architecture": "dncnn", "config": {}}, "architecture"),
        ({"config": {"widths": (4, 16)}}, "config"),
        ({"task": "inpaint", "config": {}}, "base"),
        ({"config": {"widths": (4, "x")}}, "config"),
    ],
)
def test_a_base_that_does_not_fit_is_refused_by_field(cares: dict[str, Any], field: str) -> None:
    base = Manifest(
        schema=1, name="waves", version=1, task="denoise", architecture="unet", config=NET, weights_sha256="0" * 64, parameters=1,
        created_at="", base=None, recipe={}, data=[], metrics={}, licence="",
    )  # fmt: skip
    with pytest.raises(Refused) as refused:
        plans.plan(Recipe.model_validate(TINY.model_dump() | cares), (base, {}))
    assert refused.value.code == "invalid_field"
    assert list(refused.value.fields) == [field]


def test_the_rate_rises_stays_within_its_bounds_and_falls_as_a_cosine() -> None:
    recipe = Recipe(learning_rate=1e-3, warmup_steps=100)
    rates = [schedules.learning_rate(recipe, step, 2000) for step in range(2000)]
    assert rates[0] == pytest.approx(1e-5)
    assert max(rates) == rates[100] == 1e-3
    assert rates[1050] == pytest.approx(0.5e-3, rel=0.01)
    assert rates[-1] == pytest.approx(1e-6, rel=0.01)
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert schedules.learning_rate(recipe, 50, None) == schedules.learning_rate(recipe, 50, 2000)
    assert schedules.learning_rate(recipe, 5, 40) == pytest.approx(1e-3, rel=0.02), "warmed up for a tenth of it at most"
    constant = recipe.model_copy(update={"schedule": "constant"})
    assert schedules.learning_rate(constant, 1999, 2000) == 1e-3


def test_the_average_of_the_weights_begins_with_a_short_memory() -> None:
    recipe = Recipe(ema=0.999)
    assert schedules.momentum(recipe, 0) == pytest.approx(0.1)
    assert schedules.momentum(recipe, 90) == pytest.approx(0.91)
    assert schedules.momentum(recipe, 10**6) == 0.999


def test_strips_are_few_and_the_last_epoch_has_one() -> None:
    for epochs in (1, 2, 11, 12, 13, 50, 1000):
        taken = [epoch for epoch in range(1, epochs + 1) if validation.sampled(epoch, epochs)]
        assert len(taken) <= validation.SAMPLES
        assert taken[-1] == epochs
    assert len([epoch for epoch in range(1, 7) if validation.sampled(epoch, 6)]) == 6
    assert not validation.sampled(3, None)


@pytest.mark.parametrize(("supervision", "columns"), [("clean", 3), ("paired", 3), ("noisy", 2)])
def test_a_strip_shows_what_was_given_what_came_of_it_and_what_it_should_be(tmp_path: Path, supervision: str, columns: int) -> None:
    recipe = Recipe.model_validate(TINY.model_dump() | {"supervision": supervision})
    crops = validation.held_out(recipe, PAIRS if supervision == "paired" else PICTURES)
    validation.write_strip(tmp_path / "samples" / "epoch-0001.png", recipe, np.zeros_like, crops)
    strip = np.asarray(Image.open(tmp_path / "samples" / "epoch-0001.png"))
    assert strip.shape == (48 * validation.SAMPLE_CROPS, 48 * columns, 3)
    assert strip[:, 48:96].max() == 0
    assert strip[:, :48].max() > 0


def test_held_out_crops_are_the_same_each_time_and_a_perfect_network_is_finite() -> None:
    one, again = (validation.held_out(TINY, PICTURES) for _ in range(2))
    assert len(one) == 12
    assert all(np.array_equal(first.inputs[0], second.inputs[0]) for first, second in zip(one, again, strict=True))
    targets = iter(one)
    figures = validation.measure(TINY, lambda *_: next(targets).target, one)
    assert figures["psnr"] == validation.PSNR_CAP
    assert figures["ssim"] == pytest.approx(1)
    assert all(figure is not None and math.isfinite(figure) for figure in figures.values())
