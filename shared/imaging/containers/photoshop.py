"""Photoshop's image resources, in which JPEG and PNG keep IPTC (IIM 4.2)."""

import struct

SIGNATURE = b"Photoshop 3.0\0"
_IPTC = 0x0404


def iptc(block: bytes) -> bytes | None:
    """The IPTC among the resources of a block; the block itself where it is bare IPTC."""
    if block[:1] == b"\x1c":
        return block
    at = 0
    while block[at : at + 4] == b"8BIM" and at + 12 <= len(block):
        name = 1 + block[at + 6]
        start = at + 6 + name + name % 2
        if start + 4 > len(block):
            return None
        (length,) = struct.unpack_from(">I", block, start)
        data = block[start + 4 : start + 4 + length]
        if struct.unpack_from(">H", block, at + 4)[0] == _IPTC:
            return data or None
        at = start + 4 + length + length % 2
    return None


def block(data: bytes) -> bytes:
    """A block with IPTC as its only resource."""
    return b"8BIM" + struct.pack(">HHI", _IPTC, 0, len(data)) + data + b"\0" * (len(data) % 2)
