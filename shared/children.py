"""Child processes that cannot outlive their parent, and that can be seen to be alive.

A parent gives each child two pipes. The lifeline: the parent only holds it; when the parent dies, however it dies, the
child reads end-of-file and ends itself. The beat: the child writes a line now and then; silence means it is frozen.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

LIFELINE = "LACUNA_CHILD_LIFELINE"  # numbers of inherited descriptors; not settings
BEAT = "LACUNA_CHILD_BEAT"
BEAT_SECONDS = 1.0
GLANCE_SECONDS = 0.05


class Child:
    """A running child, in a process group of its own. `silent_seconds` counts from its start or its last beat."""

    def __init__(
        self, argv: list[str], environ: Mapping[str, str] | None = None, stdin: IO[bytes] | None = None, stdout: int | None = None
    ) -> None:
        """`stdin` and `stdout` as `subprocess` takes them."""
        child_lifeline, self._lifeline = os.pipe()
        self._beat, child_beat = os.pipe()
        os.set_blocking(self._beat, False)
        added = {LIFELINE: str(child_lifeline), BEAT: str(child_beat)}
        self.process = subprocess.Popen(  # noqa: S603  # our own programs
            argv, env={**os.environ, **(environ or {}), **added}, pass_fds=(child_lifeline, child_beat), start_new_session=True,
            stdin=stdin, stdout=stdout,
        )  # fmt: skip
        os.close(child_lifeline)
        os.close(child_beat)
        self.last_beat: dict[str, Any] = {}
        self._heard_at = time.monotonic()
        self._partial = b""

    @property
    def silent_seconds(self) -> float:
        """How long nothing was heard."""
        return time.monotonic() - self._heard_at

    def listen(self, timeout_seconds: float) -> None:
        """Wait for a beat, or the child's end, at most so long. `last_beat` is the newest beat's content."""
        if not select.select([self._beat], [], [], timeout_seconds)[0]:
            return
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._beat, 1 << 16)
            if not data:  # the child closed it: it ends
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(timeout_seconds)
                return
            *lines, self._partial = (self._partial + data).split(b"\n")
            if lines:
                self.last_beat = json.loads(lines[-1])
                self._heard_at = time.monotonic()

    def ended(self) -> int | None:
        """Its exit status (negative: the signal that killed it), or None while it runs."""
        return self.process.poll()

    def terminate(self) -> None:
        """Ask it to end."""
        if self.process.poll() is None:
            self.process.terminate()

    def kill(self) -> None:
        """SIGKILL to its whole group, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS forbids what is left of a group that has ended
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, grace_seconds: float) -> None:
        """Ask it to end, wait so long, then kill what is left of its group. `last_beat` is what it said last."""
        self.terminate()
        self.end(grace_seconds)

    def end(self, grace_seconds: float) -> None:
        """The same of one that was asked to end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace_seconds)
        self.kill()
        self.listen(0)
        self.close()

    def close(self) -> None:
        """Let go of the pipes."""
        if self.process.stdout is not None:
            self.process.stdout.close()
        os.close(self._lifeline)
        os.close(self._beat)


class Asked:
    """Whether somebody asked for something, as a signal's handler may.

    An Event has a lock: a second signal within the first one's handler would wait for it for ever, in the thread that holds it.
    """

    def __init__(self) -> None:
        self._asked = False

    def set(self) -> None:
        """It is asked for."""
        self._asked = True

    def is_set(self) -> bool:
        """Whether it was."""
        return self._asked

    def wait(self, seconds: float) -> bool:
        """Whether it was, or is within so many seconds."""
        until = time.monotonic() + seconds
        while not self._asked and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, GLANCE_SECONDS))
        return self._asked


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this Python."""
    return [sys.executable, "-m", module, *arguments]


def hold_lifeline(on_parent_gone: Callable[[], None] | None = None, last_seconds: float = 5.0) -> None:
    """In the child: when the parent is gone, call `on_parent_gone` (default: SIGTERM to ourselves); SIGKILL after `last_seconds`."""
    descriptor = os.environ.pop(LIFELINE, None)
    if descriptor is None:  # started by hand: nobody to follow
        return

    def follow() -> None:
        while os.read(int(descriptor), 1):
            pass
        if on_parent_gone is not None:
            on_parent_gone()
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(last_seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=follow, name="lifeline", daemon=True).start()


def beat(content: Callable[[], dict[str, Any]] = dict) -> None:
    """In the child: write a beat each second from a thread of its own; `content` is called for each."""
    descriptor = os.environ.pop(BEAT, None)
    if descriptor is None:
        return

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):  # the parent is gone; the lifeline sees to it
            while True:
                os.write(int(descriptor), json.dumps(content()).encode() + b"\n")
                time.sleep(BEAT_SECONDS)

    threading.Thread(target=write, name="beat", daemon=True).start()


def expendable() -> None:
    """In the child: let the kernel end this process first when memory runs out (Linux)."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write("500")
