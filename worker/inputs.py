"""The files of a job's input: blobs, or what is read in place."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from shared.folders import inputs
from worker.wiring import Ports


@contextmanager
def opened(ports: Ports, part: dict[str, Any]) -> Iterator[BinaryIO]:
    """That of a part of the input. Raises `Refused` where it is read in place and is not there as it was."""
    if in_place(part):
        with inputs.opened(ports.outputs.roots, part) as file:
            yield file
    else:
        with ports.blobs.open(part["key"]) as file:
            yield file


def in_place(part: dict[str, Any]) -> bool:
    """Whether it is a file of the user's."""
    return "folder" in part
