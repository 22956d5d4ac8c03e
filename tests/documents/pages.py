"""Reading the project's pages: their tables, their blocks, and the files they speak of."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_OUT = frozenset({".git", ".venv", ".training", "__pycache__", "build", "node_modules", ".hypothesis", "out"})  # .gitignore names them


def sources() -> list[Path]:
    """Every file of the project that is not made by running it."""
    return sorted(_walk(ROOT))


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT and not name.endswith(("_cache", ".egg-info"))]
        yield from (Path(folder, name) for name in files)


def text(page: str) -> str:
    """A page, by its path from the project's root."""
    return (ROOT / page).read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its level or above. Fails if there is no such heading."""
    level = len(heading) - len(heading.lstrip("#"))
    _, found, rest = text(page).partition(f"\n{heading}\n")
    assert found, f"{page} has no heading “{heading}”: a test reads what stands under it, so keep it, or change the test with it."
    return re.split(rf"^#{{1,{level}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(markdown: str, header: str) -> list[tuple[str, ...]]:
    """The cells of the table whose first line is `header`, without header and rule."""
    lines = markdown.splitlines()
    assert header in lines, f"There is no table that begins with {header!r}."
    found = []
    for line in lines[lines.index(header) + 2 :]:
        if not line.startswith("|"):
            break
        found.append(tuple(cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split(" | ")))
    return found


def blocks(markdown: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", markdown, flags=re.MULTILINE | re.DOTALL)


def difference(page: str, found: Sequence[tuple[str, ...]], expected: Sequence[tuple[str, ...]]) -> str:
    """What to change in a page's table so that it is as expected; empty if nothing."""
    missing = [f"  add     | {' | '.join(row)} |" for row in expected if row not in found]
    odd = [f"  remove  | {' | '.join(row)} |" for row in found if row not in expected]
    return "\n".join([f"{page} says something else than the code:", *missing, *odd]) if missing or odd else ""
