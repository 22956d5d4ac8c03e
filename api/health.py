"""Whether the API lives, and whether it can work. Redis away is degraded, not down: workers find their rows by looking."""

from flask import Blueprint, Response, current_app, json
from sqlalchemy.exc import SQLAlchemyError

from api.routes import Routes
from api.schemas import NoQuery
from api.wiring import Ports
from shared.bells import reach

routes = Routes(Blueprint("health", __name__))


@routes.add("GET", "/healthz", {200: "application/json"}, query=NoQuery, problems=("unknown_field",))
def healthz() -> Response:
    """Alive."""
    return Response(json.dumps({"status": "ok"}), content_type="application/json")


@routes.add("GET", "/readyz", {200: "application/json", 503: "application/json"}, query=NoQuery, problems=("unknown_field",))
def readyz() -> Response:
    """Ready: database, blobs and Redis, each for itself."""
    ports: Ports = current_app.extensions["lacuna"]()
    parts = {"database": _database(ports), "blobs": _blobs(ports), "redis": reach.state(ports.settings.redis)}
    down = "down" in (parts["database"], parts["blobs"])
    status = "down" if down else "ok" if parts["redis"] == "ok" else "degraded"
    return Response(json.dumps({"status": status, "parts": parts}), 503 if down else 200, content_type="application/json")


def _database(ports: Ports) -> str:
    try:
        ports.jobs.versions([])
    except SQLAlchemyError:
        return "down"
    return "ok"


def _blobs(ports: Ports) -> str:
    try:
        ports.blobs.draft().discard()
    except OSError:
        return "down"
    return "ok"
