"""TIFF: TIFF 6.0 and BigTIFF; what DNG, TIFF/EP and camera makers put into the same container is told apart."""

import struct
from dataclasses import dataclass
from typing import BinaryIO

from shared.errors import Refused
from shared.imaging import tags
from shared.imaging.containers import exif, photoshop
from shared.imaging.containers.described import Exif, Header, Metadata
from shared.imaging.tags import Block, Directory, Entry, OutsideError, Value

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

NEW_SUBFILE, SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
STRIPS, SAMPLES, STRIP_BYTES, PLANAR, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 273, 277, 279, 284, 317, 322, 323, 324, 325
SUB_DIRECTORIES, INK, EXTRA, SAMPLE_FORMAT = 330, 332, 338, 339
XMP, IPTC, PHOTOSHOP, PROFILE, LAYERS, DNG = 700, 33723, 34377, 34675, 37724, 50706
_FILL_ORDER, _ROWS, _COLOURS = 266, 278, 320
_PACKING = {
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, _FILL_ORDER, STRIPS, SAMPLES, _ROWS, STRIP_BYTES, PLANAR, PREDICTOR, _COLOURS,
    TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, INK, SAMPLE_FORMAT,
}  # fmt: skip

MINISWHITE, MINISBLACK, RGB, PALETTE, SEPARATED = 0, 1, 2, 3, 5
_RAW = {32803, 34892}  # colour filter array, linear raw
COMPRESSIONS = {1: "none", 5: "lzw", 8: "deflate", 32946: "deflate", 32773: "packbits"}
ASSOCIATED, UNASSOCIATED = 1, 2
_ENTRIES = 200_000  # of all directories together
_PIECES = 500_000  # strips or tiles
_MOST_SAMPLES = 32
_LARGEST_TILE = 1 << 24  # pixels, of a picture that has fewer
_REDUCED, _MASK = 1, 4
_LONGEST_VALUE = 64_000_000  # bytes, of a profile or a text
_CONVERT = "save it as an uncompressed, LZW or deflate TIFF, or as PNG"


@dataclass(frozen=True)
class Layout:
    """How the first page packs its pixels. `extra` are TIFF's ExtraSamples."""

    photometric: int
    compression: str
    predicted: bool
    samples: int
    extra: tuple[int, ...]

    @property
    def inks(self) -> int:
        """Channels that are colour."""
        return self.samples - len(self.extra)


def read(file: BinaryIO, size: int) -> Header:
    """Walk the directories: one full page, stored in a way that is restored, with all its bytes within the file."""
    block = _block(file, size)
    pages = _pages(block)
    first = pages[0]
    _refuse_raw(block, pages)
    if len(_full(block, pages)) > 1:
        raise Refused("multiple_frames", "It has several pages: save each as a file of its own.")
    header = _header(block, first)
    _check_extent(block, first, header)
    return header


def _block(file: BinaryIO, size: int) -> Block:
    try:
        return tags.open_block(file, size)
    except ValueError as error:
        raise Refused("image_truncated" if size < 8 else "image_corrupt", "The file ends within its header.") from error


def _pages(block: Block) -> list[dict[int, Entry]]:
    pages = []
    left = _ENTRIES
    try:
        for entries in tags.chain(block):
            pages.append({entry.tag: entry for entry in entries})
            left -= len(entries) + 1
            if left < 0:
                raise Refused("image_corrupt", "Its directories have more entries than any file.")
    except OutsideError as error:
        raise Refused("image_truncated", "A directory lies behind the file's end.") from error
    except ValueError as error:
        raise Refused("image_corrupt", "Its directories go in circles.") from error
    if not pages:
        raise Refused("image_corrupt", "It has no pages.")
    return pages


def _numbers(block: Block, page: dict[int, Entry], tag: int) -> list[int]:
    entry = page.get(tag)
    if entry is None:
        return []
    if entry.count > _PIECES:
        raise Refused("image_corrupt", "Its picture lies in more pieces than any.")
    try:
        return tags.integers(block.value(entry), block.order)
    except OutsideError as error:
        raise Refused("image_truncated", "A value of its header lies behind the file's end.") from error


def _number(block: Block, page: dict[int, Entry], tag: int, default: int) -> int:
    found = _numbers(block, page, tag)
    return found[0] if found else default


def _full(block: Block, pages: list[dict[int, Entry]]) -> list[dict[int, Entry]]:
    """The pages that are neither reduced copies nor masks of others."""
    return [
        page for page in pages if not _number(block, page, NEW_SUBFILE, 0) & (_REDUCED | _MASK) and _number(block, page, SUBFILE, 1) != 2
    ]


def _refuse_raw(block: Block, pages: list[dict[int, Entry]]) -> None:
    first = pages[0]
    raw = DNG in first or not _full(block, [first]) or any(_number(block, page, PHOTOMETRIC, -1) in _RAW for page in pages)
    for place in _numbers(block, first, SUB_DIRECTORIES)[:16]:
        try:
            entries, _ = block.entries(place)
        except OutsideError:
            continue
        raw |= _number(block, {entry.tag: entry for entry in entries}, PHOTOMETRIC, -1) in _RAW
    if raw:
        raise Refused("unsupported_format", "It is a camera's raw file: develop it in a raw converter and save it as a 16-bit TIFF or PNG.")


def layout(block: Block, page: dict[int, Entry]) -> Layout:
    """How a page packs its pixels. Raises `Refused` unsupported_format."""
    compression = _number(block, page, COMPRESSION, 1)
    if compression not in COMPRESSIONS:
        raise Refused("unsupported_format", f"It is a TIFF with a compression (number {compression}) that is not restored: {_CONVERT}.")
    samples = _number(block, page, SAMPLES, 1)
    extra = tuple(_numbers(block, page, EXTRA))
    photometric = _number(block, page, PHOTOMETRIC, MINISBLACK)
    inks = {MINISWHITE: 1, MINISBLACK: 1, RGB: 3, PALETTE: 1, SEPARATED: 4}.get(photometric)
    if inks is None or (photometric == SEPARATED and _number(block, page, INK, 1) != 1):
        raise Refused("unsupported_format", f"It is a TIFF with colours (number {photometric}) that are not restored: save it as RGB.")
    if not inks <= samples <= _MOST_SAMPLES:
        raise Refused("image_corrupt", f"The header names {samples} channels.")
    if inks + len(extra) != samples:  # some writers do not say what their further channels are: a single one is alpha
        extra = (UNASSOCIATED,) if samples - inks == 1 else (0,) * (samples - inks)
    return Layout(photometric, COMPRESSIONS[compression], _number(block, page, PREDICTOR, 1) == 2, samples, extra)


def _header(block: Block, page: dict[int, Entry]) -> Header:
    found = layout(block, page)
    depths = set(_numbers(block, page, BITS) or [1])
    bits = depths.pop()
    if depths or set(_numbers(block, page, SAMPLE_FORMAT)) - {1, 4}:
        raise Refused("unsupported_format", f"Its channels are of different depths, signed or floating: {_CONVERT}.")
    few = {1, 2, 4} if found.photometric == PALETTE else {1} if found.inks == 1 and found.samples == 1 else set()
    if bits not in {8, 16} | few or (found.photometric == PALETTE and (bits == 16 or found.extra)):
        raise Refused("unsupported_format", f"It has {bits} bits a channel; 8 and 16 are restored: {_CONVERT}.")
    alpha = "A" if any(kind in {ASSOCIATED, UNASSOCIATED} for kind in found.extra) else ""
    name = {PALETTE: "P", RGB: "RGB", SEPARATED: "CMYK"}.get(found.photometric, "L")
    width, height = (_number(block, page, tag, 0) for tag in (WIDTH, HEIGHT))
    return Header("TIFF", width, height, name + (alpha if name != "CMYK" else ""), max(8, bits))


def _check_extent(block: Block, page: dict[int, Entry], header: Header) -> None:
    """Strips and tiles lie within the file, and none is so large that it would cost more memory than the picture."""
    places, lengths = (TILES, TILE_BYTES) if TILES in page else (STRIPS, STRIP_BYTES)
    starts, counts = _numbers(block, page, places), _numbers(block, page, lengths)
    if not starts or not counts or len(starts) != len(counts):
        raise Refused("image_corrupt", "The header does not say where the picture lies.")
    if any(start + count > block.size for start, count in zip(starts, counts, strict=True)):
        raise Refused("image_truncated", "A part of the picture lies behind the file's end.")
    tile = _number(block, page, TILE_WIDTH, 0) * _number(block, page, TILE_HEIGHT, 0)
    if TILES in page and not 0 < tile <= max(4 * header.pixels, _LARGEST_TILE):
        raise Refused("image_corrupt", "Its tiles have an impossible size.")


def first_layout(file: BinaryIO, size: int) -> Layout:
    """How the picture is packed; `read` has accepted it before."""
    block = _block(file, size)
    return layout(block, _pages(block)[0])


def metadata(file: BinaryIO, size: int) -> tuple[Metadata, list[str]]:
    """What a TIFF keeps beside its pixels, and notes; `read` has accepted it before."""
    block = _block(file, size)
    pages = _pages(block)
    directory, whole = tags.tree(block, block.first, exif.STALE)
    notes = [] if whole else ["exif_corrupt"]
    notes += ["secondary_images_dropped"] if len(pages) > 1 or pages[0].keys() & {SUB_DIRECTORIES, LAYERS} else []
    profile, xmp, iptc, resources = (_bytes(block, pages[0], tag) for tag in (PROFILE, XMP, IPTC, PHOTOSHOP))
    found = Exif(directory, block.order) if directory else None
    return Metadata(profile, found, xmp, iptc or photoshop.iptc(resources or b""), exif.dpi(found)), notes


def _bytes(block: Block, page: dict[int, Entry], tag: int) -> bytes | None:
    entry = page.get(tag)
    if entry is None or entry.count * tags.SIZES[entry.kind] > _LONGEST_VALUE:
        return None
    try:
        return block.value(entry).data or None
    except OutsideError:
        return None


def pixels(file: BinaryIO, size: int) -> bytearray:
    """The file with a new directory at its end, in which stands how the pixels are packed and nothing else: a decoder sees no more.

    What the further channels are is left out too: a decoder would divide colour by the alpha that it was multiplied by.
    """
    block = _block(file, size)
    page = _pages(block)[0]
    pointer, room = ("Q", 8) if block.big else ("I", 4)
    kept = [page[tag] for tag in sorted(page.keys() & _PACKING)]
    table = struct.pack(block.order + ("Q" if block.big else "H"), len(kept))
    for entry in kept:
        length = entry.count * tags.SIZES[entry.kind]
        table += struct.pack(f"{block.order}HH{pointer}", entry.tag, entry.kind, entry.count)
        table += block.read(entry.place, length).ljust(room, b"\0") if length <= room else struct.pack(block.order + pointer, entry.place)
    file.seek(0)
    data = bytearray(file.read())
    data += b"\0" * (-len(data) % 16)
    struct.pack_into(block.order + pointer, data, 8 if block.big else 4, len(data))
    data += table + bytes(room)
    return data


def wrap(data: bytes, kept: Metadata, colours: int, extra: tuple[int, ...]) -> bytes:
    """A fresh little-endian TIFF with what is kept: its directory is written anew, with more in it, at the file's end.

    Its first `colours` channels are grey or RGB, the others what `extra` says.
    """
    (place,) = struct.unpack_from("<I", data, 4)
    made: Directory = {}
    (count,) = struct.unpack_from("<H", data, place)
    for at in range(place + 2, place + 2 + 12 * count, 12):
        tag, kind, elements = struct.unpack_from("<HHI", data, at)
        length = elements * tags.SIZES[kind]
        start = at + 8 if length <= 4 else struct.unpack_from("<I", data, at + 8)[0]
        made[tag] = Value(kind, data[start : start + length])
    for tag in (exif.X_RESOLUTION, exif.Y_RESOLUTION, exif.UNIT, exif.ORIENTATION):
        made.pop(tag, None)
    tagged = exif.with_dpi(kept.exif, kept.dpi)
    if tagged:
        made |= tagged.directory if tagged.order == "<" else tags.swapped(tagged.directory)
    made |= {tag: Value(7, value) for tag, value in ((PROFILE, kept.profile), (IPTC, kept.iptc)) if value}
    if kept.xmp:
        made[XMP] = Value(1, kept.xmp)
    made[PHOTOMETRIC] = Value(tags.SHORT, struct.pack("<H", MINISBLACK if colours == 1 else RGB))
    if extra:
        made[EXTRA] = Value(tags.SHORT, struct.pack(f"<{len(extra)}H", *extra))
    at = len(data) + len(data) % 2
    return b"".join([data[:4], struct.pack("<I", at), memoryview(data)[8:], b"\0" * (at - len(data)), tags.lay(made, "<", at)])
