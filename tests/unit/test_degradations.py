"""What training does to clean pictures: seeded, in order, and with the figures it says."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from shared.trainings.recipe import Blur, Degradation, Gaussian, Grain, Jpeg, Mixed, PoissonGaussian, SaltPepper, Speckle
from trainer import degradations

EVERY: list[Any] = [Gaussian(), PoissonGaussian(), Jpeg(), SaltPepper(), Speckle(), Blur(), Grain(), Mixed()]


def crop(side: int = 64, channels: int = 3) -> NDArray[np.float32]:
    """A smooth slope with a square on it."""
    slope = np.linspace(0.2, 0.8, side, dtype=np.float32)
    made = np.repeat((slope[:, np.newaxis] * np.ones(side, np.float32))[:, :, np.newaxis], channels, axis=2)
    made[side // 4 : side // 2, side // 4 : side // 2] = 0.9
    return made


def flat(value: float, side: int = 128) -> NDArray[np.float32]:
    return np.full((side, side, 3), value, np.float32)


def test_every_kind_of_a_recipe_can_be_done() -> None:
    kinds = TypeAdapter(Degradation).json_schema()["discriminator"]["mapping"]
    assert set(kinds) == set(degradations.STEPS) == {step.kind for step in EVERY}


@pytest.mark.parametrize("step", EVERY, ids=lambda step: step.kind)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_seed_gives_the_same_and_another_seed_another(step: Any, channels: int) -> None:
    given = crop(channels=channels)
    before = given.copy()
    one, again, other = (degradations.apply(step, given, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert one.shape == given.shape
    assert one.dtype == np.float32
    assert np.array_equal(given, before), "the clean picture was written to"


def test_gaussian_noise_has_the_level_it_says_and_is_not_clipped() -> None:
    noisy = degradations.apply(Gaussian(sigma=(25, 25)), flat(0.0), np.random.default_rng(0))
    assert np.std(noisy * 255) == pytest.approx(25, rel=0.02)
    assert noisy.min() < 0


def test_shot_noise_grows_with_the_light_and_read_noise_is_added_to_it() -> None:
    step = PoissonGaussian(photons=(100, 100), sigma=(5.1, 5.1))
    for light in (0.1, 0.4, 0.9):
        noisy = degradations.apply(step, flat(light), np.random.default_rng(1))
        assert noisy.mean() == pytest.approx(light, abs=0.003)
        assert np.var(noisy) == pytest.approx(light / 100 + 0.02**2, rel=0.05)


def test_speckle_is_in_proportion_to_the_light() -> None:
    for light in (0.2, 0.8):
        assert np.std(degradations.apply(Speckle(sigma=(0.3, 0.3)), flat(light), np.random.default_rng(2))) == pytest.approx(
            0.3 * light, rel=0.02
        )


def test_salt_and_pepper_hit_the_share_they_say_in_all_channels_half_black_half_white() -> None:
    noisy = degradations.apply(SaltPepper(share=(0.2, 0.2)), flat(0.5), np.random.default_rng(3))
    assert np.ptp(noisy, axis=2).max() == 0
    assert (noisy == 0).mean() == pytest.approx(0.1, abs=0.01)
    assert (noisy == 1).mean() == pytest.approx(0.1, abs=0.01)


def test_jpeg_is_what_pillow_makes_of_it_with_blocks_that_begin_anywhere() -> None:
    given, places = np.random.default_rng(0).random((24, 24, 3), dtype=np.float32), set()
    for seed in range(3):
        found = degradations.apply(Jpeg(quality=(40, 40)), given, np.random.default_rng(seed))
        (place,) = [(top, left) for top in range(16) for left in range(16) if np.array_equal(found, packed(given, top, left))]
        places.add(place)
    assert len(places) == 3


def packed(given: NDArray[np.float32], top: int, left: int) -> NDArray[np.float32]:
    """As JPEG behind so many rows and columns more."""
    levels = np.pad(np.round(given * 255).astype(np.uint8), ((top, 0), (left, 0), (0, 0)), mode="edge")
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file), np.float32)[top:, left:] / np.float32(255)


def test_blur_keeps_the_mean_and_takes_the_edges() -> None:
    given = crop()
    blurred = degradations.apply(Blur(sigma=(2, 2)), given, np.random.default_rng(0))
    assert blurred.mean() == pytest.approx(given.mean(), abs=0.01)
    assert np.abs(np.diff(blurred, axis=0)).max() < 0.5 * np.abs(np.diff(given, axis=0)).max()


def test_grain_has_the_level_it_says_and_neighbours_share_it() -> None:
    for radius in (0.8, 1.0, 2.0):
        grain = degradations.apply(Grain(sigma=20, radius=radius), flat(0.5, 256), np.random.default_rng(0)) - 0.5
        assert np.std(grain * 255) == pytest.approx(20, rel=0.05)
        along = np.corrcoef(grain[:, :-1].ravel(), grain[:, 1:].ravel())[0, 1]
        assert along == pytest.approx(np.exp(-1 / (4 * radius**2)), abs=0.04)


def test_half_of_the_grain_is_grey() -> None:
    grains = [degradations.apply(Grain(sigma=20), flat(0.5, 16), np.random.default_rng(seed)) for seed in range(60)]
    assert 20 <= sum(float(np.ptp(grain, axis=2).max()) == 0 for grain in grains) <= 40


def test_steps_are_done_in_the_order_of_the_recipe() -> None:
    noise, blur = Gaussian(sigma=(25, 25)), Blur(sigma=(2, 2))
    orders: list[list[Degradation]] = [[blur, noise], [noise, blur]]
    clean = flat(0.5)[np.newaxis]
    left = [np.std(degradations.degrade(clean, steps, 0, 0, np.random.default_rng(0))[0] * 255) for steps in orders]
    assert left[0] == pytest.approx(25, rel=0.03)
    assert left[1] < 6


def test_mixed_does_one_to_three_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def noted(step: Any, given: Any, generator: Any) -> Any:
        done.append(step.kind)
        return given

    for kind in set(degradations.STEPS) - {"mixed"}:
        monkeypatch.setitem(degradations.STEPS, kind, noted)
    counts, seen = set(), set()
    for seed in range(60):
        done.clear()
        degradations.apply(Mixed(), crop(16), np.random.default_rng(seed))
        assert len(done) == len(set(done)), "a kind was done twice"
        assert done == sorted(done, key=["blur", "grain", "poisson-gaussian", "gaussian", "speckle", "salt-pepper", "jpeg"].index)
        counts.add(len(done))
        seen |= set(done)
    assert counts == {1, 2, 3}
    assert seen == set(degradations.STEPS) - {"mixed"}


def test_mixed_does_as_many_as_it_is_told_of_the_kinds_that_it_is_told() -> None:
    clean = crop(16)
    same = [np.array_equal(degradations.apply(Mixed(least=0, most=1, of=["gaussian", "jpeg"]), clean, np.random.default_rng(seed)), clean)
            for seed in range(60)]  # fmt: skip
    assert 20 <= sum(same) <= 40, "half of the crops stay as they are"
    assert np.array_equal(degradations.apply(Mixed(least=0, most=0), clean, np.random.default_rng(0)), clean)
    impossible: list[dict[str, Any]] = [{"least": 3, "most": 2}, {"most": 2, "of": ["jpeg"]}, {"of": []}, {"of": ["mixed"]}]
    for wrong in impossible:
        with pytest.raises(ValidationError):
            Mixed.model_validate(wrong)


@pytest.mark.parametrize("step", EVERY, ids=lambda step: step.kind)
def test_grey_crops_have_the_same_damage_in_all_channels(step: Any) -> None:
    colours = np.random.default_rng(0).random((6, 32, 32, 3), dtype=np.float32)
    noisy, clean = degradations.degrade(colours, [step], 0, 1, np.random.default_rng(0))
    assert np.ptp(noisy, axis=3).max() == 0
    assert np.ptp(clean, axis=3).max() == 0
    assert clean[..., 0] == pytest.approx(colours @ degradations.LUMA, abs=1e-5)


def test_rounded_crops_are_8_bit_and_the_shares_are_kept() -> None:
    colours = np.random.default_rng(0).random((200, 8, 8, 3), dtype=np.float32)
    noisy, clean = degradations.degrade(colours, [Gaussian()], 0.5, 0.2, np.random.default_rng(0))
    levels = noisy * 255
    rounded = np.abs(levels - np.round(levels)).max(axis=(1, 2, 3)) < 1e-3
    assert rounded.mean() == pytest.approx(0.5, abs=0.12)
    assert noisy[rounded].min() >= 0
    assert noisy[rounded].max() <= 1
    assert (np.ptp(clean, axis=3).max(axis=(1, 2)) == 0).mean() == pytest.approx(0.2, abs=0.1)
