"""U-Net of gated convolutions for inpainting: a picture and a mask in, the picture with its holes filled out.

A gated convolution learns where its input can be trusted: half of its channels, through a sigmoid, weigh the other half
(Yu, Lin, Yang, Shen, Lu, Huang: Free-form image inpainting with gated convolution, ICCV 2019). What is not masked comes
out exactly as it went in. Blocks are residual and their last convolution starts at zero, as in `unet.py`.
"""

from typing import Any

from trainer.networks import unet
from trainer.networks.unet import UnetConfig


def bytes_per_pixel(config: UnetConfig) -> int:
    """Memory of a call in float32: twice the U-Net's, for the gates."""
    return 2 * unet.bytes_per_pixel(config)


def build(config: UnetConfig, precision: str, dropout: float = 0.0) -> Any:
    """Picture (n, h, w, channels) in 0..1 and mask (n, h, w, 1), 1 = fill → the picture's shape, float32.

    Height and width are multiples of the U-Net's; widths count what is left after the gates.
    """
    import keras
    from keras import layers

    policy = keras.DTypePolicy("mixed_bfloat16" if precision == "bfloat16" else "float32")

    def gated(x: Any, width: int, name: str, zero: bool = False) -> Any:
        start = "zeros" if zero else "he_normal"
        values = layers.Conv2D(width, 3, padding="same", kernel_initializer=start, dtype=policy, name=f"{name}_values")(x)
        gate = layers.Conv2D(width, 3, padding="same", activation="sigmoid", dtype=policy, name=f"{name}_gate")(x)
        return layers.Multiply(dtype=policy, name=name)([values, gate])

    def blocks(x: Any, width: int, name: str) -> Any:
        for index in range(config.blocks):
            y = gated(x, width, f"{name}_block{index}_conv0")
            y = layers.ReLU(dtype=policy, name=f"{name}_block{index}_relu")(y)
            if dropout:
                y = layers.SpatialDropout2D(dropout, dtype=policy, name=f"{name}_block{index}_drop")(y)
            y = gated(y, width, f"{name}_block{index}_conv1", zero=True)
            x = layers.Add(dtype=policy, name=f"{name}_block{index}_add")([x, y])
        return x

    picture = keras.Input((None, None, config.channels), name="picture")
    mask = keras.Input((None, None, 1), name="mask")
    holes = layers.Multiply(dtype="float32", name="holes")([picture, mask])
    known = layers.Subtract(dtype="float32", name="known")([picture, holes])
    x = layers.Concatenate(dtype="float32", name="known_and_mask")([known, mask])
    x = gated(x, config.widths[0], "head")  # (n, h, w, widths[0])

    skips = []
    for level, width in enumerate(config.widths[:-1]):
        x = blocks(x, width, f"down{level}")
        skips.append(x)
        x = layers.Conv2D(config.widths[level + 1], 2, strides=2, dtype=policy, name=f"down{level}_halve")(x)

    x = blocks(x, config.widths[-1], "bottom")  # (n, h / multiple, w / multiple, widths[-1])

    for level in reversed(range(len(config.widths) - 1)):
        x = layers.Conv2DTranspose(config.widths[level], 2, strides=2, dtype=policy, name=f"up{level}_double")(x)
        x = layers.Add(dtype=policy, name=f"up{level}_skip")([x, skips[level]])
        x = blocks(x, config.widths[level], f"up{level}")

    guess = layers.Conv2D(config.channels, 3, padding="same", dtype="float32", name="tail")(x)
    filling = layers.Multiply(dtype="float32", name="filling")([guess, mask])
    filled = layers.Add(dtype="float32", name="filled")([known, filling])
    return keras.Model([picture, mask], filled, name="inpaint-unet")
