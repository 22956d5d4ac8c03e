"""NAFNet: a U-Net of blocks without nonlinear activations. For GPUs: on a CPU its layers run far below a matrix product's speed.

Chen, Chu, Zhang, Sun: Simple baselines for image restoration, ECCV 2022. A block normalises over channels, gates by multiplying
one half of them with the other, and weighs channels by what they hold on average. The paper takes that average over the whole
picture, so that a tile would come out otherwise than the same part of the whole; here it is taken over what lies around, as Chu,
Chen, Chen, Lu found better anyway (Improving image restoration by revisiting global information aggregation, ECCV 2022): over
each cell of 32 × 32 pixels of the picture and the eight cells around it. Each half block's last convolution starts at zero, which
is what the paper's scale factors do.
"""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

CELL = 32  # pixels of the picture, a side, at every level

Blocks = Annotated[int, Field(ge=1, le=32)]


class NafnetConfig(BaseModel):
    """`encoder` and `decoder` are the blocks of each level above the middle, the finest first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(32, ge=2, le=256, description="channels of the finest level; each further one has twice as many")
    encoder: tuple[Blocks, ...] = Field((1, 1, 2), min_length=1, max_length=4)
    middle: Blocks = 4
    decoder: tuple[Blocks, ...] = Field((1, 1, 1), min_length=1, max_length=4)
    channels: int = Field(3, ge=1, le=4)

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if len(self.encoder) != len(self.decoder):
            raise ValueError("encoder and decoder have as many levels")
        return self


def multiple(config: NafnetConfig) -> int:
    """Height and width must be a multiple of this, so that cells lie at the same places in tiles as in the whole."""
    return CELL


def halo(config: NafnetConfig) -> int:
    """Pixels of context on each side of a tile: the cells around, and theirs.

    Less than all that a pixel depends on, which grows with every block; measured, tiled and whole agree to more than 60 dB
    (`tests/contracts/test_executor.py`).
    """
    return 2 * CELL


def bytes_per_pixel(config: NafnetConfig) -> int:
    """Memory of a call in float32: ten maps a level (skip, input, twice the channels before and after the gate), and the picture."""
    return sum(4 * 10 * (config.width << level) >> 2 * level for level in range(len(config.encoder) + 1)) + 8 * config.channels


def build(config: NafnetConfig, precision: str, dropout: float = 0.0) -> Any:
    """(n, height, width, channels) in 0..1 → the same shape, float32; height and width multiples of `multiple(config)`."""
    import keras
    from keras import layers

    policy = keras.DTypePolicy("mixed_bfloat16" if precision == "bfloat16" else "float32")

    def conv(x: Any, width: int, name: str, kernel: int = 1, start: str = "he_normal") -> Any:
        return layers.Conv2D(width, kernel, padding="same", kernel_initializer=start, dtype=policy, name=name)(x)

    def gate(x: Any, name: str) -> Any:
        return layers.Multiply(dtype=policy, name=name)(keras.ops.split(x, 2, axis=-1))

    def drop(x: Any, name: str) -> Any:
        return layers.SpatialDropout2D(dropout, dtype=policy, name=name)(x) if dropout else x

    def attention(x: Any, width: int, level: int, name: str) -> Any:
        cell = CELL >> level
        mean = layers.AveragePooling2D(cell, dtype=policy, name=f"{name}_cells")(x)
        mean = layers.AveragePooling2D(3, strides=1, padding="same", dtype=policy, name=f"{name}_around")(mean)
        weight = conv(mean, width, f"{name}_weight", start="glorot_uniform")
        weight = layers.UpSampling2D(cell, dtype=policy, name=f"{name}_spread")(weight)
        return layers.Multiply(dtype=policy, name=name)([x, weight])

    def block(x: Any, width: int, level: int, name: str) -> Any:
        y = layers.LayerNormalization(epsilon=1e-6, dtype=policy, name=f"{name}_norm0")(x)
        y = conv(y, 2 * width, f"{name}_conv0")
        y = layers.DepthwiseConv2D(3, padding="same", depthwise_initializer="he_normal", dtype=policy, name=f"{name}_depthwise")(y)
        y = gate(y, f"{name}_gate0")
        y = attention(y, width, level, f"{name}_attention")
        y = drop(conv(y, width, f"{name}_conv1", start="zeros"), f"{name}_drop0")
        x = layers.Add(dtype=policy, name=f"{name}_add0")([x, y])
        y = layers.LayerNormalization(epsilon=1e-6, dtype=policy, name=f"{name}_norm1")(x)
        y = gate(conv(y, 2 * width, f"{name}_conv2"), f"{name}_gate1")
        y = drop(conv(y, width, f"{name}_conv3", start="zeros"), f"{name}_drop1")
        return layers.Add(dtype=policy, name=f"{name}_add1")([x, y])

    def stage(x: Any, blocks: int, level: int, name: str) -> Any:
        for index in range(blocks):
            x = block(x, config.width << level, level, f"{name}_block{index}")
        return x

    noisy = keras.Input((None, None, config.channels), name="noisy")
    x = conv(noisy, config.width, "head", kernel=3)  # (n, h, w, width)

    skips = []
    for level, blocks in enumerate(config.encoder):
        x = stage(x, blocks, level, f"down{level}")
        skips.append(x)
        x = layers.Conv2D(
            config.width << (level + 1), 2, strides=2, kernel_initializer="he_normal", dtype=policy, name=f"down{level}_halve",
        )(x)  # fmt: skip  # (n, h / 2^(level+1), w / 2^(level+1), width · 2^(level+1))

    deepest = len(config.encoder)
    x = stage(x, config.middle, deepest, "middle")

    for level in reversed(range(deepest)):
        x = layers.Conv2DTranspose(
            config.width << level, 2, strides=2, use_bias=False, kernel_initializer="he_normal", dtype=policy, name=f"up{level}_double",
        )(x)  # fmt: skip  # the paper's 1×1 convolution and shuffle, in one
        x = layers.Add(dtype=policy, name=f"up{level}_skip")([x, skips[level]])
        x = stage(x, config.decoder[level], level, f"up{level}")

    noise = layers.Conv2D(config.channels, 3, padding="same", kernel_initializer="zeros", dtype="float32", name="tail")(x)
    clean = layers.Subtract(dtype="float32", name="clean")([noisy, noise])
    return keras.Model(noisy, clean, name="nafnet")
