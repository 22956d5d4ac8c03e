"""The figures that a shipped model's manifest names are those that it reaches."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import MIXED, SIDE
from shared.models import manifest, registry
from tests.documents.pages import ROOT
from trainer import datasets, evaluation
from trainer.evaluation import PROTOCOL
from trainer.execution import Network
from trainer.execution.ensemble import averaged
from trainer.execution.openvino import OpenVinoExecutor

DATA = Path(os.environ.get("DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="module")
def cbsd68() -> list[datasets.Picture]:
    folder = DATA / "CBSD68"
    if not folder.is_dir():
        needed = f"{folder} is not there: name the folder of test pictures with DATA."
        if os.environ.get("CI") == "true":
            pytest.fail(needed)
        pytest.skip(needed)
    return [datasets.read(path) for path in datasets.picture_files(folder)]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Network]:
    executor = OpenVinoExecutor(tmp_path_factory.mktemp("networks"), "float32")
    return lambda name, version: executor.load(registry.shipped_artifact(name, version))


@pytest.fixture(scope="module")
def fast(networks: Callable[[str, int], Network]) -> Network:
    return networks("denoise-fast", 1)


def test_the_fast_denoiser_reaches_what_its_manifest_says_on_cbsd68(cbsd68: list[datasets.Picture], fast: Network) -> None:
    described = manifest.read(registry.shipped_artifact("denoise-fast", 1))
    evaluations = {(one["set"], one["protocol"]): one["rows"] for one in described.metrics["evaluations"]}
    (said,) = [row for row in evaluations["CBSD68", PROTOCOL] if row["sigma"] == 25]
    rows = evaluation.evaluate(fast.run, cbsd68, 25)
    found = evaluation.mean(rows, "output")
    assert len(rows) == said["images"] == 68
    assert found["psnr"] == pytest.approx(said["psnr"], abs=0.005)
    assert found["psnr"] >= 31.09
    assert found["ssim"] == pytest.approx(said["ssim"], abs=0.0005)
    assert np.min([row["output"]["psnr"] - row["input"]["psnr"] for row in rows]) > 5, "one of the pictures hardly gained"


def test_the_best_speed_earns_a_twentieth_of_a_decibel_on_cbsd68(cbsd68: list[datasets.Picture], fast: Network) -> None:
    normal, best = (
        evaluation.mean(evaluation.evaluate(run, cbsd68[::8], 25), "output") for run in (fast.run, averaged(fast.run, fast.multiple))
    )
    assert best["psnr"] >= normal["psnr"] + 0.05
    assert best["ssim"] > normal["ssim"]


def test_the_default_denoiser_is_better_than_the_fast_one(
    cbsd68: list[datasets.Picture], fast: Network, networks: Callable[[str, int], Network]
) -> None:
    better, good = (evaluation.mean(evaluation.evaluate(one.run, cbsd68[::8], 25), "output") for one in (networks("denoise", 2), fast))
    assert better["psnr"] >= good["psnr"] + 0.15
    assert better["ssim"] > good["ssim"]


def test_the_denoiser_for_real_pictures_gains_on_all_that_happens_to_them_and_leaves_clean_ones_alone(
    cbsd68: list[datasets.Picture], networks: Callable[[str, int], Network]
) -> None:
    methods = {"real": evaluation.by_network(networks("denoise-real", 1).run)}
    conditions = [evaluation.degraded(name, steps, SIDE, rounded=True) for name, steps in MIXED.items()]
    rows = [row for one in evaluation.report(methods, cbsd68[::17], conditions, "CBSD68") for row in one.rows]
    gains = {row["degradation"]: row["psnr"] - (row["input"]["psnr"] or 0) for row in rows}
    assert gains.pop("none") >= 45
    gains.pop("jpeg 95")
    assert set(gains) == set(MIXED) - {"none", "jpeg 95"}
    assert min(gains.values()) > 0.3, gains
