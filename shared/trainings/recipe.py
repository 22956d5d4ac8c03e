"""Everything that decides how a training goes, and its ranges: the same over HTTP and for `python -m trainer`.

Levels are those of 8 bit, 0 to 255, whatever the pictures have. Where a value may vary from crop to crop it is a number, or
the two ends of a range.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

Task = Literal["denoise", "inpaint"]
Supervision = Literal["clean", "paired", "noisy"]
Architecture = Literal["dncnn", "unet", "nafnet", "inpaint-unet"]
Optimizer = Literal["adamw", "muon"]
Loss = Literal["l1", "l2", "charbonnier", "psnr"]
MaskKind = Annotated[str, StringConstraints(pattern=r"^(strokes|scratches|boxes|dust|pixels(-[1-9][0-9])?)$")]

ARCHITECTURES: dict[Task, tuple[Architecture, ...]] = {"denoise": ("unet", "dncnn", "nafnet"), "inpaint": ("inpaint-unet",)}
DEFAULTS: dict[Task, Architecture] = {task: names[0] for task, names in ARCHITECTURES.items()}
RATES: dict[Task, float] = {"denoise": 2e-3, "inpaint": 1e-3}  # by default; twice that ended a filling network in no numbers
DEFAULT_MINUTES = 60.0
DEFAULT_MASKS = ("strokes", "scratches", "boxes", "dust", "pixels")
EVALUATED_MASKS = ("strokes", "scratches", "boxes", "dust", "pixels-50", "pixels-80")


def _both_ends(value: Any) -> Any:
    """A number as a range of itself; two in a list, as JSON has them, as a pair."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value, value
    return tuple(value) if isinstance(value, list) else value


# lens, film, sensor, transmission, file
SingleKind = Literal["blur", "grain", "poisson-gaussian", "gaussian", "speckle", "salt-pepper", "jpeg"]


class _Step(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for name, value in self:
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"{name} begins above its end")
        return self


def _range(low: float, high: float) -> Any:
    end = Annotated[float, Field(ge=low, le=high, allow_inf_nan=False)]
    number = {"type": "number", "minimum": low, "maximum": high}
    shown = {"anyOf": [number, {"type": "array", "prefixItems": [number, number], "minItems": 2, "maxItems": 2}]}
    return Annotated[tuple[end, end], BeforeValidator(_both_ends), WithJsonSchema(shown)]


class Gaussian(_Step):
    """Additive noise of a level the network is not told."""

    kind: Literal["gaussian"] = "gaussian"
    sigma: _range(0, 255) = (0.0, 55.0)  # type: ignore[valid-type]


class PoissonGaussian(_Step):
    """What a camera adds: shot noise of so many photons at white, and read noise."""

    kind: Literal["poisson-gaussian"] = "poisson-gaussian"
    photons: _range(1, 100_000) = (30.0, 1000.0)  # type: ignore[valid-type]
    sigma: _range(0, 255) = (0.0, 10.0)  # type: ignore[valid-type]


class Jpeg(_Step):
    """What packing as JPEG does."""

    kind: Literal["jpeg"] = "jpeg"
    quality: _range(1, 100) = (30.0, 95.0)  # type: ignore[valid-type]


class SaltPepper(_Step):
    """A share of the pixels black or white."""

    kind: Literal["salt-pepper"] = "salt-pepper"
    share: _range(0, 1) = (0.0, 0.1)  # type: ignore[valid-type]


class Speckle(_Step):
    """Noise in proportion to the light: `sigma` is a share of it."""

    kind: Literal["speckle"] = "speckle"
    sigma: _range(0, 2) = (0.0, 0.3)  # type: ignore[valid-type]


class Blur(_Step):
    """A Gaussian blur, `sigma` in pixels."""

    kind: Literal["blur"] = "blur"
    sigma: _range(0, 5) = (0.0, 1.0)  # type: ignore[valid-type]


class Grain(_Step):
    """Noise that neighbours share, as film and scanners add it: of level `sigma`, blurred by `radius` pixels; half of it grey."""

    kind: Literal["grain"] = "grain"
    sigma: _range(0, 255) = (0.0, 30.0)  # type: ignore[valid-type]
    radius: _range(0.1, 5) = (0.4, 2.0)  # type: ignore[valid-type]


class Mixed(_Step):
    """From `least` to `most` of the others with their own ranges, anew for each crop."""

    kind: Literal["mixed"] = "mixed"
    least: int = Field(1, ge=0, le=7)
    most: int = Field(3, ge=0, le=7)
    of: list[SingleKind] = Field(list(get_args(SingleKind)), min_length=1, max_length=7)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.least <= self.most <= len(set(self.of)):
            raise ValueError(f"most is at least `least` and at most the {len(set(self.of))} kinds that it chooses from")
        return self


Degradation = Annotated[Gaussian | PoissonGaussian | Jpeg | SaltPepper | Speckle | Blur | Grain | Mixed, Field(discriminator="kind")]


class Parameters(BaseModel):
    """What a user may choose. With nothing but the task it makes a good model in an hour."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    task: Task = "denoise"
    supervision: Supervision = Field("clean", description="what the pictures are: clean, pairs, or noisy only (Noise2Void)")
    architecture: Architecture | None = Field(None, description="by default that of the base, else unet, or inpaint-unet for inpaint")
    degradation: list[Degradation] = Field([Gaussian()], min_length=1, max_length=8, description="what is done to clean pictures, in order")
    masks: list[MaskKind] = Field(
        list(DEFAULT_MASKS), min_length=1, max_length=16, description="what is cut out for inpaint: one of them for each crop"
    )
    epochs: int | None = Field(None, ge=1, le=10_000)
    minutes: float | None = Field(None, gt=0, le=60 * 24 * 30, allow_inf_nan=False, description="instead of epochs; by default an hour")
    steps_per_epoch: int = Field(500, ge=1, le=100_000)
    batch: int = Field(8, ge=1, le=1024)
    patch: int = Field(96, ge=16, le=1024, description="side of a crop in pixels")
    learning_rate: float | None = Field(
        None, gt=0, le=1, allow_inf_nan=False, description="at its highest; by default 0.002, for inpaint 0.001"
    )
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = Field(500, ge=0, le=1_000_000)
    loss: Loss = "l1"
    optimizer: Optimizer = "muon"
    weight_decay: float = Field(1e-4, ge=0, le=1, allow_inf_nan=False)
    dropout: float = Field(0.0, ge=0, le=0.9, allow_inf_nan=False, description="share of the channels that a block leaves out")
    ema: float = Field(0.999, ge=0, lt=1, allow_inf_nan=False, description="momentum of the average of the weights, which is what is kept")
    clip_norm: float = Field(1.0, gt=0, le=1e6, allow_inf_nan=False, description="of the gradients of all weights together")
    early_stopping: int | None = Field(None, ge=1, le=10_000, description="epochs without a better PSNR of the held-out pictures")
    validation_share: float = Field(0.05, ge=0, le=0.5, allow_inf_nan=False)
    half_share: float = Field(0.0, ge=0, le=1, allow_inf_nan=False, description="of the crops, from pictures at half their size")
    rounded_share: float = Field(
        0.5, ge=0, le=1, allow_inf_nan=False, description="of the crops, clipped and rounded to 8 bit as files are"
    )
    grey_share: float = Field(0.2, ge=0, le=1, allow_inf_nan=False, description="of the crops, made grey")
    seed: int = Field(0, ge=0, lt=2**32)
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where the processor has it")

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.epochs is not None and self.minutes is not None:
            raise PydanticCustomError("minutes", "give epochs or minutes, not both")
        if self.architecture is not None and self.architecture not in ARCHITECTURES[self.task]:
            able = ", ".join(ARCHITECTURES[self.task])
            raise PydanticCustomError("architecture", f"{self.architecture} does not {self.task}; {able} does")
        if self.task == "inpaint" and self.supervision != "clean":
            raise PydanticCustomError("supervision", "inpaint is learnt from clean pictures")
        return self


class Recipe(Parameters):
    """Everything that decides how a training goes."""

    config: dict[str, Any] = Field({}, description="of the architecture; by default the base's, else its own")

    @property
    def rate(self) -> float:
        """The learning rate at its highest."""
        return RATES[self.task] if self.learning_rate is None else self.learning_rate

    @property
    def steps(self) -> int | None:
        """How many there are; None where the minutes decide."""
        return None if self.epochs is None else self.epochs * self.steps_per_epoch


def split_key(sha256s: Sequence[str]) -> str:
    """What decides on which side of the split pictures lie that look the same: if one would be held out, all are."""
    return min(sha256s)


def is_held_out(key: str, share: float) -> bool:
    """Whether a picture is measured with, and never learnt from: by its contents, so that it stays so when a set grows."""
    return int(key[:8], 16) < share * 2**32
