"""Errors as RFC 9457 problems: one table of codes (shared/errors.py), one form, one page for each code."""

import errno
from typing import Any, TypeVar

from flask import Flask, Response, g, json, render_template, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import HTTPException

from shared import events
from shared.database.engine import AWAY
from shared.errors import CODES, LacunaError, Refused

SHOWN = 100  # characters of a name from outside that an answer repeats

F = TypeVar("F", bound=BaseModel)

# werkzeug's own errors → our codes
_HTTP_CODES = {
    400: "malformed_multipart",
    404: "route_not_found",
    405: "method_not_allowed",
    413: "upload_too_large",
    416: "range_not_satisfiable",
}


def install(app: Flask) -> None:
    """Answer every error of `app` as a problem."""
    app.register_error_handler(LacunaError, _ours)
    app.register_error_handler(HTTPException, _http)
    for away in AWAY:
        app.register_error_handler(away, _busy)
    app.register_error_handler(OSError, _storage)
    app.register_error_handler(Exception, _unforeseen)
    app.add_url_rule("/problems/<code>", "problem", page)


def answer(code: str, detail: str | None = None, status: int | None = None, fields: dict[str, str] | None = None) -> Response:
    """A problem as a response. `status` is the code's own unless another is given."""
    kind = CODES[code]
    body: dict[str, Any] = {
        "type": f"{request.script_root}/problems/{code}",  # not by url_for, which fails for some host names
        "title": kind.title,
        "status": status or kind.status,
        "detail": detail or kind.advice,
        "code": code,
        "request_id": g.get("request_id", ""),
    }
    if fields:
        body["errors"] = [{"field": name, "code": code, "detail": what} for name, what in fields.items()]
    return Response(json.dumps(body), body["status"], content_type="application/problem+json")


def page(code: str) -> str:
    """The page that a problem's `type` names."""
    if code not in CODES:
        raise Refused("route_not_found", f"There is no problem “{code}”.")
    return render_template("problem.html", code=code, kind=CODES[code])


def parse(form: type[F], values: dict[str, Any]) -> F:
    """`values` as `form`. Raises `Refused` unknown_field, unknown_task or invalid_field, naming every field that is wrong."""
    try:
        return form.model_validate(values)
    except ValidationError as error:
        fields = {_place(item, form): item["msg"].removeprefix("Value error, ") for item in error.errors()}
        unknown = [str(item["loc"][0])[:SHOWN] for item in error.errors() if item["type"] == "extra_forbidden"]
        known = ", ".join(form.model_fields) or "none"
        if unknown:
            raise Refused("unknown_field", f"There is no field “{unknown[0]}” here; there are: {known}.", fields=fields) from error
        code = "unknown_task" if "task" in fields else "invalid_field"
        name, what = next(iter(fields.items()))
        raise Refused(code, f"{name}: {what}.", fields=fields) from error


def _place(item: Any, form: type[BaseModel]) -> str:
    """Which field an error is about. One about several fields has the name of one of them as its type."""
    named = item["type"] if item["type"] in form.model_fields else ""
    return ".".join(map(str, item["loc"]))[:SHOWN] or named


def parse_query(form: type[F]) -> F:
    """The request's query as `form`. Raises as `parse` does."""
    for name, values in request.args.lists():
        if len(values) > 1:
            raise Refused("invalid_field", f"“{name[:SHOWN]}” is there twice.", fields={name[:SHOWN]: "given twice"})
    return parse(form, request.args.to_dict())


def _ours(error: LacunaError) -> Response:
    response = answer(error.code, error.detail, fields=error.fields)
    if error.kind.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def _http(error: HTTPException) -> Response:
    code = _HTTP_CODES.get(error.code or 500, "internal")
    response = answer(code, status=error.code)
    for name, value in error.get_headers():  # a 405 without Allow is no 405
        if name.lower() != "content-type":
            response.headers[name] = value
    return response


def _busy(error: Exception) -> Response:
    events.emit("request.crashed", cause=error)
    response = answer("database_busy")
    response.headers["Retry-After"] = "2"
    return response


def _storage(error: OSError) -> Response:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return _unforeseen(error)
    events.emit("request.crashed", cause=error)
    response = answer("storage_full")
    response.headers["Retry-After"] = "60"
    return response


def _unforeseen(error: Exception) -> Response:
    events.emit("request.crashed", cause=error)
    return answer("internal")
