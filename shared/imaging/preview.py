"""Previews: small WebP pictures, for eyes only; and the child that makes one of a file.

`python -m shared.imaging.preview SIZE MAX_PIXELS MEMORY SECONDS` reads the file on its standard input and writes the preview to its
standard output, within that many bytes of memory and seconds of computing.
"""

import contextlib
import io
import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared import children
from shared.errors import Refused
from shared.imaging import codec

LONGEST = 1_600  # pixels of the longer side
QUALITY = 80

REFUSED = 3  # exit status of the child: its output is a code and a detail, as JSON
TOO_LARGE = 4  # it needed more memory than it may have


def encode(colour: NDArray[Any], alpha: NDArray[Any] | None, associated: bool = False) -> bytes:
    """`colour` (height, width, 1 or 3) and `alpha` (height, width), uint8 or uint16, as a WebP that fits `LONGEST`.

    If `colour` is multiplied by `alpha` (`associated`), it is divided once it is small.
    """
    planes = _eight_bits(colour)
    if alpha is not None:
        planes = np.dstack([np.broadcast_to(planes, (*planes.shape[:2], 3)), _eight_bits(alpha)])
    image = _image(np.ascontiguousarray(planes[:, :, 0] if planes.shape[2] == 1 else planes), associated)
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX, reducing_gap=2.0)
    if associated:
        image = image.convert("RGBA")
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY, method=0)  # slower methods take three times as long for a tenth of the bytes
    return file.getvalue()


def _image(planes: NDArray[np.uint8], associated: bool) -> Image.Image:
    if not associated:
        return Image.fromarray(planes)
    height, width = planes.shape[:2]
    return Image.frombuffer("RGBa", (width, height), planes, "raw", "RGBa", 0, 1)


def _eight_bits(planes: NDArray[Any]) -> NDArray[np.uint8]:
    return (planes >> 8 if planes.dtype == np.uint16 else planes).astype(np.uint8, copy=False)


def main() -> None:
    """The child: one preview, then the end."""
    size, max_pixels, memory_bytes, seconds = map(int, sys.argv[1:])
    children.hold_lifeline()
    children.expendable()
    _limit(memory_bytes, seconds)
    try:
        source = codec.decode(sys.stdin.buffer, size, max_pixels)  # it can seek: the API gives a file
        sys.stdout.buffer.write(encode(source.colour, source.alpha, codec.associated(source)))
    except Refused as error:
        print(json.dumps({"code": error.code, "detail": error.detail}))
        sys.exit(REFUSED)
    except MemoryError:
        sys.exit(TOO_LARGE)


def _limit(memory_bytes: int, seconds: int) -> None:
    """So much more than what this process has by now: libraries reserve address space by the number of cores."""
    with contextlib.suppress(FileNotFoundError):  # where there is no /proc, address space cannot be limited either
        has = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (has + memory_bytes, has + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


if __name__ == "__main__":
    main()
