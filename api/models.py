"""The models there are."""

from typing import Any

from flask import Blueprint, Response, current_app, json

from api.routes import Routes
from api.schemas import ModelPage, ModelView, NoQuery
from api.wiring import Ports
from shared.errors import Refused

routes = Routes(Blueprint("models", __name__))


@routes.add("GET", "/v1/models", {200: ModelPage}, query=NoQuery, problems=("unknown_field", "database_busy"))
def list_models() -> Response:
    """Every model version, with its manifest: what it learnt from, and how good it is."""
    return Response(json.dumps({"items": _views(), "next": None}), content_type="application/json")


@routes.add("GET", "/v1/models/<name>", {200: ModelPage}, query=NoQuery, problems=("model_not_found", "unknown_field", "database_busy"))
def get_model(name: str) -> Response:
    """The versions of one model."""
    versions = [found for found in _views() if found["name"] == name]
    if not versions:
        raise Refused("model_not_found")
    return Response(json.dumps({"items": versions, "next": None}), content_type="application/json")


def _views() -> list[dict[str, Any]]:
    ports: Ports = current_app.extensions["lacuna"]()
    chosen = ports.models.defaults()
    return [
        ModelView(
            **found.model_dump(by_alias=True), default=chosen.get(found.task) == found.reference, aliases=ports.models.aliases(found)
        ).model_dump(mode="json")
        for found in ports.models.list()
    ]
