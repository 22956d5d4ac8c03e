"""The U-Net of `trainer/networks/unet.py` in PyTorch, to compare the speed of its loop with. Not a dependency."""

from itertools import pairwise
from typing import Any

from trainer.networks.unet import UnetConfig


def build(config: UnetConfig) -> Any:
    """(n, channels, height, width) → the same; channels last in memory."""
    import torch  # type: ignore[import-not-found, unused-ignore]
    from torch import nn

    def conv(width: int) -> Any:
        return nn.Conv2d(width, width, 3, 1, 1, bias=False)

    class Blocks(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self, width: int) -> None:
            super().__init__()
            self.pairs = nn.ModuleList(nn.Sequential(conv(width), nn.ReLU(), conv(width)) for _ in range(config.blocks))

        def forward(self, x: Any) -> Any:
            for pair in self.pairs:
                x = x + pair(x)
            return x

    class Unet(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            widths = config.widths
            self.head = nn.Conv2d(config.channels, widths[0], 3, 1, 1, bias=False)
            self.down = nn.ModuleList(Blocks(width) for width in widths[:-1])
            self.narrow = nn.ModuleList(nn.Conv2d(one, other, 2, 2, bias=False) for one, other in pairwise(widths))
            self.bottom = Blocks(widths[-1])
            self.widen = nn.ModuleList(nn.ConvTranspose2d(other, one, 2, 2, bias=False) for one, other in pairwise(widths))
            self.up = nn.ModuleList(Blocks(width) for width in widths[:-1])
            self.tail = nn.Conv2d(widths[0], config.channels, 3, 1, 1, bias=False)

        def forward(self, noisy: Any) -> Any:
            x, skips = self.head(noisy), []
            for down, narrow in zip(self.down, self.narrow, strict=True):
                x = down(x)
                skips.append(x)
                x = narrow(x)
            x = self.bottom(x)
            for level in reversed(range(len(skips))):
                x = self.up[level](self.widen[level](x) + skips[level])
            return noisy - self.tail(x).float()

    return Unet().to(memory_format=torch.channels_last)
