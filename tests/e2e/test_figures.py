"""The figures that a shipped model's manifest names are those that it reaches."""

import os
from pathlib import Path

import numpy as np
import pytest

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
def denoise(tmp_path_factory: pytest.TempPathFactory) -> Network:
    found: Network = OpenVinoExecutor(tmp_path_factory.mktemp("networks"), "float32").load(registry.shipped_artifact("denoise", 1))
    return found


def test_the_shipped_denoiser_reaches_what_its_manifest_says_on_cbsd68(cbsd68: list[datasets.Picture], denoise: Network) -> None:
    evaluations = {
        (one["set"], one["protocol"]): one["rows"] for one in manifest.read(registry.shipped_artifact("denoise", 1)).metrics["evaluations"]
    }
    (said,) = [row for row in evaluations["CBSD68", PROTOCOL] if row["sigma"] == 25]
    rows = evaluation.evaluate(denoise.run, cbsd68, 25)
    found = evaluation.mean(rows, "output")
    assert len(rows) == said["images"] == 68
    assert found["psnr"] == pytest.approx(said["psnr"], abs=0.005)
    assert found["psnr"] >= 30.9
    assert found["ssim"] == pytest.approx(said["ssim"], abs=0.0005)
    assert np.min([row["output"]["psnr"] - row["input"]["psnr"] for row in rows]) > 5, "one of the pictures hardly gained"


def test_the_best_speed_earns_a_twentieth_of_a_decibel_on_cbsd68(cbsd68: list[datasets.Picture], denoise: Network) -> None:
    normal, best = (
        evaluation.mean(evaluation.evaluate(run, cbsd68[::8], 25), "output")
        for run in (denoise.run, averaged(denoise.run, denoise.multiple))
    )
    assert best["psnr"] >= normal["psnr"] + 0.05
    assert best["ssim"] > normal["ssim"]
