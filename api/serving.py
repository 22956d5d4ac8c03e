"""gunicorn's configuration: one process, many threads, most of which only wait."""

from typing import Any

from shared import children, events, settings

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
    children.hold_lifeline(last_seconds=_settings.grace_seconds)


def post_fork(_server: Any, _worker: Any) -> None:
    """In the process that answers."""
    events.configure()
    events.emit("api.started", bind=bind)
