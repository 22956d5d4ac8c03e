"""What every executor promises of every network: TensorFlow and OpenVINO, each registered architecture, and the shipped denoiser."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from demo.photos import noisy, photo
from shared.errors import Fault, Refused
from shared.imaging import metrics, tiles
from shared.models import manifest, registry
from shared.models.manifest import Manifest
from tests.documents.pages import ROOT
from trainer import artifact, datasets, evaluation, networks
from trainer.execution import Described, Executor, Network, choice, export, pad
from trainer.execution.classic import ClassicExecutor
from trainer.execution.ensemble import averaged
from trainer.execution.openvino import OpenVinoExecutor, native_bfloat16
from trainer.execution.tensorflow import TensorFlowExecutor

DATA = Path(os.environ.get("DATA", ROOT.parent / "shared" / "data"))
SMALL: dict[str, dict[str, Any]] = {
    "dncnn": {"depth": 5, "width": 8},
    "inpaint-unet": {"widths": (8, 16), "blocks": 1},
    "nafnet": {"width": 8, "encoder": (1, 1), "middle": 1, "decoder": (1, 1)},
    "unet": {"widths": (8, 16), "blocks": 1},
}
EXECUTORS = ("tensorflow", "openvino")


@dataclass(frozen=True)
class Made:
    """An artifact of some architecture with random weights, small enough that its output stays near its input."""

    artifact: Path
    channels: list[int]


def publish(folder: Path, architecture: str, config: dict[str, Any], seed: int = 0) -> Made:
    model = networks.build(architecture, config)
    generator = np.random.default_rng(seed)
    weights = {variable.path: generator.normal(0, 0.1, tuple(variable.shape)).astype(np.float32) for variable in model.variables}
    described = Manifest(
        schema=1, name=architecture, version=1, task="denoise" if len(model.inputs) == 1 else "inpaint",
        architecture=architecture, config=config, weights_sha256="0" * 64, parameters=1,
        created_at="2026-01-01T00:00:00Z", base=None, recipe={}, data=[], metrics={}, licence="",
    )  # fmt: skip
    artifact.publish(folder, weights, described)
    return Made(folder, [given.shape[-1] for given in model.inputs])


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(scope="module", params=sorted(networks.ARCHITECTURES))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return publish(tmp_path_factory.mktemp("model") / f"{request.param}@1", request.param, SMALL[request.param])


def executor(name: str, cached: Path, precision: str = "float32") -> Executor:
    return OpenVinoExecutor(cached, precision) if name == "openvino" else TensorFlowExecutor(precision)


@pytest.fixture(scope="module", params=EXECUTORS)
def denoise(request: pytest.FixtureRequest, cached: Path) -> Network:
    return executor(request.param, cached).load(registry.shipped_artifact("denoise", 1))


def restored(
    network: Network, pixels: NDArray[np.uint8], whole_pixels: int = 10**9, tile: int = 1024, best: bool = False
) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    plan = tiles.plan(height, width, network.halo, network.multiple, whole_pixels, tile)
    out = pixels.copy()
    for part, kept in tiles.apply(averaged(network.run, network.multiple) if best else network.run, pixels, plan):
        out[part.top : part.bottom, part.left : part.right] = kept
    return out


def test_every_architecture_gives_the_same_on_both_executors_for_any_size_and_batch(made: Made, cached: Path) -> None:
    one, other = (executor(name, cached).load(made.artifact) for name in EXECUTORS)
    assert (one.multiple, one.bytes_per_pixel) == (other.multiple, other.bytes_per_pixel)
    assert [one.described.executor, other.described.executor] == list(EXECUTORS), "OpenVINO handed it to TensorFlow"
    changed = 0.0
    for height, width, count in ((1, 1, 1), (1, 17, 2), (7, 5, 1), (64, 100, 3), (131, 97, 1)):
        inputs = export.sample(made.channels, height, width, count)
        before = [given.copy() for given in inputs]
        outputs = [network.run(*inputs) for network in (one, other)]
        assert all(np.array_equal(given, was) for given, was in zip(inputs, before, strict=True)), "an input was written to"
        assert [output.dtype for output in outputs] == [np.float32] * 2
        assert outputs[0].shape == outputs[1].shape == inputs[0].shape
        assert np.abs(outputs[0] - outputs[1]).max() < 1e-5
        changed = max(changed, float(np.abs(outputs[0] - inputs[0]).max()))
    assert changed > 1e-3, "the network does nothing: the comparison was empty"


def test_what_comes_out_of_a_call_is_not_overwritten_by_the_next(made: Made, cached: Path) -> None:
    for name in EXECUTORS:
        network = executor(name, cached).load(made.artifact)
        first = network.run(*export.sample(made.channels, 40, 48))
        kept = first.copy()
        network.run(*(1 - given for given in export.sample(made.channels, 40, 48)))
        assert np.array_equal(first, kept)


def test_what_is_not_masked_comes_out_of_an_inpainting_network_bit_for_bit(tmp_path: Path, cached: Path) -> None:
    made = publish(tmp_path / "inpaint-unet@1", "inpaint-unet", SMALL["inpaint-unet"])
    picture, mask = export.sample(made.channels, 61, 75)
    for name in EXECUTORS:
        filled = executor(name, cached).load(made.artifact).run(picture, mask)
        known = np.broadcast_to(mask == 0, picture.shape)
        assert np.array_equal(filled[known], picture[known])
        assert not np.allclose(filled[~known], picture[~known])


def test_the_shipped_denoiser_is_the_same_on_both_executors(cached: Path) -> None:
    before = (noisy(photo("chelsea"))[np.newaxis] / 255).astype(np.float32)
    one, other = (executor(name, cached).load(registry.shipped_artifact("denoise", 1)).run(before) for name in EXECUTORS)
    assert np.abs(one - other).max() < 1e-5


@pytest.mark.parametrize("name", EXECUTORS)
def test_bfloat16_costs_less_than_a_fiftieth_of_a_decibel_on_cbsd68(name: str, cached: Path) -> None:
    if name == "openvino" and not native_bfloat16():  # TensorFlow emulates it
        pytest.skip("this processor has no bfloat16 of its own, and OpenVINO then calculates in float32")
    folder = DATA / "CBSD68"
    if not folder.is_dir():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            f"{folder} is not there: name the folder of test pictures with DATA."
        )
    pictures = [datasets.read(path) for path in datasets.picture_files(folder)[::4]]
    exact, network = (
        executor(name, cached, precision).load(registry.shipped_artifact("denoise", 1)) for precision in ("float32", "bfloat16")
    )
    assert network.described.precision == "bfloat16"
    wanted, found = (evaluation.mean(evaluation.evaluate(one.run, pictures, 25), "output")["psnr"] for one in (exact, network))
    assert found == pytest.approx(wanted, abs=0.02)


def test_a_batch_gives_what_its_pictures_give_one_by_one(denoise: Network) -> None:
    batch = np.random.default_rng(1).random((3, 40, 48, 3), dtype=np.float32)
    one_by_one = np.concatenate([denoise.run(batch[index : index + 1]) for index in range(3)])
    assert np.abs(denoise.run(batch) - one_by_one).max() < 1e-5


def test_tiled_and_whole_agree_to_60_db_on_a_noisy_photo(denoise: Network) -> None:
    pixels = noisy(photo("astronaut"))
    tiled = restored(denoise, pixels, whole_pixels=0, tile=128)
    assert metrics.compare(tiled, restored(denoise, pixels)).psnr >= 60


def test_tiled_and_whole_agree_at_the_best_speed_too_whatever_the_size(denoise: Network) -> None:
    pixels = noisy(photo("chelsea"))[:237, :251]  # no multiples of the network's own
    tiled = restored(denoise, pixels, whole_pixels=0, tile=128, best=True)
    assert metrics.compare(tiled, restored(denoise, pixels, best=True)).psnr >= 60


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


@pytest.mark.parametrize("name", EXECUTORS)
def test_weights_that_are_not_the_manifests_are_refused(name: str, tmp_path: Path) -> None:
    shipped = registry.shipped_artifact("denoise", 1)
    (tmp_path / "manifest.json").write_text((shipped / "manifest.json").read_text(encoding="utf-8"), encoding="utf-8")
    data = bytearray((shipped / artifact.WEIGHTS).read_bytes())
    data[-1] ^= 1
    (tmp_path / artifact.WEIGHTS).write_bytes(data)
    with pytest.raises(Refused, match="not those its manifest names"):
        executor(name, tmp_path / "networks").load(tmp_path)


@pytest.mark.parametrize("name", EXECUTORS)
def test_weights_of_another_network_are_refused_by_name(name: str, tmp_path: Path) -> None:
    described = manifest.read(registry.shipped_artifact("denoise", 1))
    tensors, _ = artifact.read_tensors(registry.shipped_artifact("denoise", 1) / artifact.WEIGHTS)
    smaller = described.model_copy(update={"config": {"widths": (8, 16)}})
    artifact.publish(tmp_path, {name: tensor.astype(np.float32) for name, tensor in tensors.items()}, smaller)
    with pytest.raises(Refused, match="do not fit its network"):
        executor(name, tmp_path / "networks").load(tmp_path)


def test_a_batch_that_the_device_cannot_hold_is_halved_and_one_picture_too_many_is_a_clear_failure() -> None:
    import tensorflow as tf

    class Device:
        """Room for two pictures of 8 × 8, as a GPU has room for some."""

        inputs = (np.zeros((1, 8, 8, 3), np.float32),)

        def __call__(self, batch: Any, training: bool) -> Any:
            def held(values: NDArray[np.float32]) -> NDArray[np.float32]:
                if values.shape[0] * values.shape[1] * values.shape[2] > 2 * 8 * 8:
                    raise MemoryError  # TensorFlow makes its ResourceExhaustedError of it
                return values + np.float32(1)

            return tf.numpy_function(held, [batch], tf.float32, stateful=False)

    from trainer.execution.tensorflow import TensorFlowNetwork

    network = TensorFlowNetwork(Device(), 1, 8, 24, Described("tensorflow", "float32", "gpu"))
    batch = np.random.default_rng(0).random((7, 8, 8, 3), dtype=np.float32)
    assert np.array_equal(network.run(batch), batch + 1)
    with pytest.raises(Fault) as refused:
        network.run(np.zeros((1, 8, 17, 3), np.float32))
    assert refused.value.code == "out_of_memory"
    assert "17 × 8 pixels" in refused.value.detail


# -- classical methods, behind the same seam ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classic(cached: Path) -> Network:
    shipped = registry.shipped_artifact("inpaint-classic", 1)
    fitting = choice.Fitting(OpenVinoExecutor(cached, "float32"))
    assert fitting.describe().executor == fitting.load(registry.shipped_artifact("denoise", 1)).described.executor == "openvino"
    network = fitting.load(shipped)
    assert network.described == ClassicExecutor().describe() == Described("opencv", "float32", "cpu")
    return network


def holed(height: int, width: int, channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    picture, mask = export.sample([channels, 1], height, width)
    mask[:] = 0
    mask[:, height // 4 : height // 2, width // 3 : width // 2] = 1
    return picture, mask


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 17), (2, 2), (7, 5), (64, 100), (131, 97)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_classical_filler_keeps_what_is_known_for_any_size_and_gives_numbers(
    classic: Network, height: int, width: int, channels: int
) -> None:
    picture, mask = holed(height, width, channels)
    before = picture.copy()
    filled = classic.run(picture, mask)
    known = np.broadcast_to(mask == 0, picture.shape)
    assert filled.shape == picture.shape
    assert filled.dtype == np.float32
    assert np.array_equal(picture, before), "an input was written to"
    assert np.array_equal(filled[known], picture[known])
    assert np.isfinite(filled).all()


def test_the_classical_filler_continues_a_slope_and_forgets_what_a_hole_held(classic: Network) -> None:
    slope = np.broadcast_to(np.linspace(0, 1, 60, dtype=np.float32)[:, np.newaxis, np.newaxis], (1, 60, 60, 3)).copy()
    mask = np.zeros((1, 60, 60, 1), np.float32)
    mask[:, 20:40, 25:35] = 1
    one, other = (classic.run(np.where(mask > 0, np.float32(held), slope), mask) for held in (0, 1))
    assert np.array_equal(one, other)
    assert np.abs(one - slope).max() < 0.1


def test_holes_by_themselves_are_filled_exactly_as_in_the_whole_picture(classic: Network) -> None:
    pixels = np.asarray(photo("astronaut"))
    holes = np.zeros(pixels.shape[:2], bool)
    holes[100:180, 90:170] = holes[0:4, :200] = holes[400:403, 480:] = holes[511, 0] = True
    halo = 8  # more than the filler looks
    outputs = []
    for plan in (tiles.around(holes, halo, 1), [tiles.Tile(0, 512, 0, 512, 0, 512, 0, 512)]):
        out = pixels.copy()
        for part, kept in tiles.apply(classic.run, pixels, plan, holes):
            out[part.top : part.bottom, part.left : part.right] = kept
        outputs.append(out)
    assert len(tiles.around(holes, halo, 1)) == 3, "the comparison is empty"
    assert np.array_equal(outputs[0], outputs[1])


def test_a_classical_method_s_config_is_checked(tmp_path: Path) -> None:
    described = manifest.read(registry.shipped_artifact("inpaint-classic", 1))
    (tmp_path / "manifest.json").write_text(manifest.dump(described.model_copy(update={"config": {"radius": 99}})), encoding="utf-8")
    with pytest.raises(Refused, match="artifact_invalid"):
        ClassicExecutor().load(tmp_path)
