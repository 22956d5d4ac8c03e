"""A folder held by a descriptor: what lies below it is opened name by name, and no link is followed.

So nothing that is swapped in while we work leads out of it. Paths are relative, with / between names.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from shared.errors import Refused
from shared.folders import names

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe that nobody writes to must not hold us
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
_KEPT_OUT = {errno.EACCES, errno.EPERM}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}  # as on FAT


@dataclass(frozen=True)
class Entry:
    """A file or a folder that is found by walking; `error` says why it cannot be looked into."""

    path: str
    stat: os.stat_result | None = None  # None: no ordinary file, or an error
    error: OSError | None = None


class Folder:
    """An open folder. Raises `Refused` with the codes of folders and files, OSError where the disk itself fails."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def open(cls, root: Path, place: Path) -> "Folder":
        """The folder `place`, which is `root` or lies below it; links may lead to `root`, but not on from there."""
        try:
            descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _told(error, "folder") from error
        with cls(descriptor) as held:
            return held.below(place.relative_to(root).parts)

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._descriptor)

    def below(self, names: Sequence[str], make: bool = False) -> "Folder":
        """The folder that these names lead to, one after the other; with `make` those that are missing are made."""
        descriptor = os.dup(self._descriptor)
        try:
            for name in names:
                if make:
                    _make(name, descriptor)
                try:
                    inner = os.open(name, _DIRECTORY, dir_fd=descriptor)
                except OSError as error:
                    if _is_link(name, descriptor):
                        raise Refused("link_refused") from error
                    raise _told(error, "folder") from error
                os.close(descriptor)
                descriptor = inner
        except BaseException:
            os.close(descriptor)
            raise
        return Folder(descriptor)

    def around(self, path: str, make: bool = False) -> tuple["Folder", str]:
        """The folder that the file at `path` lies in, and the file's name."""
        *folders, name = path.split("/")
        return self.below(folders, make), name

    def file(self, path: str) -> BinaryIO:
        """The ordinary file at `path`, to read."""
        folder, name = self.around(path)
        with folder:
            try:
                descriptor = os.open(name, _FILE, dir_fd=folder._descriptor)
            except OSError as error:
                if _is_link(name, folder._descriptor):
                    raise Refused("link_refused") from error
                raise _told(error, "file") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise Refused("file_gone", "It is no ordinary file any more.")
        return os.fdopen(descriptor, "rb")

    def stat(self, path: str) -> os.stat_result | None:
        """What lies at `path`, be it a link; None if nothing does."""
        try:
            folder, name = self.around(path)
            with folder:
                return os.stat(name, dir_fd=folder._descriptor, follow_symlinks=False)
        except Refused as refused:
            if refused.code == "folder_not_found":
                return None
            raise
        except FileNotFoundError:
            return None

    def new(self, name: str) -> BinaryIO:
        """A new file in this folder, to write and read; one of that name is what a dead attempt left, and goes."""
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        with _writing():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._descriptor)
            return os.fdopen(os.open(name, flags, 0o666, dir_fd=self._descriptor), "w+b")

    def rename(self, name: str, to: str) -> None:
        """Within this folder; what is there is replaced. Raises FileNotFoundError."""
        os.rename(name, to, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def settle(self, name: str, to: str) -> None:
        """Rename within this folder, unless something else is there, which stays. Raises FileExistsError, FileNotFoundError."""
        try:
            os.link(name, to, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor, follow_symlinks=False)
        except FileExistsError:  # or who did this before died before the name went
            if not os.path.samestat(*(os.stat(each, dir_fd=self._descriptor, follow_symlinks=False) for each in (name, to))):
                raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if self.stat(to) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
            self.rename(name, to)
            return
        self.remove(name)

    def remove(self, name: str) -> None:
        """A file of this folder, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def sync(self) -> None:
        """What was made, renamed or removed in it lasts."""
        os.fsync(self._descriptor)

    def longest_name(self) -> int:
        """Bytes that a name in it may have."""
        return os.fpathconf(self._descriptor, "PC_NAME_MAX")

    def free(self) -> int:
        """Bytes that may still be written on its disk."""
        found = os.fstatvfs(self._descriptor)
        return found.f_bavail * found.f_frsize

    def alike(self, path: str) -> str | None:
        """The picture at `path`, or one there whose name differs only in its ending."""
        stem = path.rpartition(".")[0] if "." in path.rpartition("/")[2] else path
        endings = [ending for endings in names.ENDINGS.values() for ending in endings]
        for candidate in (path, *(stem + ending for ending in endings), *(stem + ending.upper() for ending in endings)):
            if self.stat(candidate) is not None:
                return candidate
        return None

    def writable(self) -> bool:
        """Whether files can be made in it."""
        return os.access(".", os.W_OK | os.X_OK, dir_fd=self._descriptor)

    def walk(self) -> Iterator[Entry]:
        """All that is no folder below it, as the disk lists it, and the folders that cannot be looked into. No folder is held in memory."""
        levels: list[_Level] = []
        try:
            yield from _entered(levels, "", self)
            while levels:
                level = levels[-1]
                try:
                    entry = next(level.scanned, None)
                except OSError as error:  # the disk itself fails in the middle
                    yield Entry(level.path, error=error)
                    entry = None
                if entry is None:
                    levels.pop().close()
                    continue
                yield from _looked_at(levels, level, entry)
        finally:
            for level in reversed(levels):
                level.close()


@dataclass(frozen=True)
class _Level:
    """A folder that is being walked, `path` below the one where it began; `mine` if it was opened for that."""

    path: str
    folder: Folder
    scanned: "os._ScandirIterator[str]"
    mine: bool

    def close(self) -> None:
        self.scanned.close()
        if self.mine:
            os.close(self.folder._descriptor)


def _entered(levels: list[_Level], path: str, folder: Folder, mine: bool = False) -> Iterator[Entry]:
    try:
        levels.append(_Level(path, folder, os.scandir(folder._descriptor), mine))
    except OSError as error:
        if mine:
            os.close(folder._descriptor)
        yield Entry(path, error=error)


def _looked_at(levels: list[_Level], level: _Level, entry: "os.DirEntry[str]") -> Iterator[Entry]:
    """A file; or a folder, which is walked next."""
    path = f"{level.path}/{entry.name}" if level.path else entry.name
    try:
        if entry.is_dir(follow_symlinks=False):
            yield from _entered(levels, path, level.folder.below([entry.name]), mine=True)
        else:
            known = os.stat(entry.name, dir_fd=level.folder._descriptor, follow_symlinks=False)
            yield Entry(path, known if stat.S_ISREG(known.st_mode) else None)
    except Refused as refused:
        cause = refused.__cause__
        yield Entry(path, error=cause if isinstance(cause, OSError) else OSError(errno.EACCES, refused.detail))
    except OSError as error:
        yield Entry(path, error=error)


def _make(name: str, descriptor: int) -> None:
    """A folder in another, which lasts: else a power cut could take it away with all that is synced in it."""
    with contextlib.suppress(FileExistsError), _writing():
        os.mkdir(name, dir_fd=descriptor)
        os.fsync(descriptor)


def _is_link(name: str, descriptor: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode)
    except OSError:
        return False


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Raises `Refused("output_not_writable")` where nothing may be made."""
    try:
        yield
    except OSError as error:
        if error.errno in {*_KEPT_OUT, errno.EROFS}:
            raise Refused("output_not_writable") from error
        raise


def _told(error: OSError, what: str) -> Exception:
    """What the user hears of it; itself, where it is the disk's own matter."""
    if error.errno in _GONE:
        return Refused("folder_not_found" if what == "folder" else "file_gone")
    if error.errno in _KEPT_OUT:
        return Refused(f"{what}_unreadable")
    return error
