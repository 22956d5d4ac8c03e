"""Whose request it is. Where no key is needed none is looked at, and everybody is the owner `local`."""

from flask import Blueprint, Response, current_app, g, request

from api.routes import Routes
from api.schemas import NoQuery
from api.wiring import Ports
from shared.errors import Refused
from shared.keys.store import LOCAL

COOKIE = "lacuna_key"
OPEN = ("/healthz", "/problems/", "/static/")  # nothing that is anybody's: answered without a key

routes = Routes(Blueprint("owner", __name__))


def owner_id() -> str:
    """The owner of this request."""
    return str(g.owner_id)


def identify(ports: Ports) -> None:
    """Find out whose request it is. Raises `Refused` key_required or key_refused."""
    g.owner_id = LOCAL
    if not ports.settings.needs_keys or request.path.startswith(OPEN):
        return
    key = _bearer() or request.cookies.get(COOKIE)
    if not key:
        raise Refused("key_required")
    owner = ports.keys.owner_of(key)
    if owner is None:
        raise Refused("key_refused")
    g.owner_id = owner


@routes.add(
    "POST",
    "/v1/session",
    {204: ""},
    query=NoQuery,
    headers={"Authorization": "Bearer and the key"},
    problems=("unknown_field", "database_busy"),
)
def open_session() -> Response:
    """Change a key for a cookie that only this site gets to see.

    For browsers, which cannot send headers along with pictures and event streams.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    response = Response(status=204)
    if ports.settings.needs_keys and (key := _bearer()):  # it was looked at before this was called
        response.set_cookie(COOKIE, key, httponly=True, samesite="Strict", secure=request.is_secure)
    return response


def _bearer() -> str | None:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None
