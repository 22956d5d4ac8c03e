"""DnCNN: a plain stack of 3×3 convolutions that predicts the noise.

Zhang, Zuo, Chen, Meng, Zhang: Beyond a Gaussian denoiser: residual learning of deep CNN for image denoising, IEEE
Transactions on Image Processing 26 (2017). Without the batch normalisation of the paper: once trained it is a part of
the convolutions, and its statistics are another thing to keep. What everybody compares with, and what we do too.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class DncnnConfig(BaseModel):
    """The default is DnCNN-17: 0.56 M parameters, 1 113 GFLOP per Mpx."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    depth: int = Field(17, ge=3, le=64, description="convolutions")
    width: int = Field(64, ge=1, le=1024)
    channels: int = Field(3, ge=1, le=4)


def multiple(config: DncnnConfig) -> int:
    """Any height and width."""
    return 1


def halo(config: DncnnConfig) -> int:
    """Pixels of context on each side of a tile: all that a pixel depends on, so tiled and whole are the same."""
    return config.depth


def bytes_per_pixel(config: DncnnConfig) -> int:
    """Memory of a call in float32: a layer's input and output, and the picture before and after."""
    return 4 * (2 * config.width + 2 * config.channels)


def build(config: DncnnConfig, precision: str, dropout: float = 0.0) -> Any:
    """(n, height, width, channels) in 0..1 → the same shape, float32."""
    import keras
    from keras import layers

    policy = keras.DTypePolicy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    noisy = keras.Input((None, None, config.channels), name="noisy")
    x = noisy
    for index in range(config.depth - 1):
        x = layers.Conv2D(config.width, 3, padding="same", kernel_initializer="he_normal", dtype=policy, name=f"conv{index}")(x)
        x = layers.ReLU(dtype=policy, name=f"relu{index}")(x)
        if dropout and index:
            x = layers.SpatialDropout2D(dropout, dtype=policy, name=f"drop{index}")(x)
    noise = layers.Conv2D(config.channels, 3, padding="same", kernel_initializer="zeros", dtype="float32", name="tail")(x)
    clean = layers.Subtract(dtype="float32", name="clean")([noisy, noise])
    return keras.Model(noisy, clean, name="dncnn")
