"""Traps: a fault that waits at a named point of a program, and strikes whoever comes by first, once.

A test lays one as a file of the home; the wiring `traps` looks for it at each point (tests/faults/wirings.py).
"""

import errno
import os
import signal
import threading
from pathlib import Path

from sqlalchemy.exc import OperationalError

FOLDER = "traps"


def lay(home: Path, point: str, fault: str = "kill") -> None:
    """The next to come to `point` gets `fault`.

    kill and stop are signals; full is the disk, away the database; nothing only shows that it came.
    """
    (home / FOLDER).mkdir(exist_ok=True)
    path = home / FOLDER / point
    path.with_suffix(".new").write_text(fault, encoding="ascii")
    path.with_suffix(".new").rename(path)


def lift(home: Path) -> None:
    """Take away those that nobody came by."""
    for path in (home / FOLDER).glob("*"):
        path.unlink(missing_ok=True)


def strike(home: Path, point: str) -> None:
    """Come by. Raises what the fault `full` or `away` is to a program."""
    path = home / FOLDER / point
    mine = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
    try:
        path.rename(mine)
    except FileNotFoundError:
        return
    fault = mine.read_text(encoding="ascii")
    mine.unlink()
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif fault == "away":
        raise OperationalError("COMMIT", {}, Exception("the answer was lost"))
    elif fault != "nothing":
        raise ValueError(fault)
