"""Where exported networks are found: beside the weights, else in this home's cache, else made there now.

Written atomically, checked on load, made anew when damaged. Several workers may want one at once: one makes it, the others wait.
"""

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from shared import events
from shared.errors import Fault
from shared.models import manifest
from trainer.execution import export
from trainer.execution.export import Exported
from trainer.execution.tensorflow import installed as tensorflow_installed


def exported(artifact: Path, cached: Path, look: Callable[[], None] = lambda: None) -> Exported:
    """The exported network of an artifact's folder; `cached` is the folder of the cache, `look` as in `export.make`.

    Raises `Inexpressible`, or `Fault("artifact_invalid")` where there is none and nothing to make it with.
    """
    described = manifest.read(artifact)
    if found := export.read(artifact / export.FOLDER, described):
        return found
    place = cached / f"{described.reference}.{described.hash_of_weights[:16]}.{export.exporter()}"
    if found := export.read(place, described):
        return found
    cached.mkdir(parents=True, exist_ok=True)
    with locked(cached / "lock"):
        if found := export.read(place, described):  # another worker made it while we waited
            return found
        if not tensorflow_installed():
            raise Fault(
                "artifact_invalid",
                f"{described.reference} is not exported for OpenVINO, and TensorFlow, which does that, is not installed here. "
                f"Run `python -m trainer export` where it is, and bring the folder {export.FOLDER}/ along; "
                "a model that you added, add again as another version.",
            )
        for left in cached.glob(".export-*"):  # of one that was killed
            shutil.rmtree(left, ignore_errors=True)
        events.emit("model.exporting", model=described.reference)
        export.make(artifact, place, look)
        for older in cached.glob(f"{described.reference}.{described.hash_of_weights[:16]}.*"):
            if older != place:
                shutil.rmtree(older, ignore_errors=True)
    if found := export.read(place, described):
        return found
    raise Fault("internal", f"The exported network of {described.reference} does not read back as it was written.")


@contextlib.contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold a lock among all processes of this machine."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
