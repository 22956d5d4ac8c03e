"""What happens, by name. The domain emits named events; log lines are made from them here, and metrics in shared/metrics.py."""

import contextlib
import contextvars
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

# name → (level, what it means). A new event needs a line here, so that a log can be read with this page open.
EVENTS: dict[str, tuple[int, str]] = {
    "api.started": (logging.INFO, "the API answers"),
    "request.answered": (logging.INFO, "a request was answered"),
    "request.crashed": (logging.ERROR, "a request met an error we did not foresee"),
    "job.accepted": (logging.INFO, "a job was accepted"),
    "job.claimed": (logging.INFO, "a worker took a job"),
    "job.succeeded": (logging.INFO, "a job succeeded"),
    "job.failed": (logging.WARNING, "a job failed"),
    "job.retried": (logging.WARNING, "an attempt failed and will be made again"),
    "job.released": (logging.INFO, "a job was given back unharmed: its worker shut down, or a neighbour killed it"),
    "job.reaped": (logging.WARNING, "a lease lapsed: its worker is dead or frozen"),
    "job.canceled": (logging.INFO, "a job was canceled"),
    "job.deleted": (logging.INFO, "a job was deleted: its row, then its files"),
    "batch.created": (logging.INFO, "a batch was opened"),
    "batch.listed": (logging.INFO, "a folder was listed, and its pictures are jobs"),
    "batch.moved": (logging.INFO, "a batch came into another state"),
    "batch.emptied": (logging.INFO, "what had not ended of a canceled batch was canceled"),
    "dataset.ingested": (logging.INFO, "the pictures of a data set were checked and stored: it is ready"),
    "dataset.faulty": (logging.WARNING, "too much of a data set cannot be used; its report says what"),
    "dataset.deleted": (logging.INFO, "a data set was deleted: its row, then its files"),
    "output.unpublished": (logging.WARNING, "an output could not be put in its place; upkeep tries again"),
    "lane.paused": (logging.WARNING, "the disk is nearly full: nothing more of this lane is begun"),
    "lane.resumed": (logging.INFO, "there is space again, and this lane goes on"),
    "group.committed": (logging.DEBUG, "results became lasting and final together; counted, not logged"),
    "job.lost": (logging.WARNING, "an attempt ended that was no longer ours"),
    "attempt.crashed": (logging.ERROR, "an attempt met an error we did not foresee"),
    "bell.failed": (logging.WARNING, "Redis did not take a bell; workers find the row by looking"),
    "bell.dropped": (logging.WARNING, "a message that is no bell of ours was dropped"),
    "model.exporting": (logging.INFO, "a network is exported for OpenVINO; once, and kept"),
    "model.loaded": (logging.INFO, "a network is ready"),
    "model.deleted": (logging.INFO, "a model version was deleted: its row, then its files"),
    "executor.fell_back": (logging.WARNING, "OpenVINO cannot run this network; TensorFlow does"),
    "database.away": (logging.WARNING, "the database did not answer; what must be written is tried again"),
    "watch.failed": (logging.WARNING, "the database did not tell what changed; who waits, waits on"),
    "keeper.failed": (logging.WARNING, "leases could not be renewed this time"),
    "committer.failed": (logging.WARNING, "a group could not be committed; its rows are read instead"),
    "upkeep.failed": (logging.WARNING, "upkeep could not do its round this time"),
    "upkeep.late": (logging.WARNING, "upkeep was late; nothing is reaped for one lease"),
    "upkeep.rang": (logging.INFO, "upkeep rang for rows nobody had taken"),
    "upkeep.expired": (logging.INFO, "pictures and results are no longer kept; their files go later"),
    "upkeep.swept": (logging.INFO, "files that no row names were removed"),
    "metrics.failed": (logging.WARNING, "there is no space to count in; this process goes on without"),
    "part.started": (logging.INFO, "a part was started"),
    "part.ended": (logging.WARNING, "a part ended and is started again"),
    "part.frozen": (logging.WARNING, "a part was silent for too long, or a picture overdue in it: it is killed"),
    "part.stopping": (logging.INFO, "a part stops"),
}  # fmt: skip

_context: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("lacuna_context", default=None)
_log = logging.getLogger("lacuna")
_listeners: list[Callable[[str, Mapping[str, Any]], None]] = []


def emit(name: str, *, cause: BaseException | None = None, **values: Any) -> None:
    """Say that `name` happened. `cause` is logged with its traceback; users never see it."""
    level, _ = EVENTS[name]
    for listener in _listeners:
        listener(name, values)
    _log.log(level, name, extra={"values": values}, exc_info=cause)


def listen(listener: Callable[[str, Mapping[str, Any]], None]) -> None:
    """Call `listener` with the name and the values of every event of this process, in the thread that emits it."""
    _listeners.append(listener)


@contextlib.contextmanager
def context(**values: Any) -> Iterator[None]:
    """Within it, every line that this thread logs carries `values` too (`request_id`, `job_id`, …), also those of libraries."""
    token = _context.set({**(_context.get() or {}), **values})
    try:
        yield
    finally:
        _context.reset(token)


def begin(**values: Any) -> None:
    """As `context`, from now on: for threads that do one thing after another and begin each with this."""
    _context.set(values)


def _values(record: logging.LogRecord) -> dict[str, Any]:
    """Formatted in the thread that logs, so the context is its own."""
    return {**(_context.get() or {}), **getattr(record, "values", {})}


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **_values(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return self._encode(line)

    _encode = staticmethod(json.JSONEncoder(default=str, ensure_ascii=False).encode)  # json.dumps would make one for each line


class _Readable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        values = "  ".join(f"{key}={_legible(value)}" for key, value in _values(record).items())
        line = f"{time}  {record.getMessage():<18} {values}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _legible(value: Any) -> str:
    """`value` on one line, without what would steer a terminal: paths and names come from strangers."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in str(value))


def configure(level: int = logging.INFO) -> None:
    """Log to standard error: readable on a terminal, one JSON object a line elsewhere."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # we show none of them
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Readable() if sys.stderr.isatty() else _Json())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _log.setLevel(level)
