"""`python -m benchmarks.recorded FILE MODULE …`: one of our programs, rewired to write down when each thread does what.

A line of the file is a span: JSON of the thread, the stage, and its begin and end in seconds of the monotonic clock, which all
processes share.
"""

import functools
import json
import runpy
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from shared.imaging import codec, preview
from shared.settings import Settings
from trainer.execution.openvino import OpenVinoNetwork
from worker import wiring
from worker.committer import Committer
from worker.loop import Loop


class Recorder:
    """Writes spans."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._writing = threading.Lock()

    def spans(self, call: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """The same call, each of which is written down when it has ended."""

        @functools.wraps(call)
        def recorded(*arguments: Any, **options: Any) -> Any:
            began = time.monotonic()
            try:
                return call(*arguments, **options)
            finally:
                self.write(stage, began)

        return recorded

    def write(self, stage: str, began: float) -> None:
        """A span that ends now."""
        thread = threading.current_thread()
        line = json.dumps([f"{thread.name} {thread.ident}", stage, began, time.monotonic()])
        with self._writing:
            self._file.write(line + "\n")
            self._file.flush()


class Waited:
    """A lock; how long it was waited for is written down."""

    def __init__(self, lock: threading.Lock, recorder: Recorder) -> None:
        self._lock = lock
        self._recorder = recorder

    def __enter__(self) -> None:
        began = time.monotonic()
        self._lock.acquire()
        self._recorder.write("wait", began)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def main() -> None:
    """Rewire this process, then be the program."""
    path, module, *arguments = sys.argv[1:]
    with Path(path).open("a", encoding="utf-8") as file:
        _rewire(Recorder(file))
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def _rewire(recorder: Recorder) -> None:
    make = wiring.make

    def made(settings: Settings, executor: str) -> wiring.Ports:
        ports = make(settings, executor)
        ports.networks.device = Waited(ports.networks.device, recorder)  # type: ignore[assignment]
        return ports

    wiring.make = made
    replaced: tuple[tuple[Any, str, str], ...] = (
        (codec, "decode", "decode"), (codec, "encode", "encode"), (preview, "encode", "preview"), (OpenVinoNetwork, "run", "compute"),
        (Committer, "succeed", "answer"), (Committer, "_commit", "commit"), (Loop, "_claim", "claim"),
    )  # fmt: skip
    for owner, name, stage in replaced:
        setattr(owner, name, recorder.spans(getattr(owner, name), stage))


if __name__ == "__main__":
    main()
