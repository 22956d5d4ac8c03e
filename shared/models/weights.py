"""What a safetensors file says of itself in its header, checked before anything is allocated. Standard library only.

The format: eight bytes with the header's length, the header as JSON, then the bytes of all tensors without gaps
(https://github.com/huggingface/safetensors, "Format").
"""

import json
import math
from typing import Any, BinaryIO

from shared.errors import Refused

LONGEST_HEADER = 400_000  # bytes; a thousand tensors need no more, and a longer one would take an API's breath
ITEM_BYTES = {"F16": 2, "F32": 4}


def check(file: BinaryIO, size: int, parameters: int) -> None:
    """Raises `Refused("artifact_invalid")` unless `file`, of `size` bytes, holds floats as its header says: `parameters` of them."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(LONGEST_HEADER, size - 8):
        raise _wrong("it is cut off, or not a safetensors file")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise _wrong("its header is no JSON") from error
    if not isinstance(header, dict):
        raise _wrong("its header names no tensors")
    header.pop("__metadata__", None)
    spans = sorted((*_span(entry), name) for name, entry in header.items())
    end = 0
    for start, stop, name in spans:
        if start != end:
            raise _wrong(f"{name!r} overlaps another, or leaves a gap")
        end = stop
    if end != size - 8 - length:
        raise _wrong("its tensors do not fill it")
    held = sum(math.prod(entry["shape"]) for entry in header.values())
    if held != parameters:
        raise _wrong(f"it holds {held} parameters, and the manifest says {parameters}")


def _span(entry: Any) -> tuple[int, int]:
    """Where a tensor lies among the bytes of all. Raises `Refused` unless that fits its shape and type."""
    match entry:
        case {"dtype": "F16" | "F32" as dtype, "shape": list(shape), "data_offsets": [int(start), int(stop)]}:
            numbers = [start, stop, *shape]
            sane = len(shape) <= 8 and all(type(number) is int and 0 <= number < 2**40 for number in numbers)
            if sane and stop - start == math.prod(shape) * ITEM_BYTES[dtype]:
                return start, stop
    raise _wrong("a tensor is neither float16 nor float32, or its place does not fit its shape")


def _wrong(what: str) -> Refused:
    return Refused("artifact_invalid", f"The weights cannot be used: {what[:300]}.", fields={"weights": "cannot be used"})
