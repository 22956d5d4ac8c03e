"""What all formats have in common: the header, and what is kept beside the pixels."""

from dataclasses import dataclass

from shared.imaging.tags import Directory


@dataclass(frozen=True)
class Header:
    """Width and height are in stored pixels; `mode` is Pillow's name for the channels; `bits` are per channel."""

    format: str
    width: int
    height: int
    mode: str
    bits: int

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


@dataclass(frozen=True)
class Exif:
    """Tags as cameras write them, in the byte order `order` (struct's)."""

    directory: Directory
    order: str


@dataclass(frozen=True)
class Metadata:
    """What is no pixels. `dpi` is (horizontal, vertical); `colour` are a PNG's chunks that say what its colours mean."""

    profile: bytes | None = None
    exif: Exif | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    colour: tuple[bytes, ...] = ()
