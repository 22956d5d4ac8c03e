"""The Flask application: addresses, the guard in front of them, and a request id on every answer."""

import re
import threading
import time
from collections.abc import Callable
from importlib.metadata import version

from flask import Flask, Response, current_app, g, request
from uuid_utils import uuid7

from api import (
    aliases,
    artifacts,
    batches,
    datasets,
    evaluations,
    health,
    jobs,
    metrics,
    models,
    openapi,
    owner,
    previews,
    problems,
    restorations,
    retries,
    stream,
    system,
    trainings,
)
from api.wiring import Ports
from shared import events
from shared.errors import Refused

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
READ_AWAY_BYTES = 1 << 16  # as gunicorn's http/parser.py has it
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
MODULES = (
    restorations,
    batches,
    datasets,
    trainings,
    evaluations,
    artifacts,
    jobs,
    retries,
    previews,
    stream,
    models,
    aliases,
    owner,
    system,
    metrics,
    health,
)


def create_app(open_ports: Callable[[], Ports]) -> Flask:
    """The application. `open_ports` is called once, at the first request that needs them."""
    app = Flask("api")
    app.extensions["lacuna"] = _once(open_ports)
    app.before_request(_begin)
    app.before_request(_guard)
    app.after_request(_finish)
    app.teardown_request(lambda _: events.begin())  # the thread's next lines are not this request's
    problems.install(app)
    for module in MODULES:
        app.register_blueprint(module.routes.blueprint)
    openapi.install(app, [operation for module in MODULES for operation in module.routes.operations], version("lacuna"))
    return app


def _once(open_ports: Callable[[], Ports]) -> Callable[[], Ports]:
    lock = threading.Lock()
    opened: list[Ports] = []

    def ports() -> Ports:
        with lock:
            if not opened:
                opened.append(open_ports())
        return opened[0]

    return ports


def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else str(uuid7())
    events.begin(request_id=g.request_id)
    g.began = time.monotonic()


def _guard() -> None:
    """Answer known host names only (DNS rebinding), unsafe methods only to ourselves and to programs, and owners of keys only."""
    ports: Ports = current_app.extensions["lacuna"]()
    host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
    if host.lower() not in (name.lower() for name in ports.settings.hosts):
        raise Refused("host_refused", f"“{host[: problems.SHOWN]}” is not served here; add it to LACUNA_HOSTS if it should be.")
    if request.method not in SAFE:
        _check_origin()
    owner.identify(ports)


def _check_origin() -> None:
    """Raises `Refused("origin_refused")` for pages of other hosts. The scheme may differ: behind a proxy with TLS we see plain HTTP."""
    origin = request.headers.get("Origin")
    if origin is not None:
        scheme, _, host = origin.partition("://")
        if scheme not in ("http", "https") or host.lower() != request.host.lower():
            raise Refused("origin_refused")
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise Refused("origin_refused")


def _is_half_read(response: Response) -> bool:
    """Whether the rest of a refused body may still come: gunicorn reads away so much of it and then ends the connection."""
    long = request.content_length is None or request.content_length > READ_AWAY_BYTES
    has_body = request.content_length or "Transfer-Encoding" in request.headers
    return response.status_code == 408 or bool(response.status_code >= 400 and has_body and long)


def _finish(response: Response) -> Response:
    if _is_half_read(response):
        response.headers["Connection"] = "close"  # else a client sends its next request where nobody hears it
    response.headers["X-Request-Id"] = g.request_id
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Content-Security-Policy", "default-src 'none'; style-src 'self'; frame-ancestors 'none'")
    response.headers.setdefault("Cache-Control", "no-cache" if response.direct_passthrough else "no-store")
    if request.path == "/healthz":  # asked every other second by who watches us
        return response
    milliseconds = round((time.monotonic() - g.began) * 1000, 1)
    route = request.url_rule.rule if request.url_rule is not None else "none"
    method = request.method if request.method in METHODS else "other"  # a client may call it anything
    events.emit("request.answered", method=method, path=request.path, route=route, status=response.status_code, ms=milliseconds)
    return response
