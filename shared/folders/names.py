"""Which files are pictures, by their names, and what their outputs are called. Paths are relative, with / between names."""

import fnmatch
import hashlib
import os
import re
from pathlib import PurePosixPath
from typing import Any

ENDINGS = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png",),
    "tiff": (".tif", ".tiff"),
    "webp": (".webp",),
    "bmp": (".bmp", ".dib"),
}
LONGEST = 2048  # bytes of a path, or of a place: an index of PostgreSQL holds no more than 2.7 kB a row
OURS = ".lacuna"  # how the names of our own files begin
_ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")


def is_picture(name: str) -> bool:
    """Whether its name says so. `._scan.jpg` is what macOS leaves beside pictures on foreign disks."""
    return not name.startswith(("._", OURS)) and any(name.lower().endswith(endings) for endings in ENDINGS.values())


def is_wanted(path: str, pattern: str | None) -> bool:
    """Whether the file at `path` is a picture, and a shell's `pattern` fits, whose * also crosses folders."""
    return is_picture(path.rsplit("/", 1)[-1]) and (pattern is None or fnmatch.fnmatchcase(path, pattern))


def output(path: str, before: str, after: str) -> str:
    """Where the output of the picture at `path` goes: to the same path; with a new ending behind it, where the format changes."""
    return path if before.lower() == after.lower() else path + ENDINGS[after.lower()][0]


def part(job_id: str, token: int) -> str:
    """What an output is called before it counts."""
    return f"{OURS}-{job_id}.{token}.part"


def beside(path: str, name: str) -> str:
    """The file called `name` in the folder of `path`."""
    folder = str(PurePosixPath(path).parent)
    return name if folder == "." else f"{folder}/{name}"


def place(output: dict[str, Any]) -> str:
    """Where the output of a job lies, as rows remember it."""
    return told(f"{output['folder']}/{output['path']}")


def told(path: str) -> str:
    """A path as text: bytes that are no UTF-8 are written as they are escaped in Python, and of a long one the beginning and a hash."""
    text = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
    if not is_long(text):
        return text
    whole = text.encode()
    return f"{whole[: LONGEST - 64].decode(errors='ignore')}…{hashlib.sha256(whole).hexdigest()[:32]}"


def is_long(path: str) -> bool:
    """Whether no row can hold it."""
    return len(path.encode(errors="surrogatepass")) > LONGEST


def untold(text: str) -> str:
    """The path that `told` told so."""
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), text.encode()))
