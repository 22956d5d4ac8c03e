"""The two files of a data set: `index`, JSON that lists its pictures, and `pixels`, where they lie one after the other.

Pixels are raw, (height, width, channels), C order, little-endian; uint8, or uint16 where a file has more than 8 bits; one or
three channels. So a program maps the file into memory and reads no more of it than it looks at.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

INDEX, PIXELS = "index", "pixels"  # the parts of a data set's blobs, each with the token of the attempt behind it
SCHEMA = 1
ALIGNED = 64  # bytes: where pictures begin


@dataclass(frozen=True)
class Stored:
    """One picture of a set. In a paired one `target` is where the clean picture lies, of the same height, width, channels and bits."""

    name: str  # its path in the set; in a paired one that of the noisy picture
    sha256: str  # of its file; in a paired set `of_pair`
    split_key: str  # the smallest hash of all that look like it: decides on which side of the split it lies
    height: int
    width: int
    channels: Literal[1, 3]
    bits: Literal[8, 16]
    offset: int
    target: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height, self.width, self.channels

    @property
    def size(self) -> int:
        """Bytes."""
        return self.height * self.width * self.channels * self.bits // 8


@dataclass(frozen=True)
class Index:
    """What a set holds. `sha256` is that of its pictures' hashes, sorted: the same contents are the same set."""

    kind: Literal["clean", "paired", "noisy"]
    sha256: str
    images: tuple[Stored, ...]

    def dump(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"schema": SCHEMA, "kind": self.kind, "sha256": self.sha256, "images": [asdict(image) for image in self.images]}

    def lines(self) -> Iterator[bytes]:
        """The same as the bytes of the file, a picture a line: a hundred thousand of them need not be in memory twice."""
        head = json.dumps({"schema": SCHEMA, "kind": self.kind, "sha256": self.sha256})
        yield f'{head[:-1]}, "images": [\n'.encode()
        for number, image in enumerate(self.images):
            yield f"{',' if number else ''}{json.dumps(asdict(image))}\n".encode()
        yield b"]}\n"

    @classmethod
    def parse(cls, content: dict[str, Any]) -> "Index":
        """Of what `dump` gave, or of the file."""
        return cls(content["kind"], content["sha256"], tuple(Stored(**image) for image in content["images"]))


def of_set(hashes: Iterable[str]) -> str:
    """The hash of a set with pictures of these hashes, in whatever order."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def of_pair(noisy: str, clean: str) -> str:
    """The hash of a pair, from those of its two files."""
    return hashlib.sha256(f"{noisy}\n{clean}".encode()).hexdigest()


def aligned(offset: int) -> int:
    """Where the next picture begins."""
    return -(-offset // ALIGNED) * ALIGNED
