"""Where the files of a model lie on this machine. Those of added models are blobs; here they are kept unpacked, and checked."""

import contextlib
import fcntl
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from shared.blobs.store import Blobs
from shared.errors import Fault, Refused
from shared.models import manifest, registry
from shared.models.store import Model, Models
from trainer.artifact import WEIGHTS, sha256_of
from trainer.execution import export
from trainer.execution.cache import locked
from worker.patience import until_answered

MAKING = ".making-"


@dataclass(frozen=True)
class Artifacts:
    """The models, as folders. `kept` is the folder of this machine's copies; several workers may share it."""

    models: Models
    blobs: Blobs
    kept: Path

    def folder(self, name: str, version: int) -> Path:
        """The folder of a version: manifest, weights, and its exported network if it has one.

        A damaged copy is fetched again. Raises `Refused("unknown_model")`, `Fault("artifact_invalid")` if the blobs are damaged.
        """
        model = until_answered(lambda: self.models.get(name, version))
        if model is None or model.state != "ready":
            raise Refused("unknown_model", f"{name}@{version} is not there any more.")
        if model.id is None:
            return registry.shipped_artifact(name, version)
        place = self.kept / f"{name}@{version}.{model.id}"
        self.kept.mkdir(parents=True, exist_ok=True)
        with locked(self.kept / "lock"):
            if not _intact(place, model):
                with making(self.kept) as folder, contextlib.suppress(FileNotFoundError):  # a blob that is gone
                    self.write(model, folder / "whole")
                    shutil.rmtree(place, ignore_errors=True)
                    (folder / "whole").rename(place)
                if not _intact(place, model):
                    raise Fault("artifact_invalid", f"The stored files of {name}@{version} are damaged: add it under another version.")
        return place

    def write(self, model: Model, folder: Path) -> None:
        """The files of a model with an id, from its row and its blobs, into a new folder."""
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(manifest.dump(model.manifest), encoding="utf-8")
        with self.blobs.open(model.weights_key) as source, (folder / WEIGHTS).open("wb") as target:
            shutil.copyfileobj(source, target)
        if model.exported_key is not None:
            with self.blobs.open(model.exported_key) as source:
                unpack(source, folder / export.FOLDER)


def pack(folder: Path, target: Any) -> None:
    """An exported network as one file, a tar of its record and its files, written to whatever has `write`."""
    with tarfile.open(fileobj=target, mode="w|") as packed:
        for path in sorted(folder.iterdir()):
            packed.add(path, path.name, recursive=False)


def unpack(source: IO[bytes], folder: Path) -> None:
    """What `pack` packed; only the names that an exported network has. The hashes of its record are checked when it is read."""
    folder.mkdir()
    with contextlib.suppress(tarfile.TarError), tarfile.open(fileobj=source, mode="r|") as packed:  # damaged: `export.read` says so
        for member in packed:
            if member.isfile() and member.name in (export.RECORD, *export.FILES) and (content := packed.extractfile(member)):
                with (folder / member.name).open("wb") as file:
                    shutil.copyfileobj(content, file)


def _intact(folder: Path, model: Model) -> bool:
    try:
        if sha256_of(folder / WEIGHTS) != model.manifest.weights_sha256 or manifest.read(folder) != model.manifest:
            return False
        return model.exported_key is None or export.intact(folder / export.FOLDER, model.manifest)
    except (FileNotFoundError, Refused):
        return False


@contextlib.contextmanager
def making(kept: Path) -> Iterator[Path]:
    """A folder to make files in, on the file system of the copies. Those of programs that were killed go with the next one."""
    kept.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with locked(kept / "making"):
            for left in kept.glob(f"{MAKING}*"):
                with contextlib.suppress(BlockingIOError), _mine(left):  # nobody holds it: its program was killed
                    shutil.rmtree(left, ignore_errors=True)  # its child may still write
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix=MAKING, dir=kept)))
            held.enter_context(_mine(folder))
        yield folder


@contextlib.contextmanager
def _mine(folder: Path) -> Iterator[None]:
    """Hold a folder as long as this process lives. Raises BlockingIOError if another one does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
