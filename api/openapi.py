"""The API described by itself: OpenAPI 3.1 as JSON, and the same as a plain page."""

import re
from typing import Any, get_args

from flask import Flask, Response, json, redirect, render_template, url_for
from markupsafe import Markup, escape
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.owner import COOKIE, OPEN
from api.routes import Operation
from api.schemas import ALIAS, Problem, Task
from shared.errors import CODES

_PATH = {  # what stands between the slashes of an address
    "job_id": {"type": "string", "format": "uuid"},
    "batch_id": {"type": "string", "format": "uuid"},
    "dataset_id": {"type": "string", "format": "uuid"},
    "name": {"type": "string"},
    "version": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    "alias": {"type": "string", "pattern": ALIAS},
    "task": {"enum": list(get_args(Task))},
}
_HEADERS = {"Idempotency-Key": {"pattern": "^[!-~]{1,255}$"}, "Last-Event-ID": {"pattern": "^[0-9]{0,15}$"}}
SCHEMES = {
    "key": {"type": "http", "scheme": "bearer", "description": "made by `lacunad keys add`"},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "set by POST /v1/session"},
}
REFERENCE = "#/components/schemas/{model}"


def install(app: Flask, operations: list[Operation], version: str) -> None:
    """Serve /openapi.json and /docs."""
    document = describe(operations, version)
    app.add_url_rule("/openapi.json", "openapi", lambda: Response(json.dumps(document), content_type="application/json"))
    app.add_template_filter(with_code)
    app.add_template_filter(takes)
    app.add_url_rule("/", "front", lambda: redirect(url_for("docs")))  # the door that `lacunad up` names
    app.add_url_rule("/docs", "docs", lambda: render_template("docs.html", document=document, codes=CODES))


def with_code(sentence: str) -> Markup:
    """A sentence for a page: what stands between backticks is set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))  # noqa: S704  # escaped first


def takes(schema: dict[str, Any]) -> str:
    """What a field or parameter takes, in words: of JSON Schema, as much as our schemas use."""
    if alternatives := [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]:
        return takes(alternatives[0] | {name: schema[name] for name in ("default",) if name in schema})
    kinds = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    if schema.get("format") == "binary":
        words = "a file"
    elif "enum" in schema or "const" in schema:
        words = ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    else:
        words = kinds.get(schema.get("type", ""), "text")
    least, above, most = (schema.get(name) for name in ("minimum", "exclusiveMinimum", "maximum"))
    if most is not None:
        words += f" above {above:.12g} to {most:.12g}" if above is not None else f" from {least or 0:.12g} to {most:.12g}"
    return f"{words}; {schema['default']} unless given" if schema.get("default") not in (None, "") else words


def describe(operations: list[Operation], version: str) -> dict[str, Any]:
    """The OpenAPI document of these operations."""
    models = {answer for operation in operations for answer in operation.answers.values() if isinstance(answer, type)} | {Problem}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "serialization") for model in ordered], ref_template=REFERENCE)
    parts = {name: part for operation in operations for name, part in _schema(operation.body).get("$defs", {}).items()}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(re.sub(r"<(\w+)>", r"{\1}", operation.rule), {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lacuna",
            "version": version,
            "description": "Removes noise from pictures and fills what is missing, on your own machines.",
        },
        "paths": paths,
        "components": {"schemas": definitions.get("$defs", {}) | parts, "securitySchemes": SCHEMES},
        "security": [{}, *({name: []} for name in SCHEMES)],  # none where the API is reached from its own machine only
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary}
    if operation.description:
        described["description"] = operation.description
    path = [{"name": name, "in": "path", "required": True, "schema": _PATH[name]} for name in re.findall(r"<(\w+)>", operation.rule)]
    headers = [
        {"name": name, "in": "header", "required": False, "description": what, "schema": {"type": "string", **_HEADERS.get(name, {})}}
        for name, what in operation.headers.items()
    ]
    if parameters := path + _query(operation.query) + headers:
        described["parameters"] = parameters
    if content := _content(operation):
        described["requestBody"] = {"required": True, "content": content}
    described["responses"] = {str(status): _answer(answer) for status, answer in operation.answers.items()} | _problems(
        operation.problems if operation.rule in OPEN else (*operation.problems, "key_required", "key_refused")
    )
    return described


def _content(operation: Operation) -> dict[str, Any]:
    """What may be sent: JSON, a form, or either."""
    content: dict[str, Any] = {}
    if operation.body is not None:
        content["application/json"] = {"schema": {name: what for name, what in _schema(operation.body).items() if name != "$defs"}}
    if operation.form is not None:
        schema = operation.form.model_json_schema()
        files = {name: {"type": "string", "format": "binary"} for name in (*operation.files, *operation.optional_files)}
        body = {
            "type": "object",
            "required": list(operation.files),
            "properties": files | schema["properties"],
            "additionalProperties": False,
        }
        content["multipart/form-data"] = {"schema": body}
    return content


def _schema(body: type[BaseModel] | None) -> dict[str, Any]:
    return {} if body is None else body.model_json_schema(ref_template=REFERENCE)


def _query(query: type[BaseModel]) -> list[dict[str, Any]]:
    schema = query.model_json_schema()
    return [
        {"name": name, "in": "query", "required": False, "schema": described} for name, described in schema.get("properties", {}).items()
    ]


def _answer(answer: type[BaseModel] | str) -> dict[str, Any]:
    if isinstance(answer, str):
        return {"description": "OK", "content": {answer: {}}} if answer else {"description": "no body"}
    schema = {"$ref": REFERENCE.format(model=answer.__name__)}
    return {"description": (answer.__doc__ or "").strip(), "content": {"application/json": {"schema": schema}}}


def _problems(codes: tuple[str, ...]) -> dict[str, Any]:
    by_status: dict[str, list[str]] = {}
    for code in codes:
        by_status.setdefault(str(CODES[code].status), []).append(code)
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": ", ".join(names), "content": {"application/problem+json": {"schema": schema}}}
        for status, names in sorted(by_status.items())
    }
