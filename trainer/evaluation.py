"""The quality protocol: how good a network is, in figures that compare with the published tables.

A picture is read as 8-bit RGB and divided by 255; Gaussian noise from `RandomState(0)`, seeded anew for each picture, is
added and not clipped; the network is called directly; its output is clipped and rounded to 8 bit and compared with the
original. With `rounded`, the noisy picture is clipped and rounded to 8 bit before the network, as a user's file is.

Filling: the mask of a picture is drawn from a generator seeded with its place in the folder, in order of name. The
network is called directly on picture and mask; figures are those of the whole picture and those of the hole alone.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.imaging import metrics
from shared.trainings.recipe import Degradation, Gaussian, Recipe
from trainer import datasets, degradations, masks
from trainer.datasets import Picture
from trainer.masks import Drawer

PROTOCOL = "gaussian, RandomState(0) per image, not clipped, 8-bit RGB output"
FILLING = "holes drawn by default_rng(place of the image), 8-bit RGB output, known pixels kept"
DEGRADING = "degraded by default_rng(place of the image), 8-bit RGB output"
CROPPED = "; centre crops of at most {} pixels"
SIGMAS = (15.0, 25.0, 50.0)
MOST_PICTURES, MOST_SIDE = 24, 256  # of a report: what non-local means fills in half a minute

Run = Callable[..., NDArray[np.float32]]  # (n, h, w, 3) in 0..1[, (n, h, w, 1): 1 = fill] → the first one's shape, any h and w


def add_noise(clean: NDArray[np.uint8], sigma: float) -> NDArray[np.float32]:
    """uint8 → float32 of the same shape in units of 0..1, noisy, not clipped. `sigma` is in grey levels of 0..255."""
    noise = np.random.RandomState(0).normal(0, sigma / 255, clean.shape)
    return (clean / 255 + noise).astype(np.float32)


def to_8bit(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0..1 → 0..255, clipped and rounded."""
    return np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def evaluate(network: Run, pictures: Iterable[Picture], sigma: float, rounded: bool = False) -> list[dict[str, Any]]:
    """A row for each picture: its name, `output` and `input` figures (`input` is the noisy picture as 8 bit)."""
    rows = []
    for picture in pictures:
        clean = datasets.as_8bit(picture.clean)
        noisy = add_noise(clean, sigma)
        if rounded:
            noisy = to_8bit(noisy).astype(np.float32) / np.float32(255)
        output = to_8bit(network(noisy[np.newaxis])[0])
        rows.append({
            "name": picture.name,
            "output": vars(metrics.compare(output, clean)),
            "input": vars(metrics.compare(to_8bit(noisy), clean)),
        })  # fmt: skip
    return rows


def evaluate_filling(network: Run, pictures: Iterable[Picture], draw: Drawer) -> list[dict[str, Any]]:
    """A row for each picture: its name, the share of it that is hole, `output` figures of the whole and `hole` figures.

    A picture whose mask came out empty or full has no row.
    """
    rows = []
    for index, picture in enumerate(pictures):
        height, width = picture.pixels.shape[:2]
        mask = draw(height, width, np.random.default_rng(index))
        if not mask.any() or mask.all():
            continue
        clean = datasets.as_8bit(picture.clean)
        given = clean / np.float32(255)
        given[mask] = 0
        output = to_8bit(network(given[np.newaxis], mask[np.newaxis, :, :, np.newaxis].astype(np.float32))[0])
        output[~mask] = clean[~mask]
        rows.append({
            "name": picture.name,
            "share": float(mask.mean()),
            "output": vars(metrics.compare(output, clean)),
            "hole": vars(metrics.compare_holes(output, clean, mask)),
        })  # fmt: skip
    return rows


def mean(rows: list[dict[str, Any]], of: str) -> dict[str, float]:
    """The mean over pictures of each figure of `output`, `input` or `hole`, of those that have it."""
    return {figure: float(np.nanmean([row[of][figure] for row in rows])) for figure in rows[0][of]}


# -- reports: a model beside its base, a classical method and the untouched picture ----------------------------------------


@dataclass(frozen=True)
class Shown:
    """A picture as a method gets it. `clean` is what it should become, where that is known."""

    name: str
    inputs: tuple[NDArray[np.float32], ...]  # of a network: (1, h, w, 3) in about 0..1[, (1, h, w, 1): 1 = fill]
    clean: NDArray[np.uint8] | None  # (h, w, 3)

    @property
    def untouched(self) -> NDArray[np.uint8]:
        """As 8 bit."""
        return to_8bit(self.inputs[0][0])

    @property
    def hole(self) -> NDArray[np.bool_] | None:
        """(h, w), where a picture is to be filled."""
        return self.inputs[1][0, :, :, 0] > 0 if len(self.inputs) > 1 else None


Method = Callable[[Shown], NDArray[np.uint8]]  # → (h, w, 3)


@dataclass(frozen=True)
class Condition:
    """What is done to every picture, and how its rows are told from others."""

    told: Mapping[str, Any]  # {"sigma": 25.0}, {"mask": "strokes"}, …
    protocol: str
    show: Callable[[int, Picture], Shown | None]  # the place of the picture among those measured; None: nothing to measure here


@dataclass(frozen=True)
class Report:
    """Figures under one protocol: means over pictures, a row for each condition and method, and a row for each picture besides."""

    protocol: str
    pictures: str
    rows: list[dict[str, Any]]
    images: list[dict[str, Any]]

    def json(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        return {"protocol": self.protocol, "set": self.pictures, "rows": self.rows}


def report(
    methods: Mapping[str, Method],
    pictures: Sequence[Picture],
    conditions: Sequence[Condition],
    named: str,
    look: Callable[[], None] = lambda: None,
) -> list[Report]:
    """Every method on every picture under every condition; `named` is what the pictures are called.

    Rows are those of the command line with `method` besides. What is infinite or unknown is None. Before each picture it calls
    `look`, which ends it by raising.
    """
    reports: dict[str, Report] = {}
    for condition in conditions:
        into = reports.setdefault(condition.protocol, Report(condition.protocol, named, [], []))
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
        for index, picture in enumerate(pictures):
            look()
            shown = condition.show(index, picture)
            if shown is None:
                continue
            for name, method in methods.items():
                found[name].append(_judged(shown, method(shown)))
        for name, rows in found.items():
            if rows:
                into.rows.append({"method": name, **condition.told, **_means(rows), "images": len(rows)})
                into.images.extend({"method": name, **condition.told, **row} for row in rows)
    return list(reports.values())


def _judged(shown: Shown, output: NDArray[np.uint8]) -> dict[str, Any]:
    if shown.clean is None:
        difference = output.astype(np.float64) - shown.untouched
        return {"image": shown.name, "removed_rms": math.sqrt(float(np.mean(difference**2)))}
    hole = shown.hole
    if hole is None:
        untouched = metrics.compare(shown.untouched, shown.clean).json()
        return {"image": shown.name, **metrics.compare(output, shown.clean).json(), "input": untouched}
    kept = np.where(hole[:, :, np.newaxis], output, shown.clean)
    within = metrics.compare_holes(kept, shown.clean, hole).json()
    return {"image": shown.name, "share": float(hole.mean()), **metrics.compare(kept, shown.clean).json(), "hole": within}


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if isinstance(values[0], dict):
            means[name] = _means(values)
        elif name != "image":
            known = [value for value in values if value is not None]
            means[name] = float(np.mean(known)) if known else None
    return means


def comparison(
    networks: Mapping[str, Run],
    recipe: Recipe,
    pictures: Sequence[Picture],
    named: str,
    conditions: Sequence[Condition],
    look: Callable[[], None] = lambda: None,
) -> list[Report]:
    """Any networks of a recipe's task beside the classical methods; see `report`."""
    methods = {name: by_network(run) for name, run in networks.items()} | classical(recipe.task)
    return report(methods, pictures, conditions, named, look)


def conditions(recipe: Recipe, sigmas: Sequence[float] = SIGMAS, side: int = MOST_SIDE) -> list[Condition]:
    """What a model of this recipe is measured at: real pairs as they are, noisy pictures as far as they tell, kinds of holes; noise of
    the levels `sigmas`, or the recipe's own degradation if that is not plain noise. Of pictures larger than `side` the middle."""
    cropped = CROPPED.format(side)
    if recipe.task == "inpaint":
        return [holes(kind, masks.drawer(kind), side) for kind in _kinds(recipe)]
    if recipe.supervision == "paired":
        return [Condition({}, "real pairs, 8-bit RGB" + cropped, _pair(side))]
    if recipe.supervision == "noisy":
        return [Condition({}, "noisy pictures without clean ones: grey levels removed, RMS" + cropped, _alone(side))]
    if all(isinstance(step, Gaussian) for step in recipe.degradation):
        return [Condition({"sigma": sigma}, PROTOCOL + cropped, _noisy(sigma, side)) for sigma in sigmas]
    what = ", ".join(step.kind for step in recipe.degradation)
    return [degraded(what, recipe.degradation, side)]


def holes(kind: str, draw: Drawer, side: int = MOST_SIDE) -> Condition:
    """Pictures that lack what is drawn."""
    return Condition({"mask": kind}, FILLING + CROPPED.format(side), _holed(draw, side))


def degraded(what: str, steps: Sequence[Degradation], side: int = MOST_SIDE, rounded: bool = False) -> Condition:
    """Clean pictures to which that is done; `rounded` as a file of 8 bit holds them."""
    protocol = DEGRADING + ", 8-bit input" * rounded + CROPPED.format(side)
    return Condition({"degradation": what}, protocol, _degraded(steps, rounded, side))


def _kinds(recipe: Recipe) -> list[str]:
    """Each once; a share of pixels that varies in training is measured at the protocol's two."""
    kinds = [one for kind in recipe.masks for one in (("pixels-50", "pixels-80") if kind == "pixels" else (kind,))]
    return list(dict.fromkeys(kinds))


def _middle(pixels: datasets.Pixels, side: int) -> NDArray[np.uint8]:
    """The middle of a picture as 8-bit RGB."""
    height, width = pixels.shape[:2]
    tall, wide = min(height, side), min(width, side)
    top, left = (height - tall) // 2, (width - wide) // 2
    return datasets.as_8bit(pixels[top : top + tall, left : left + wide])


def _as_input(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(pixels[np.newaxis] / np.float32(255), dtype=np.float32)


def _noisy(sigma: float, side: int) -> Callable[[int, Picture], Shown]:
    def show(index: int, picture: Picture) -> Shown:
        clean = _middle(picture.clean, side)
        return Shown(picture.name, (add_noise(clean, sigma)[np.newaxis],), clean)

    return show


def _degraded(steps: Sequence[Degradation], rounded: bool, side: int) -> Callable[[int, Picture], Shown]:
    def show(index: int, picture: Picture) -> Shown:
        clean = _middle(picture.clean, side)
        noisy, _ = degradations.degrade(_as_input(clean), steps, float(rounded), 0, np.random.default_rng(index))
        return Shown(picture.name, (noisy,), clean)

    return show


def _pair(side: int) -> Callable[[int, Picture], Shown]:
    return lambda index, picture: Shown(picture.name, (_as_input(_middle(picture.pixels, side)),), _middle(picture.clean, side))


def _alone(side: int) -> Callable[[int, Picture], Shown]:
    return lambda index, picture: Shown(picture.name, (_as_input(_middle(picture.pixels, side)),), None)


def _holed(draw: Drawer, side: int) -> Callable[[int, Picture], Shown | None]:
    def show(index: int, picture: Picture) -> Shown | None:
        clean = _middle(picture.clean, side)
        mask = draw(clean.shape[0], clean.shape[1], np.random.default_rng(index))
        if not mask.any() or mask.all():
            return None
        given = _as_input(clean)
        given[0, mask] = 0
        return Shown(picture.name, (given, mask[np.newaxis, :, :, np.newaxis].astype(np.float32)), clean)

    return show


def by_network(run: Run) -> Method:
    """What a network makes of a picture."""
    return lambda shown: to_8bit(run(*shown.inputs)[0])


def classical(task: str) -> dict[str, Method]:
    """What OpenCV has for the task."""
    import cv2

    if task == "denoise":
        return {"opencv-nlm": _non_local_means}
    return {"opencv-telea": _filled(cv2.INPAINT_TELEA), "opencv-ns": _filled(cv2.INPAINT_NS)}


def _non_local_means(shown: Shown) -> NDArray[np.uint8]:
    """Buades, Coll, Morel: A non-local algorithm for image denoising, CVPR 2005; its strength is the noise it finds."""
    import cv2

    strength = max(1.0, sigma_of(shown.inputs[0][0]))
    return np.asarray(cv2.fastNlMeansDenoisingColored(shown.untouched, None, strength, strength, 7, 21))


def sigma_of(pixels: NDArray[np.float32]) -> float:
    """The noise of a picture (h, w, 3) in 0..1, in grey levels, from its finest diagonal detail (Donoho, Johnstone 1994)."""
    even = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]
    detail = (even[::2, ::2] - even[1::2, ::2] - even[::2, 1::2] + even[1::2, 1::2]) / 2
    return float(np.median(np.abs(detail)) / 0.6745 * 255) if detail.size else 0.0


def _filled(flag: int) -> Method:
    def fill(shown: Shown) -> NDArray[np.uint8]:
        import cv2

        holes = shown.inputs[1][0, :, :, 0] > 0
        picture = shown.untouched
        picture[holes] = np.round(picture[~holes].mean(axis=0))  # at the edges of a picture OpenCV looks at what a hole holds
        return np.asarray(cv2.inpaint(picture, holes.astype(np.uint8), 3, flag))

    return fill


def chosen(pictures: Sequence[Picture], most: int = MOST_PICTURES) -> list[Picture]:
    """At most so many, evenly from all of them in their order."""
    return [pictures[place] for place in _spread(len(pictures), most)]


def _spread(count: int, most: int) -> Iterator[int]:
    taken = min(count, most)
    return (index * count // taken for index in range(taken))
