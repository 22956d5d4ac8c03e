"""`python -m benchmarks.quality FOLDER`: how good the shipped models are beside classical methods, and how fast, on any clean pictures.

Noise and holes are those of the quality protocol (trainer/evaluation.py), the same in every run. Methods are blind: what they need to
know of the noise they estimate. One picture after the other in this process; speed is pixels by seconds within the calls, but for the
first of each condition. For speed beside DnCNN there is `benchmarks.engine`.
"""

import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import plot
from shared.models import registry
from shared.models.manifest import Manifest
from shared.trainings.recipe import Degradation, Gaussian, Grain, Jpeg, PoissonGaussian, Recipe, SaltPepper, Speckle
from trainer import datasets, evaluation, masks
from trainer.datasets import Picture
from trainer.evaluation import Condition, Method, Shown
from trainer.execution import choice

LEAST, SIDE = 8, 1024  # pixels a side: smaller pictures are left out, of larger ones the middle is taken
SHARES = (0.01, 0.05, 0.2, 0.5, 1.0)  # of a picture that is missing: up to so much
MIXED: dict[str, list[Degradation]] = {
    "none": [Gaussian(sigma=0.0)],
    "gaussian 2": [Gaussian(sigma=2.0)],
    "gaussian 15": [Gaussian(sigma=15.0)],
    "gaussian 25": [Gaussian(sigma=25.0)],
    "poisson-gaussian": [PoissonGaussian(photons=100.0, sigma=3.0)],
    "speckle": [Speckle(sigma=0.15)],
    "grain": [Grain(sigma=12.0, radius=1.0)],
    "salt-pepper": [SaltPepper(share=0.02)],
    "jpeg 95": [Jpeg(quality=95.0)],
    "jpeg 80": [Jpeg(quality=80.0)],
    "jpeg 50": [Jpeg(quality=50.0)],
    "jpeg 30": [Jpeg(quality=30.0)],
    "noisy jpeg": [PoissonGaussian(photons=200.0, sigma=3.0), Jpeg(quality=70.0)],
}

# -- classical methods ------------------------------------------------------------------------------------------------------


def _picture(shown: Shown) -> NDArray[np.float32]:
    """(h, w, 3) in about 0..1, as it is given to a network."""
    return np.asarray(shown.inputs[0][0])


def _sigma(shown: Shown) -> float:
    """Of its noise, estimated, in units of 0..1."""
    return evaluation.sigma_of(_picture(shown)) / 255


def _nlm(shown: Shown) -> NDArray[np.uint8]:
    """Buades, Coll, Morel 2005; strength as its documentation advises."""
    from skimage.restoration import denoise_nl_means

    sigma = _sigma(shown)
    how = {"patch_size": 5, "patch_distance": 6, "h": max(0.8 * sigma, 1e-3), "sigma": sigma, "fast_mode": True, "channel_axis": -1}
    return evaluation.to_8bit(denoise_nl_means(_picture(shown), **how))


def _wavelet(shown: Shown) -> NDArray[np.uint8]:
    """Chang, Yu, Vetterli 2000 (BayesShrink)."""
    from skimage.restoration import denoise_wavelet

    return evaluation.to_8bit(denoise_wavelet(_picture(shown), convert2ycbcr=True, channel_axis=-1, rescale_sigma=True))


def _total_variation(shown: Shown) -> NDArray[np.uint8]:
    """Chambolle 2004; its weight is the noise."""
    from skimage.restoration import denoise_tv_chambolle

    return evaluation.to_8bit(denoise_tv_chambolle(_picture(shown), weight=max(_sigma(shown), 1e-3), channel_axis=-1))


def _bm3d(shown: Shown) -> NDArray[np.uint8]:
    """Dabov et al. 2007, by its authors. Not a dependency."""
    import bm3d  # type: ignore[import-not-found, unused-ignore]

    return evaluation.to_8bit(np.asarray(bm3d.bm3d_rgb(_picture(shown), max(_sigma(shown), 1 / 255)), np.float32))


def _biharmonic(shown: Shown) -> NDArray[np.uint8]:
    """Damelin, Hoang 2018."""
    from skimage.restoration import inpaint_biharmonic

    return evaluation.to_8bit(np.asarray(inpaint_biharmonic(_picture(shown), shown.hole, channel_axis=-1), np.float32))


def classical(task: str) -> dict[str, Method]:
    """By name: OpenCV's, scikit-image's, and BM3D if it is installed."""
    if task == "inpaint":
        return evaluation.classical(task) | {"skimage-biharmonic": _biharmonic}
    found = evaluation.classical(task) | {"skimage-nlm": _nlm, "skimage-wavelet": _wavelet, "skimage-tv": _total_variation}
    with suppress(ImportError):
        import bm3d  # type: ignore[import-not-found, unused-ignore]  # noqa: F401

        found["bm3d"] = _bm3d
    return found


# -- measuring --------------------------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """A method, and how long its calls took but for the first."""

    method: Method
    pixels: int = -1
    seconds: float = 0.0

    def __call__(self, shown: Shown) -> NDArray[np.uint8]:
        """What the method makes of it."""
        began = time.perf_counter()
        made = self.method(shown)
        if self.pixels < 0:
            self.pixels = 0
        else:
            self.seconds += time.perf_counter() - began
            self.pixels += made.shape[0] * made.shape[1]
        return made

    @property
    def mpx_per_s(self) -> float | None:
        """None for a single call."""
        return self.pixels / self.seconds / 1e6 if self.seconds else None


def measured(
    methods: Mapping[str, Method], pictures: Sequence[Picture], named: str, conditions: Sequence[Condition]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(means, with the speed of each method; pictures), rows as those of a report."""
    rows, images = [], []
    for condition in conditions:
        watched = {name: Watched(method) for name, method in methods.items()}
        for report in evaluation.report(watched, pictures, [condition], named):
            for row in report.rows:
                rows.append({"protocol": report.protocol, **row, "mpx_per_s": watched[row["method"]].mpx_per_s})
                print(line(rows[-1]), flush=True)
            images += report.images
    return rows, images


def by_share(images: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means of each method over pictures of which about as much is missing, whatever the kind of hole."""
    groups: dict[tuple[float, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in images:
        groups[next(most for most in SHARES if row["share"] <= most), row["method"]].append(row)
    return [
        {
            "share_up_to": most, "method": method, "images": len(rows), **_means(rows),
            "hole": _means([row["hole"] for row in rows]),
        }
        for (most, method), rows in sorted(groups.items(), key=lambda group: group[0][0])
    ]  # fmt: skip


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    known = {name: [row[name] for row in rows if row[name] is not None] for name in ("psnr", "ssim")}
    return {name: fmean(values) if values else None for name, values in known.items()}


# -- showing ----------------------------------------------------------------------------------------------------------------


def line(row: Mapping[str, Any]) -> str:
    """A row as it is printed."""
    told = next(told.format(row[name]) for name, told in CONDITIONS.items() if name in row)
    hole, given = row.get("hole"), row.get("input")
    behind = f"   hole {_figure(hole)}" if hole else f"   input {_figure(given)}" if given else ""
    speed = f"{row['mpx_per_s']:8.3f} Mpx/s" if row.get("mpx_per_s") else " " * 14
    return f"{told:<18} {row['method']:<20} {_figure(row)}{speed}{behind}"


CONDITIONS = {"sigma": "σ {:g}", "mask": "{}", "degradation": "{}", "share_up_to": "up to {:.0%}"}


def _figure(of: Mapping[str, Any]) -> str:
    psnr = "     –" if of["psnr"] is None else f"{of['psnr']:6.2f}"
    return f"{psnr} dB {of['ssim'] or 0:.4f}"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--models", help="References of shipped models, with spaces between; by default all that have weights.")
@click.option("--sigmas", default="15 25 50", show_default=True, help="Levels of noise, in grey levels of 0 to 255.")
@click.option("--masks", "kinds", default=" ".join(masks.DRAWN), show_default=True, help="Kinds of holes.")
@click.option("--film", type=click.Path(path_type=Path), help="A folder of grey pictures of damage: one more kind of hole.")
@click.option("--mixed", is_flag=True, help="For denoisers, besides: clean pictures, faint noise, JPEG, and what cameras and scanners add.")
@click.option("--classics/--no-classics", default=True, show_default=True, help="Measure classical methods too.")
@click.option("--most", type=int, help="Pictures, evenly from all; by default all.")
@click.option("--precision", default="float32", show_default=True, type=click.Choice(["float32", "bfloat16"]))
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all rows there too.")
@click.option("--plot", "plot_path", type=click.Path(path_type=Path), help="Draw quality by speed there, as SVG.")
def main(
    folder: Path, models: str | None, sigmas: str, kinds: str, film: Path | None, mixed: bool, classics: bool, most: int | None,
    precision: str, json_path: Path | None, plot_path: Path | None,
) -> None:  # fmt: skip
    """Score on the clean pictures of FOLDER, of any size and mode."""
    chosen = _chosen(models)
    there = [datasets.read(path) for path in datasets.picture_files(folder)]
    large = [one for one in there if min(one.pixels.shape[:2]) >= LEAST]
    if not large:
        raise click.UsageError(f"{folder} holds no picture with at least {LEAST} pixels a side.")
    pictures = evaluation.chosen(large, most or len(large))
    levels = [float(word) for word in sigmas.split()]
    wanted: dict[str, list[Condition]] = {
        "denoise": [
            *evaluation.conditions(Recipe(), levels, SIDE),
            *(evaluation.degraded(name, steps, SIDE, rounded=True) for name, steps in MIXED.items() if mixed),
        ],
        "inpaint": [
            *(evaluation.holes(kind, masks.drawer(kind), SIDE) for kind in kinds.split()),
            *([evaluation.holes("film", masks.film(film), SIDE)] if film else []),
        ],
    }
    found: dict[str, Any] = {"folder": folder.name, "images": len(pictures), "precision": precision, "rows": [], "by_share": []}
    print(f"{folder.name}: {len(pictures)} pictures")
    if len(large) < len(there):
        print(f"{len(there) - len(large)} with less than {LEAST} pixels a side are left out: wavelets know nothing of them.")
    print()
    with tempfile.TemporaryDirectory(prefix="lacuna-bench-") as cached:
        executor = choice.Fitting(choice.choose("auto", Path(cached), precision))
        for task in dict.fromkeys(one.task for one in chosen):
            methods = {one.reference: evaluation.by_network(executor.load(registry.shipped_artifact(one.name, one.version)).run)
                       for one in chosen if one.task == task}  # fmt: skip
            rows, images = measured(methods | (classical(task) if classics else {}), pictures, folder.name, wanted[task])
            found["rows"] += [{"task": task, **row} for row in rows]
            if task == "inpaint":
                print("\nBy the share that is missing, over all kinds of holes:")
                found["by_share"] = by_share(images)
                print("\n".join(map(line, found["by_share"])))
            print()
    if json_path is not None:
        json_path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if plot_path is not None:
        middle = levels[len(levels) // 2]
        points = [plot.Point(row["method"], row["mpx_per_s"], row["psnr"], row["method"] in {one.reference for one in chosen})
                  for row in found["rows"] if row.get("sigma") == middle and row["mpx_per_s"]]  # fmt: skip
        title = f"{folder.name}, {len(pictures)} pictures, noise of σ {middle:g}"
        plot_path.write_text(plot.svg(points, title, f"Mpx/s on {os.cpu_count()} cores", "PSNR in dB"), encoding="utf-8")


def _chosen(models: str | None) -> list[Manifest]:
    shipped = {one.reference: one for one in registry.shipped()}
    if models is None:
        return [one for one in shipped.values() if one.parameters]
    unknown = [name for name in models.split() if name not in shipped]
    if unknown:
        raise click.BadParameter(f"{unknown[0]} is none of {', '.join(shipped)}.", param_hint="--models")
    return [shipped[name] for name in models.split()]


if __name__ == "__main__":
    main()
