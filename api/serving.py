"""gunicorn's configuration: one process, many threads, most of which only wait."""

import os
import threading
import time
from typing import Any

from api import watch
from shared import children, events, metrics, settings

_settings = settings.load()

bind = _settings.bind
workers = 1
worker_class = "gthread"
threads = 96
timeout = int(_settings.silence_seconds) or 1  # a worker that does not beat for so long is killed and started again
graceful_timeout = int(_settings.grace_seconds) or 1
keepalive = 5
control_socket_disable = True
forwarder_headers = ""  # SCRIPT_NAME and its like are said by proxies, and there is none
loglevel = "warning"


def on_starting(_server: Any) -> None:
    """In gunicorn's own process, before it forks."""
    children.hold_lifeline(last_seconds=_settings.grace_seconds + 10)  # longer than gunicorn waits for its worker


def post_fork(_server: Any, worker: Any) -> None:
    """In the process that answers."""
    events.configure()
    metrics.start(_settings.metrics)
    threading.Thread(target=_end_after, args=[os.getppid()], name="orphan", daemon=True).start()
    leave = worker.handle_exit

    def stop(*given: Any) -> None:
        watch.stopping.set()
        leave(*given)

    worker.handle_exit = stop  # gunicorn makes it the answer to SIGTERM after this
    events.emit("api.started", bind=bind)


def _end_after(parent: int) -> None:
    """End when gunicorn is gone, also if a client holds a thread by not reading."""
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(_settings.grace_seconds)
    os._exit(1)
