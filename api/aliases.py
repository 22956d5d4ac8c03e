"""What names mean: an owner's aliases of models, and the model that a task uses where none is named."""

import re
from typing import get_args

from flask import Blueprint, Response, current_app, g, request

from api import models
from api.owner import owner_id
from api.routes import Routes
from api.schemas import ALIAS, AliasBody, DefaultBody, ModelView, NoQuery, Task
from api.wiring import Ports
from shared.errors import Refused

CONDITIONS = {
    "If-Match": 'the version that the alias must name now, as in `"3"`; * for any',
    "If-None-Match": "* for an alias that must not be there yet",
}

routes = Routes(Blueprint("aliases", __name__))


@routes.add(
    "PUT", "/v1/models/<name>/aliases/<alias>", {200: ModelView}, query=NoQuery, body=AliasBody, headers=CONDITIONS,
    problems=("model_not_found", "precondition_failed", "unknown_model", "unknown_field", "database_busy"),
)  # fmt: skip
def set_alias(name: str, alias: str) -> Response:
    """Make an alias of yours name a version.

    The version must be ready. The alias's ETag is the version that it names: with `If-Match: "3"` it moves from version 3
    only, with `If-None-Match: *` it is made only if there is none.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    body: AliasBody = g.body
    if not re.fullmatch(ALIAS, alias):
        raise Refused(
            "invalid_field", "An alias is a to z, 0 to 9 and dashes, begins with a letter, and has at most 63 characters.",
            fields={"alias": "not such a name"},
        )  # fmt: skip
    response = models.answer(ports, ports.models.set_alias(owner_id(), name, alias, body.version, _expected))
    response.set_etag(str(body.version))
    return response


@routes.add(
    "DELETE", "/v1/models/<name>/aliases/<alias>", {204: ""}, query=NoQuery, headers=CONDITIONS,
    problems=("model_not_found", "precondition_failed", "unknown_field", "database_busy"),
)  # fmt: skip
def remove_alias(name: str, alias: str) -> Response:
    """Take an alias of yours away."""
    ports: Ports = current_app.extensions["lacuna"]()
    ports.models.remove_alias(owner_id(), name, alias, _expected)
    return Response(status=204)


@routes.add(
    "PUT", "/v1/models/defaults/<task>", {200: ModelView}, query=NoQuery, body=DefaultBody,
    problems=("unknown_task", "unknown_model", "model_task", "unknown_field", "database_busy"),
)  # fmt: skip
def set_default(task: str) -> Response:
    """Choose the model that a task uses where your jobs name none.

    It must be ready, and do that task.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    body: DefaultBody = g.body
    return models.answer(ports, ports.models.set_default(owner_id(), _known(task), body.model))


@routes.add(
    "DELETE", "/v1/models/defaults/<task>", {204: ""}, query=NoQuery,
    problems=("unknown_task", "unknown_field", "database_busy"),
)  # fmt: skip
def remove_default(task: str) -> Response:
    """Go back to the default that comes with Lacuna."""
    ports: Ports = current_app.extensions["lacuna"]()
    ports.models.remove_default(owner_id(), _known(task))
    return Response(status=204)


def _expected(version: int | None) -> bool:
    """Whether the request's `If-Match` and `If-None-Match` (RFC 9110) hold for an alias that names this version; None: there is none."""
    etag = "" if version is None else str(version)
    if "If-Match" in request.headers and not (version is not None and request.if_match.contains(etag)):
        return False
    return "If-None-Match" not in request.headers or version is None or not request.if_none_match.contains_weak(etag)


def _known(task: str) -> str:
    if task not in get_args(Task):
        raise Refused("unknown_task")
    return task
