"""What every executor promises of every network; today TensorFlow and the shipped denoiser."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from demo.photos import noisy, photo
from shared.errors import Refused
from shared.imaging import metrics, tiles
from shared.models import manifest, registry
from trainer import artifact, networks
from trainer.execution import Network
from trainer.execution.tensorflow import TensorFlowExecutor, pad


@pytest.fixture(scope="module")
def denoise() -> Network:
    return TensorFlowExecutor().load(registry.shipped_artifact("denoise", 1))


def restored(network: Network, pixels: NDArray[np.uint8], whole_pixels: int = 10**9, tile: int = 1024) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    plan = tiles.plan(height, width, network.halo, network.multiple, whole_pixels, tile)
    out = pixels.copy()
    for part, kept in tiles.apply(network.run, pixels, plan):
        out[part.top : part.bottom, part.left : part.right] = kept
    return out


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 17), (7, 5), (8, 8), (31, 97), (64, 100)])
def test_any_height_and_width_comes_back_as_it_went(denoise: Network, height: int, width: int) -> None:
    batch = np.random.default_rng(0).random((2, height, width, 3), dtype=np.float32)
    output = denoise.run(batch)
    assert output.shape == batch.shape
    assert output.dtype == np.float32
    assert np.isfinite(output).all()


def test_a_batch_gives_what_its_pictures_give_one_by_one(denoise: Network) -> None:
    batch = np.random.default_rng(1).random((3, 40, 48, 3), dtype=np.float32)
    one_by_one = np.concatenate([denoise.run(batch[index : index + 1]) for index in range(3)])
    assert np.abs(denoise.run(batch) - one_by_one).max() < 1e-5


def test_tiled_and_whole_agree_to_60_db_on_a_noisy_photo(denoise: Network) -> None:
    pixels = noisy(photo("astronaut"))
    tiled = restored(denoise, pixels, whole_pixels=0, tile=128)
    assert metrics.compare(tiled, restored(denoise, pixels)).psnr >= 60


def test_grey_photos_come_back_grey_and_better(denoise: Network) -> None:
    clean = photo("camera")[:256, :256]
    before = noisy(clean)
    after = restored(denoise, before[:, :, np.newaxis])
    assert after.shape == (256, 256, 1)
    assert metrics.compare(after[:, :, 0], clean).psnr > metrics.compare(before, clean).psnr + 6


def test_a_clean_photo_is_hardly_touched(denoise: Network) -> None:
    clean = photo("coffee")[:256, :256]
    assert metrics.compare(restored(denoise, clean), clean).psnr > 34


def test_padding_mirrors_and_works_for_a_single_pixel() -> None:
    padded = pad(np.full((1, 1, 1, 3), 0.5, dtype=np.float32), 8)
    assert padded.shape == (1, 8, 8, 3)
    assert (padded == np.float32(0.5)).all()


@pytest.mark.parametrize("architecture", sorted(networks.ARCHITECTURES))
def test_every_architecture_says_a_multiple_that_its_halo_keeps(architecture: str) -> None:
    known = networks.ARCHITECTURES[architecture]
    config = known.config()
    assert known.halo(config) % known.multiple(config) == 0


def test_weights_that_are_not_the_manifests_are_refused(tmp_path: Path) -> None:
    shipped = registry.shipped_artifact("denoise", 1)
    (tmp_path / "manifest.json").write_text((shipped / "manifest.json").read_text(encoding="utf-8"), encoding="utf-8")
    data = bytearray((shipped / artifact.WEIGHTS).read_bytes())
    data[-1] ^= 1
    (tmp_path / artifact.WEIGHTS).write_bytes(data)
    with pytest.raises(Refused, match="not those its manifest names"):
        TensorFlowExecutor().load(tmp_path)


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    described = manifest.read(registry.shipped_artifact("denoise", 1))
    tensors, _ = artifact.read_tensors(registry.shipped_artifact("denoise", 1) / artifact.WEIGHTS)
    smaller = described.model_copy(update={"config": {"widths": (8, 16)}})
    artifact.publish(tmp_path, {name: tensor.astype(np.float32) for name, tensor in tensors.items()}, smaller)
    with pytest.raises(Refused, match="do not fit its network"):
        TensorFlowExecutor().load(tmp_path)
