"""Where the files of a data set lie: in a folder of this machine, or in an archive that was sent. They are only read."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import BinaryIO, Protocol

from shared import disk
from shared.archives import archive as archives
from shared.archives.archive import Archive
from shared.errors import LacunaError, Refused
from shared.folders import names
from shared.folders.folder import Folder
from shared.jobs.job import Job
from worker.listing import unreadable
from worker.wiring import Ports


class Collection(Protocol):
    """Files by their paths, with / between names."""

    def files(self) -> Iterator[tuple[str, LacunaError | None]]:
        """All files, and the folders that cannot be looked into, with what is known to be wrong with them."""
        ...

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """One of them, to read and seek. Raises `Refused`."""
        ...


class Below:
    """What lies below a folder."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def files(self) -> Iterator[tuple[str, LacunaError | None]]:
        """See `Collection.files`. A picture that is a link or a device counts as one that cannot be read."""
        for entry in self._folder.walk():
            error: LacunaError | None = None
            if entry.error is not None:
                error = unreadable(entry.error)
            elif is_picture(entry.path) and entry.stat is None:
                error = Refused("link_refused", "It is a link or a device, and no file.")
            elif is_picture(entry.path) and names.is_long(entry.path):
                error = Refused("file_unreadable", f"Its path has more than {names.LONGEST} bytes.")
            yield entry.path, error

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """See `Collection.open`."""
        try:
            with self._folder.file(path) as file:
                yield file
        except OSError as error:
            raise unreadable(error) from error


class Packed:
    """What an archive holds."""

    def __init__(self, archive: Archive, ports: Ports, look: Callable[[], None]) -> None:
        """Raises `Refused` archive_bomb or archive_corrupt for what is not unpacked."""
        self._ports = ports
        self._look = look
        self._archive = archive
        self._members = {member.path: member for member in archive.members}
        wanted = [member for path, member in self._members.items() if is_picture(path)]
        archive.check_sizes(wanted, ports.settings.max_upload, disk.free(ports.settings) - ports.settings.min_free)

    def files(self) -> Iterator[tuple[str, LacunaError | None]]:
        """See `Collection.files`."""
        for path in self._members:
            yield path, None

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """See `Collection.open`. It lies on the disk meanwhile, unpacked."""
        draft = self._ports.blobs.draft()
        try:
            self._archive.unpack(self._members[path], draft, self._look)
            with draft.reader() as file:
                yield file
        finally:
            draft.discard()


@contextmanager
def collected(job: Job, ports: Ports, look: Callable[[], None]) -> Iterator[Collection]:
    """What the job is to make a data set of; `look` is called on the way, and may raise. Raises `Refused` for folder or archive."""
    if "folder" in job.input:
        with ports.outputs.roots.source(job.input["folder"]) as folder:
            yield Below(folder)
    else:
        with ports.blobs.open(job.input["key"]) as file, archives.opened(file) as archive:
            yield Packed(archive, ports, look)


def is_picture(path: str) -> bool:
    """Whether its name says so."""
    return names.is_picture(path.rsplit("/", 1)[-1])


def size_of(file: BinaryIO) -> int:
    """Bytes."""
    return os.fstat(file.fileno()).st_size
