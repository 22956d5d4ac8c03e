"""`python -m benchmarks.quality` on whatever a folder of clean pictures holds."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks.quality import by_share, main
from demo.photos import photo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Grey, palette, CMYK, alpha, 16 bit; odd sizes, and hardly any."""
    clean = Image.fromarray(photo("coffee")[100:151, 200:267])
    clean.save(tmp_path / "a.png")
    clean.convert("L").save(tmp_path / "b.tif")
    clean.convert("P").save(tmp_path / "c.png")
    clean.convert("CMYK").save(tmp_path / "d.jpg", quality=95)
    clean.convert("LA").save(tmp_path / "e.webp", lossless=True)
    Image.fromarray(np.asarray(clean.convert("L"), np.uint16) * 257).save(tmp_path / "f.png")
    clean.crop((0, 0, 3, 2)).save(tmp_path / "g.bmp")
    clean.crop((0, 0, 1, 1)).save(tmp_path / "h.png")
    return tmp_path


def test_pictures_of_any_size_and_mode_are_scored(folder: Path) -> None:
    out = folder / "out"
    out.mkdir()
    options = ["--sigmas", "25", "--models", "denoise@1 inpaint@1", "--masks", "boxes pixels-50", "--mixed"]
    done = CliRunner(catch_exceptions=False).invoke(
        main, [str(folder), *options, "--json", str(out / "rows.json"), "--plot", str(out / "plot.svg")]
    )
    assert done.exit_code == 0, done.output
    assert "2 with less than 8 pixels a side are left out" in done.output
    found = json.loads((out / "rows.json").read_text())
    assert found["images"] == 6
    at_25 = {row["method"]: row for row in found["rows"] if row.get("sigma") == 25}
    assert set(at_25) >= {"denoise@1", "opencv-nlm", "skimage-nlm", "skimage-wavelet", "skimage-tv"}
    assert at_25["denoise@1"]["psnr"] > max(row["psnr"] for name, row in at_25.items() if name != "denoise@1")
    holes = {row["method"] for row in found["rows"] if row.get("mask") == "boxes"}
    assert holes == {"inpaint@1", "opencv-telea", "opencv-ns", "skimage-biharmonic"}
    assert all(row["mpx_per_s"] > 0 for row in found["rows"])
    names = {text.text for text in ElementTree.parse(out / "plot.svg").iter("{http://www.w3.org/2000/svg}text")}  # noqa: S314
    assert set(at_25) <= names


def test_a_model_that_is_not_shipped_is_told(folder: Path) -> None:
    done = CliRunner().invoke(main, [str(folder), "--models", "denoise@99"])
    assert done.exit_code == 2
    assert "denoise@99 is none of denoise@1, denoise@2, denoise-fast@1" in done.output


def test_means_by_share_are_of_all_kinds_of_holes() -> None:
    def row(share: float, psnr: float | None) -> dict[str, object]:
        return {"method": "m", "share": share, "psnr": psnr, "ssim": 0.5, "hole": {"psnr": psnr, "ssim": 0.5}}

    found = by_share([row(0.001, 40.0), row(0.01, 20.0), row(0.011, None), row(0.9, 10.0)])
    assert [(one["share_up_to"], one["psnr"], one["images"]) for one in found] == [(0.01, 30.0, 2), (0.05, None, 1), (1.0, 10.0, 1)]
