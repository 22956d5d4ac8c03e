"""Residual, bias-free U-Net for blind denoising.

Bias-free, so that it scales to noise levels it was not trained on (Mohan, Kadkhodaie, Simoncelli, Fernandez-Granda:
Robust and interpretable blind image denoising via bias-free convolutional neural networks, ICLR 2020). Residual, so that
it predicts the noise (Zhang et al., DnCNN, 2017). The full-resolution level trains fast and costs little; plain 3×3
convolutions run at the speed of a matrix product on a CPU. Each block's last convolution starts at zero, so the fresh
network is close to the identity and needs no normalisation.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class UnetConfig(BaseModel):
    """The default has 1.06 M parameters and costs 137 GFLOP per Mpx."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    widths: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field((16, 32, 64, 128), min_length=1, max_length=6)
    blocks: int = Field(2, ge=1, le=8, description="residual blocks a level and side")
    channels: int = Field(3, ge=1, le=4)


def multiple(config: UnetConfig) -> int:
    """Height and width must be a multiple of this: one halving per level below the first."""
    return 1 << (len(config.widths) - 1)


def halo(config: UnetConfig) -> int:
    """Pixels of context on each side of a tile.

    Half the theoretical reach (measured: tiled and whole agree to more than 60 dB, `tests/contracts/test_executor.py`),
    rounded up to `multiple`. The reach is one pixel per 3×3 convolution, times the scale of its level.
    """
    deepest = len(config.widths) - 1
    convolutions = 2 * config.blocks
    reach = 2 + convolutions * (2 * ((1 << deepest) - 1) + (1 << deepest))
    step = multiple(config)
    return -(-reach // (2 * step)) * step


def bytes_per_pixel(config: UnetConfig) -> int:
    """Memory of a call in float32: three maps a level (skip, input, output), and the picture before and after.

    Measured for the default at 4 Mpx: 350 (`benchmarks/engine`); this says 384.
    """
    return sum(12 * width >> 2 * level for level, width in enumerate(config.widths)) + 8 * config.channels


def build(config: UnetConfig, precision: str, dropout: float = 0.0) -> Any:
    """(n, height, width, channels) in 0..1 → the same shape, float32; height and width multiples of `multiple(config)`."""
    import keras
    from keras import layers

    policy = keras.DTypePolicy("mixed_bfloat16" if precision == "bfloat16" else "float32")

    def conv(x: Any, width: int, name: str, kernel: int = 3, zero: bool = False) -> Any:
        start = "zeros" if zero else "he_normal"
        return layers.Conv2D(width, kernel, padding="same", use_bias=False, kernel_initializer=start, dtype=policy, name=name)(x)

    def blocks(x: Any, width: int, name: str) -> Any:
        for index in range(config.blocks):
            y = conv(x, width, f"{name}_block{index}_conv0")
            y = layers.ReLU(dtype=policy, name=f"{name}_block{index}_relu")(y)
            if dropout:
                y = layers.SpatialDropout2D(dropout, dtype=policy, name=f"{name}_block{index}_drop")(y)
            y = conv(y, width, f"{name}_block{index}_conv1", zero=True)
            x = layers.Add(dtype=policy, name=f"{name}_block{index}_add")([x, y])
        return x

    noisy = keras.Input((None, None, config.channels), name="noisy")
    x = conv(noisy, config.widths[0], "head")  # (n, h, w, widths[0])

    skips = []
    for level, width in enumerate(config.widths[:-1]):
        x = blocks(x, width, f"down{level}")
        skips.append(x)
        x = layers.Conv2D(
            config.widths[level + 1], 2, strides=2, use_bias=False, kernel_initializer="he_normal", dtype=policy,
            name=f"down{level}_halve",
        )(x)  # fmt: skip  # (n, h / 2^(level+1), w / 2^(level+1), widths[level+1])

    x = blocks(x, config.widths[-1], "bottom")

    for level in reversed(range(len(config.widths) - 1)):
        x = layers.Conv2DTranspose(
            config.widths[level], 2, strides=2, use_bias=False, kernel_initializer="he_normal", dtype=policy,
            name=f"up{level}_double",
        )(x)  # fmt: skip  # stride = kernel: a 1×1 convolution and a shuffle, no checkerboard
        x = layers.Add(dtype=policy, name=f"up{level}_skip")([x, skips[level]])
        x = blocks(x, config.widths[level], f"up{level}")

    noise = layers.Conv2D(config.channels, 3, padding="same", use_bias=False, kernel_initializer="zeros", dtype="float32", name="tail")(x)
    clean = layers.Subtract(dtype="float32", name="clean")([noisy, noise])
    return keras.Model(noisy, clean, name="unet")
