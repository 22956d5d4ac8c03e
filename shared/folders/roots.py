"""What LACUNA_ROOTS allows: which folders pictures are read from, and which outputs are written to."""

from dataclasses import dataclass
from pathlib import Path

from shared.errors import Refused
from shared.folders.folder import Folder
from shared.settings import Settings


@dataclass(frozen=True)
class Roots:
    """Folders of this machine; none by default."""

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> "Roots":
        """Those of LACUNA_ROOTS."""
        of = {kind: tuple(Path(place) for known, _, place in (root.partition(":") for root in settings.roots) if known == kind)
              for kind in ("read", "write")}  # fmt: skip
        return cls(**of)

    def source(self, place: str) -> Folder:
        """A folder that is read from. Raises `Refused` path_not_allowed, link_refused, folder_not_found, folder_unreadable."""
        return _opened(place, (*self.read, *self.write), "read")

    def target(self, place: str) -> Folder:
        """A folder that outputs are written to. Raises as `source` does."""
        return _opened(place, self.write, "write")


def _opened(place: str, roots: tuple[Path, ...], what: str) -> Folder:
    path = Path(place)
    if not path.is_absolute() or ".." in path.parts:
        raise Refused("path_not_allowed", "Say where it lies from / on, without “..”.")
    root = max((root for root in roots if path.is_relative_to(root)), key=lambda root: len(root.parts), default=None)
    if root is None:
        raise Refused("path_not_allowed", f"LACUNA_ROOTS names no folder around it as {what}:…; whoever runs the server can add it there.")
    return Folder.open(root, path)
