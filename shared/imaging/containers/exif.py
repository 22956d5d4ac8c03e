"""EXIF blocks: read, turned upright, and written without the stale thumbnail. Exif 2.32, TIFF 6.0."""

import io
import struct
from dataclasses import replace

from shared.imaging import tags
from shared.imaging.containers.described import Exif, Metadata
from shared.imaging.tags import Directory, Value

ORIENTATION, X_RESOLUTION, Y_RESOLUTION, UNIT = 0x0112, 0x011A, 0x011B, 0x0128
EXIF = 0x8769
_WIDTH, _HEIGHT = 0xA002, 0xA003
_CENTIMETRE = 3
_INCH = 2.54  # centimetres
_HIGHEST_DPI = 40_000_000  # what a rational of hundredths holds

# What says where pixels lie and how they are packed: of another file than the one that is written. A thumbnail is one of these.
STALE = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, 288, 289, 290, 291, 292, 293, 301, 317}
    | {320, 322, 323, 324, 325, 330, 332, 333, 334, 336, 338, 339, 340, 341, 342, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521}
    | {529, 530, 531, 532, 700, 33723, 34377, 34675, 37724}
)


def exif_of(data: bytes) -> tuple[Exif | None, bool]:
    """The EXIF in a block's bytes, and whether all of it could be read. Nobody looks at its thumbnail."""
    data = data.removeprefix(b"Exif\0\0")
    if not data:
        return None, True
    try:
        block = tags.open_block(io.BytesIO(data), len(data))
    except ValueError:
        return None, False
    directory, whole = tags.tree(block, block.first, STALE)
    return (Exif(directory, block.order) if directory else None), whole


def written(exif: Exif | None) -> bytes | None:
    """The bytes of a block."""
    return tags.written(exif.directory, exif.order) if exif else None


def orientation(exif: Exif | None) -> int:
    """1 to 8, as TIFF 6.0 says."""
    value = exif.directory.get(ORIENTATION) if exif else None
    numbers = tags.integers(value, exif.order) if exif and isinstance(value, Value) else []
    return numbers[0] if numbers and numbers[0] in range(1, 9) else 1


def dpi(exif: Exif | None) -> tuple[float, float] | None:
    """The resolution that the tags give, if it is one."""
    if exif is None:
        return None
    unit = exif.directory.get(UNIT)
    numbers = tags.integers(unit, exif.order) if isinstance(unit, Value) else [2]
    sides = [_ratio(exif.directory.get(tag), exif.order) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    if numbers[:1] not in ([2], [_CENTIMETRE]) or not sides[0]:
        return None
    factor = _INCH if numbers[0] == _CENTIMETRE else 1
    return sides[0] * factor, (sides[1] or sides[0]) * factor


def _ratio(value: "Value | Directory | None", order: str) -> float:
    if not isinstance(value, Value) or value.kind != tags.RATIONAL or len(value.data) != 8:
        return 0
    above, below = struct.unpack(order + "II", value.data)
    return above / below if below else 0


def tells(exif: Exif | None) -> bool:
    """Whether there is more in it than how the picture lies, and how large."""
    return exif is not None and bool(exif.directory.keys() - {ORIENTATION, X_RESOLUTION, Y_RESOLUTION, UNIT})


def upright(kept: Metadata, sideways: bool) -> Metadata:
    """What is kept, of a picture whose rows now stand upright: orientation 1, and sides that have changed places if it was `sideways`."""
    exif = kept.exif
    if exif:
        directory = exif.directory | {ORIENTATION: Value(tags.SHORT, struct.pack(exif.order + "H", 1))}
        if sideways:
            directory = _exchanged(directory, X_RESOLUTION, Y_RESOLUTION)
            nested = directory.get(EXIF)
            if isinstance(nested, dict):
                directory[EXIF] = _exchanged(nested, _WIDTH, _HEIGHT)
        exif = Exif(directory, exif.order)
    return replace(kept, exif=exif, dpi=kept.dpi[::-1] if kept.dpi and sideways else kept.dpi)


def _exchanged(directory: Directory, one: int, other: int) -> Directory:
    if one not in directory or other not in directory:
        return directory
    return directory | {one: directory[other], other: directory[one]}


def with_dpi(exif: Exif | None, resolution: tuple[float, float] | None) -> Exif | None:
    """EXIF whose tags give `resolution`, for files that have no other place for it."""
    known = dpi(exif)
    if (
        resolution is None
        or max(resolution) > _HIGHEST_DPI
        or (known and all(abs(a - b) < 0.02 for a, b in zip(known, resolution, strict=True)))
    ):
        return exif
    order = exif.order if exif else "<"
    sides = [Value(tags.RATIONAL, struct.pack(order + "II", round(side * 100), 100)) for side in resolution]
    added: Directory = {X_RESOLUTION: sides[0], Y_RESOLUTION: sides[1], UNIT: Value(tags.SHORT, struct.pack(order + "H", 2))}
    return Exif((exif.directory if exif else {}) | added, order)
