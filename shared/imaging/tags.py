"""Directories of tags, as TIFF files and EXIF blocks have them: read within their bounds, and written anew.

TIFF 6.0, section 2; BigTIFF; Exif 2.32. Values stay bytes, in the byte order of their block: a maker's note is opaque.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes by kind
SHORT, LONG, RATIONAL = 3, 4, 5
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_WORDS = SIZES | {5: 4, 10: 4}  # bytes that change places between the byte orders
_ONLY_BIG = {16, 17, 18}
NESTED = {0x8769, 0x8825, 0xA005}  # the tags that point to a directory of further tags: EXIF, GPS, interoperability
DEEPEST = 4
_MOST_TAGS = 4096  # of one directory, as libtiff has it; makers write some hundred
_MOST_BYTES = 64_000_000  # of all values together; they may lie upon each other


class OutsideError(ValueError):
    """Something lies where the block has no bytes."""


@dataclass(frozen=True)
class Value:
    """What a tag holds: `data` are whole elements of `kind`."""

    kind: int
    data: bytes


Directory = dict[int, "Value | Directory"]


@dataclass(frozen=True)
class Entry:
    """One entry of a directory; its value lies at `place`."""

    tag: int
    kind: int
    count: int
    place: int


@dataclass(frozen=True)
class Block:
    """A TIFF file, or an EXIF block: the same thing. `order` is struct's, `first` the place of the first directory."""

    file: BinaryIO
    size: int
    order: str
    big: bool
    first: int

    def entries(self, place: int) -> tuple[list[Entry], int]:
        """The entries of the directory at `place`, and the place of the next one; 0: none. Raises `OutsideError`."""
        head, width, pointer = (8, 20, "Q") if self.big else (2, 12, "I")
        (count,) = self._unpack("Q" if self.big else "H", place)
        table = self.read(place + head, count * width)
        (following,) = self._unpack(pointer, place + head + len(table))
        found = []
        for start in range(0, len(table), width):
            tag, kind, elements = struct.unpack_from(f"{self.order}HH{pointer}", table, start)
            if kind not in SIZES:
                continue
            inline = place + head + start + (12 if self.big else 8)
            room = 8 if self.big else 4
            fits = elements * SIZES[kind] <= room
            found.append(
                Entry(tag, kind, elements, inline if fits else struct.unpack_from(self.order + pointer, table, start + width - room)[0])
            )
        return found, following

    def value(self, entry: Entry) -> Value:
        """What an entry holds. Raises `OutsideError`."""
        return Value(entry.kind, self.read(entry.place, entry.count * SIZES[entry.kind]))

    def read(self, place: int, length: int) -> bytes:
        """Bytes of the block. Raises `OutsideError`, before anything is allocated for them."""
        if place + length > self.size:
            raise OutsideError
        self.file.seek(place)
        data = self.file.read(length)
        if len(data) < length:
            raise OutsideError
        return data

    def _unpack(self, kind: str, place: int) -> tuple[int, ...]:
        return struct.unpack(self.order + kind, self.read(place, struct.calcsize("=" + kind)))


def open_block(file: BinaryIO, size: int) -> Block:
    """The block in a file of `size` bytes. Raises `ValueError` if it is none."""
    file.seek(0)
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or len(start) < 8:
        raise ValueError
    (magic,) = struct.unpack_from(order + "H", start, 2)
    if magic == 42:
        return Block(file, size, order, big=False, first=struct.unpack_from(order + "I", start, 4)[0])
    if magic == 43 and len(start) == 16 and struct.unpack_from(order + "HH", start, 4) == (8, 0):
        return Block(file, size, order, big=True, first=struct.unpack_from(order + "Q", start, 8)[0])
    raise ValueError


def integers(value: Value, order: str) -> list[int]:
    """The elements of a value of whole numbers; none for any other kind."""
    letter = _INTEGERS.get(value.kind)
    return [] if letter is None else [number for (number,) in struct.iter_unpack(order + letter, value.data)]


def tree(block: Block, place: int, drop: frozenset[int] = frozenset()) -> tuple[Directory, bool]:
    """The directory at `place` with those nested in it, but for the tags in `drop`; and whether all of it could be read."""
    return _tree(block, place, drop, DEEPEST, [min(block.size, _MOST_BYTES)])


def _tree(block: Block, place: int, drop: frozenset[int], depth: int, left: list[int]) -> tuple[Directory, bool]:
    found: Directory = {}
    whole = True
    try:
        entries, _ = block.entries(place)
    except OutsideError:
        return {}, False
    if len(entries) > _MOST_TAGS:
        return {}, False
    for entry in entries:
        if entry.tag in drop or (entry.kind in _ONLY_BIG and entry.tag not in NESTED):
            continue
        left[0] -= entry.count * SIZES[entry.kind]
        try:
            if left[0] < 0:
                raise OutsideError
            value = block.value(entry)
            pointers = integers(value, block.order) if entry.tag in NESTED else []
            if entry.tag in NESTED and (len(pointers) != 1 or depth == 0):
                raise OutsideError
        except OutsideError:
            whole = False
            continue
        if pointers:
            found[entry.tag], complete = _tree(block, pointers[0], frozenset(), depth - 1, left)
            whole &= complete
        else:
            found[entry.tag] = value
    return {tag: value for tag, value in found.items() if value}, whole


def swapped(directory: Directory) -> Directory:
    """The same in the other byte order."""
    return {tag: swapped(value) if isinstance(value, dict) else Value(value.kind, _swap(value)) for tag, value in directory.items()}


def _swap(value: Value) -> bytes:
    width = _WORDS[value.kind]
    return b"".join(value.data[start : start + width][::-1] for start in range(0, len(value.data), width)) if width > 1 else value.data


def lay(directory: Directory, order: str, at: int) -> bytes:
    """A directory as the bytes that lie at `at` in a block, with its values and what is nested in it behind it."""
    table = bytearray(struct.pack(order + "H", len(directory)))
    heap = bytearray()
    behind = at + 2 + 12 * len(directory) + 4
    for tag in sorted(directory):
        value = directory[tag]
        place = struct.pack(order + "I", behind + len(heap))
        if isinstance(value, dict):
            table += struct.pack(order + "HHI", tag, LONG, 1) + place
            heap += lay(value, order, behind + len(heap))
            continue
        table += struct.pack(order + "HHI", tag, value.kind, len(value.data) // SIZES[value.kind])
        if len(value.data) <= 4:
            table += value.data.ljust(4, b"\0")
        else:
            table += place
            heap += value.data + b"\0" * (len(value.data) % 2)
    return bytes(table + b"\0\0\0\0" + heap)


def written(directory: Directory, order: str) -> bytes:
    """A block of its own with one directory."""
    return (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8) + lay(directory, order, 8)


def chain(block: Block) -> Iterator[list[Entry]]:
    """The entries of every directory of a block, one after the other. Raises `OutsideError`; `ValueError` where they go in circles."""
    seen = set()
    place = block.first
    while place:
        if place in seen:
            raise ValueError("circle")
        seen.add(place)
        entries, place = block.entries(place)
        yield entries
