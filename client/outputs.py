"""Where a restored picture goes, and what it is called."""

from dataclasses import dataclass
from pathlib import Path

ENDINGS = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png",),
    "tiff": (".tif", ".tiff"),
    "webp": (".webp",),
    "bmp": (".bmp", ".dib"),
}


LOSSY = frozenset({"jpeg", "webp"})  # where a picture is filled and all else stays as it is, these become PNG


@dataclass(frozen=True)
class Destination:
    """A folder, in which every picture keeps its name; one file; or neither: beside each picture."""

    folder: Path | None = None
    file: Path | None = None


def destination_of(out: str | None, *, pictures: int) -> Destination:
    """What the user means by `--out`. Raises `NotADirectoryError` if several pictures should go into one file."""
    if out is None:
        return Destination()
    path = Path(out)
    if path.is_dir() or out.endswith("/"):
        return Destination(folder=path)
    if pictures == 1:
        return Destination(file=path)
    if path.exists():
        raise NotADirectoryError(out)
    return Destination(folder=path)


def output_path(picture: Path, destination: Destination, new_format: str | None) -> Path:
    """Where the restored `picture` goes. If its format changes it keeps its whole name: `a.jpg` becomes `a.jpg.png`."""
    if destination.file:
        return destination.file
    name = picture.name if destination.folder else f"{picture.stem}.restored{picture.suffix}"
    return named_as((destination.folder or picture.parent) / name, new_format)


def named_as(path: Path, new_format: str | None) -> Path:
    """The same with the ending of that format behind its whole name; as it is, if there is none."""
    return path if new_format is None else path.with_name(path.name + ENDINGS.get(new_format, (f".{new_format}",))[0])


def asked_change(picture: Path, wanted: str, task: str) -> str | None:
    """The format that `picture` changes to when `--format` is `wanted`, as far as its name tells; None if it stays."""
    named = format_named(picture)
    if task == "inpaint" and wanted == "keep" and named in LOSSY:
        return "png"
    return None if wanted in {"keep", named} else wanted


def told_change(before: str, after: str) -> str | None:
    """The format that a picture changed to, as its job tells: `before` and `after` are names or media types."""
    return None if format_of(before) == format_of(after) else format_of(after)


def format_named(path: Path) -> str | None:
    """The format that the ending of a file's name promises."""
    ending = path.suffix.lower()
    return next((name for name, endings in ENDINGS.items() if ending in endings), None)


def format_of(name: str) -> str:
    """`JPEG` and `image/jpeg` are both `jpeg`."""
    return name.lower().removeprefix("image/").removeprefix("x-ms-")
