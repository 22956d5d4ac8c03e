"""The four trainings there are, by the names of the models that come of them. Without JAX, which may not be installed."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from shared.trainings.recipe import Task
from trainer import networks
from trainer.degradations import BLOCK

SCALES = (1, 0.7, 0.5)  # of width and height: finer detail per pixel, and less of a camera's own noise and JPEG
MOST_SIGMA = 55.0  # levels of 8 bit
CLIP_NORM = 1.0  # of all gradients together
EMA = 0.999  # of the average of the weights; less in the first steps
PRECISION = "bfloat16"  # for computing; weights are float32

WEAR = (
    "of the crops, 8 % clean, 6 % Gaussian σ 0–3, 6 % JPEG 88–100, 12 % Gaussian σ 0–55, 10 % camera (shot noise of 30–1000 photons at "
    "white, logarithmic, and read noise of σ 0–10), 8 % grain (Gaussian, σ 0–30, blurred by 0.4–1.3 pixels, 60 % of it grey), 7 % "
    "speckle 0–0.3, 7 % salt and pepper 0–10 %, 12 % JPEG 20–95, 24 % one kind of noise, of which 10 % with salt and pepper and 85 % "
    "then JPEG 40–98; JPEG with halved colours in 75 %"
)
HOLES = "as many of each: 10 to 95 % of pixels, boxes, strokes, scratches, and film damage if it is among the data"


class Noise(NamedTuple):
    """Gaussian noise of a level that the network is not told, σ 0 to 55. All are shares of the crops."""

    grey_share: float  # made grey, with the same noise in all channels
    rounded_share: float  # clipped and rounded to 8 bit, as a user's file is
    sigma_5_to_30_share: float  # whose noise lies within that


class Wear(NamedTuple):
    """One or two of what happens to pictures, or nothing; all are rounded to 8 bit."""

    grey_share: float


@dataclass(frozen=True)
class Stage:
    """What decides a training beside its pictures and its time."""

    damage: Noise | Wear | None  # None: holes
    seed: int
    batch: int
    patch: int = 128
    config: dict[str, Any] = field(default_factory=dict)  # of the network
    scale_shares: tuple[float, float, float] = (0.4, 0.3, 0.3)  # of the crops, one for each of SCALES
    learning_rate: float = 1.5e-3  # at its highest
    warmup_steps: int = 200
    constant_share: float = 0.1  # of the time; then the rate falls linearly to zero
    weight_decay: float = 1e-3

    @property
    def task(self) -> Task:
        """What the model does."""
        return "inpaint" if self.damage is None else "denoise"

    @property
    def architecture(self) -> str:
        """The network."""
        return "inpaint-unet" if self.damage is None else "unet"

    @property
    def margin(self) -> int:
        """By how many pixels a crop is larger than what the network sees of it."""
        return BLOCK if isinstance(self.damage, Wear) else 0

    @property
    def multiple(self) -> int:
        """Sides of crops are multiples of this. Raises `Refused` if the network's sizes are wrong."""
        parsed = networks.parse(self.architecture, self.config)
        return max(BLOCK, int(networks.ARCHITECTURES[self.architecture].multiple(parsed)))  # both are powers of two

    def rate(self, step: int, share: float) -> float:
        """The learning rate of that step, when that share of the time is over."""
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps) * min(1.0, (1 - share) / (1 - self.constant_share))

    def recipe(self) -> dict[str, Any]:
        """All of it, for the manifest."""
        damages = {"degradation": WEAR} if isinstance(self.damage, Wear) else {"sigma": [0.0, MOST_SIGMA]}
        return {
            "architecture": self.architecture,
            "config": self.config,
            "batch": self.batch,
            "patch": self.patch,
            "scales": list(SCALES),
            "scale_shares": list(self.scale_shares),
            **({"masks": HOLES} if self.damage is None else damages | self.damage._asdict()),
            "loss": "L1 + 4 MSE, of the hole" if self.damage is None else "psnr",
            "optimizer": "muon",
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "schedule": f"constant for {self.constant_share:g} of the time, then linear to zero",
            "weight_decay": self.weight_decay,
            "ema": EMA,
            "clip_norm": CLIP_NORM,
            "seed": self.seed,
            "precision": PRECISION,
        }


STAGES = {
    "denoise": Stage(
        Noise(grey_share=0.1, rounded_share=0.2, sigma_5_to_30_share=0.3),
        seed=11,
        batch=64,
        config={"widths": [48, 96, 192, 256], "blocks": 2},
    ),
    "denoise-fast": Stage(Noise(grey_share=0.07, rounded_share=0.15, sigma_5_to_30_share=0.4), seed=12, batch=128),
    "denoise-real": Stage(
        Wear(grey_share=0.15), seed=31, batch=64, config={"widths": [32, 64, 128, 192], "blocks": 2}, constant_share=0.15
    ),
    "inpaint": Stage(
        None,
        seed=13,
        batch=36,
        patch=160,
        config={"widths": [32, 64, 96, 128, 192], "blocks": 2},
        scale_shares=(0.5, 0.3, 0.2),
        learning_rate=8e-4,
        warmup_steps=500,
        constant_share=0.25,
        weight_decay=1e-2,
    ),
}
