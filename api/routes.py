"""Declaring addresses: each once, with what it takes and answers, so that OpenAPI cannot forget one."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint, current_app, g, request
from pydantic import BaseModel

from api.problems import parse, parse_query
from api.schemas import Form, NoQuery
from api.uploads import receive_json

BODY_PROBLEMS = ("malformed_json", "upload_stalled", "upload_too_large", "invalid_field")  # of every JSON body


@dataclass(frozen=True)
class Operation:
    """One method on one address."""

    method: str
    rule: str  # Flask's form: /v1/jobs/<job_id>
    name: str
    summary: str
    description: str
    query: type[Form]
    form: type[Form] | None  # multipart fields, beside `files`
    files: tuple[str, ...]
    optional_files: tuple[str, ...]
    headers: dict[str, str]  # request headers that mean something, and what
    answers: dict[int, type[BaseModel] | str]  # a model, or a media type
    problems: tuple[str, ...]
    body: type[Form] | None = None  # of JSON


@dataclass
class Routes:
    """The addresses of one module."""

    blueprint: Blueprint
    operations: list[Operation] = field(default_factory=list)

    def add(
        self,
        method: str,
        rule: str,
        answers: dict[int, type[BaseModel] | str],
        *,
        query: type[Form] = NoQuery,
        form: type[Form] | None = None,
        files: tuple[str, ...] = (),
        optional_files: tuple[str, ...] = (),
        headers: dict[str, str] | None = None,
        problems: tuple[str, ...] = (),
        body: type[Form] | None = None,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorate a view. The docstring's first line is the summary, the rest the description.

        What the query says is checked before the view runs, and lies in `g.query`; a JSON body in `g.body`, which is None where there
        may also be a form and one was sent.
        """

        def declare(view: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(view)
            def checked(**path: str) -> Any:
                g.query = parse_query(query)
                if body is not None:
                    sent_form = form is not None and request.mimetype == "multipart/form-data"
                    g.body = None if sent_form else parse(body, receive_json(request, current_app.extensions["lacuna"]().settings))
                return view(**path)

            summary, _, description = (view.__doc__ or "").strip().partition("\n")
            self.operations.append(
                Operation(
                    method, rule, view.__name__, summary.rstrip("."), " ".join(description.split()), query, form, files, optional_files,
                    headers or {}, answers, tuple(dict.fromkeys((*problems, *(BODY_PROBLEMS if body is not None else ())))), body,
                )
            )  # fmt: skip
            self.blueprint.add_url_rule(rule, view.__name__, checked, methods=[method])
            return checked

        return declare
