"""The two files of a data set: `index`, JSON that lists its pictures, and `pixels`, where they lie one after the other.

Pixels are raw, (height, width, channels), C order, little-endian; uint8, or uint16 where a file has more than 8 bits; one or
three channels. So a program maps the file into memory and reads no more of it than it looks at.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

INDEX, PIXELS = "index", "pixels"  # the parts of a data set's blobs
SCHEMA = 1
ALIGNED = 64  # bytes: where pictures begin


@dataclass(frozen=True)
class Stored:
    """One picture of a set. In a paired one `target` is where the clean picture lies, of the same height, width, channels and bits."""

    name: str  # its path in the set; in a paired one that of the noisy picture
    sha256: str  # of its file; of both, noisy first, in a paired set
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

    @classmethod
    def parse(cls, content: dict[str, Any]) -> "Index":
        """Of what `dump` gave."""
        return cls(content["kind"], content["sha256"], tuple(Stored(**image) for image in content["images"]))
