"""How things are written on a terminal and in a pipe."""

from collections.abc import Mapping, Sequence
from typing import Any


def legible(text: str, longest: int | None = None) -> str:
    """`text` without characters that would steer the terminal, cut in its middle to at most `longest` characters."""
    clean = "".join(character if character.isprintable() else "?" for character in text)
    if longest is None or len(clean) <= longest:
        return clean
    return f"{clean[: longest // 2]}…{clean[len(clean) - (longest - longest // 2 - 1) :]}"


def counted(number: int, what: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """`1.9 s`, `42 s`, `5 min`, `3 h`, `12 d`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    for unit_s, unit, limit_s in ((1, "s", 90), (60, "min", 5400), (3600, "h", 129_600)):
        if seconds < limit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def amount(size: float) -> str:
    """`731 kB`, `1.9 MB`, `42 GB`: of bytes."""
    unit, of = next(((unit, of) for unit, of in (("kB", 1e3), ("MB", 1e6)) if size < 999.5 * of), ("GB", 1e9))
    return f"{size / of:.1f} {unit}" if size < 9.95 * of else f"{size / of:.0f} {unit}"


def gain(metrics: Mapping[str, Any]) -> str:
    """`31.20 dB, 8.05 dB more than before`: how close a picture came to its reference; equal pictures have no dB."""
    after, before = metrics["output"]["psnr"], metrics["input"]["psnr"]
    if after is None:
        return "equal to the reference"
    if before is None:
        return f"{after:.2f} dB; it was equal to the reference before"
    return f"{after:.2f} dB, {abs(after - before):.2f} dB {'more' if after >= before else 'less'} than before"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[str] = frozenset()) -> list[str]:
    """Aligned lines, the headings first, two spaces between columns. The columns named in `right` are flush right."""
    lines = [list(headings), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = []
    for line in lines:
        cells = zip(line, widths, headings, strict=True)
        aligned.append("  ".join(cell.rjust(width) if name in right else cell.ljust(width) for cell, width, name in cells).rstrip())
    return aligned
