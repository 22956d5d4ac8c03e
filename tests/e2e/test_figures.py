"""The figures that a shipped model's manifest names are those that it reaches."""

import os
from pathlib import Path

import numpy as np
import pytest

from shared.models import manifest, registry
from tests.documents.pages import ROOT
from trainer import datasets, evaluation
from trainer.__main__ import PROTOCOL
from trainer.execution.tensorflow import TensorFlowExecutor

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


def test_the_shipped_denoiser_reaches_what_its_manifest_says_on_cbsd68(cbsd68: list[datasets.Picture]) -> None:
    folder = registry.shipped_artifact("denoise", 1)
    evaluations = {(one["set"], one["protocol"]): one["rows"] for one in manifest.read(folder).metrics["evaluations"]}
    (said,) = [row for row in evaluations["CBSD68", PROTOCOL] if row["sigma"] == 25]
    network = TensorFlowExecutor().load(folder)
    rows = evaluation.evaluate(network.run, cbsd68, 25)
    found = evaluation.mean(rows, "output")
    assert len(rows) == said["images"] == 68
    assert found["psnr"] == pytest.approx(said["psnr"], abs=0.005)
    assert found["ssim"] == pytest.approx(said["ssim"], abs=0.0005)
    assert np.min([row["output"]["psnr"] - row["input"]["psnr"] for row in rows]) > 5, "one of the pictures hardly gained"
