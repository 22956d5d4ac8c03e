"""The header of an uploaded safetensors file: whatever it claims, it is refused quickly and before anything is allocated."""

import io
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from shared.errors import Refused
from shared.models import weights


def file_of(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(shape: Any, start: Any, stop: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def check(data: bytes, parameters: int) -> None:
    weights.check(io.BytesIO(data), len(data), parameters)


def test_what_the_library_writes_is_accepted() -> None:
    data = save({"b": np.ones((2, 3), np.float32), "a": np.ones(4, np.float16), "scalar": np.array(1, np.float32)}, {"made": "here"})
    check(data, 11)
    with pytest.raises(Refused, match="holds 11 parameters, and the manifest says 12"):
        check(data, 12)


HOSTILE = {
    "nothing": b"",
    "short": b"\x08\0\0",
    "no header": file_of(b"", length=0),
    "longer than the file": file_of({}, length=10**6),
    "longer than any": file_of({}, length=2**63),
    "no JSON": file_of(b"{"),
    "not UTF-8": file_of(b"\xff\xfe"),
    "deep": file_of(b"[" * 100_000),
    "a list": file_of([]),
    "a huge shape": file_of({"a": tensor([100_000, 100_000], 0, 4)}, bytes(4)),
    "a product that wraps around": file_of({"a": tensor([2**32, 2**32], 0, 0)}),
    "a shape below zero": file_of({"a": tensor([-1, -4], 0, 16)}, bytes(16)),
    "a shape of truths": file_of({"a": tensor([True], 0, 4)}, bytes(4)),
    "a fraction": file_of({"a": tensor([1.0], 0, 4)}, bytes(4)),
    "offsets below zero": file_of({"a": tensor([1], -4, 0)}),
    "offsets behind the end": file_of({"a": tensor([4], 0, 16)}, bytes(4)),
    "offsets turned round": file_of({"a": tensor([1], 4, 0)}, bytes(4)),
    "overlapping": file_of({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, bytes(12)),
    "a gap": file_of({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}, bytes(12)),
    "bytes behind": file_of({"a": tensor([1], 0, 4)}, bytes(8)),
    "another type": file_of({"a": tensor([1], 0, 8, "F64")}, bytes(8)),
    "an entry that is none": file_of({"a": 7}),
    "no offsets": file_of({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "many dimensions": file_of({"a": tensor([1] * 100, 0, 4)}, bytes(4)),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_header_that_lies_is_refused_in_little_memory(data: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(Refused) as refused:
        check(data, 1)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.code == "artifact_invalid"
    assert most < 5_000_000


def test_a_header_that_takes_long_to_read_is_not_read() -> None:
    header = ("{" + ",".join(f'"{number:x}":[]' for number in range(60_000)) + "}").encode()
    data = len(header).to_bytes(8, "little") + header
    file = io.BytesIO(data)
    with pytest.raises(Refused, match="not a safetensors file"):
        weights.check(file, len(data), 1)
    assert file.tell() == 8
