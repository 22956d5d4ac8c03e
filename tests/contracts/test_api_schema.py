"""Schemathesis asks for everything that the OpenAPI document describes, and for much that it does not: no 5xx, and no lie."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import negative_data_rejection, positive_data_acceptance
from schemathesis.generation import GenerationMode

from api.app import MODULES
from api.restorations import FILES
from api.routes import Operation
from shared.imaging import metrics
from tests.contracts.api_fixtures import House, open_house, png
from tests.contracts.test_api_archives import packed

EXAMPLES = int(os.environ.get("EXAMPLES", "10"))  # of each operation, well and ill formed; `make schema` takes many
UNSAYABLE = [
    positive_data_acceptance,
    negative_data_rejection,
]  # what a file must hold, which ranges it has, what a key stood for before, that a job was canceled; and whatever a form holds is text
SENT = {name: png() for name in FILES} | {"archive": packed({"a.png": png()})}  # whatever else is sent is no such file
OPERATIONS = [operation for module in MODULES for operation in module.routes.operations]


def _can_be_wrong(operation: Operation) -> bool:
    """Whether the document forbids anything that a request of this operation could hold."""
    return bool(operation.query.model_fields or operation.form or operation.body or "<job_id>" in operation.rule)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("schema"), max_pixels=10_000) as opened:
        yield opened


@pytest.fixture(scope="module")
def known(house: House) -> list[str]:
    """The ids of jobs that are there: one that waits, one that failed, one that was canceled, one that succeeded, with figures."""
    failed = house.fail(house.restored().id)
    succeeded = house.succeed(house.restored().id, metrics=metrics.judge(*[np.zeros((20, 20, 1), np.uint8)] * 3))
    canceled = house.restored()
    house.jobs.cancel("local", canceled.id)
    return [failed.id, canceled.id, succeeded.id, house.restored().id]


@pytest.fixture(scope="module")
def described(house: House) -> Any:
    def served(environ: Any, start_response: Any) -> list[bytes]:
        """The application, whose answers are closed as a server does. Of a stream the beginning is enough: it lasts a minute."""
        types = []

        def started(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            types.append(dict(headers).get("Content-Type"))
            return start_response(status, headers, *rest)

        with contextlib.closing(house.app(environ, started)) as answer:  # type: ignore[type-var]  # werkzeug's can be closed
            return list(itertools.islice(answer, 1 if types == ["text/event-stream"] else None))

    return schemathesis.openapi.from_wsgi("/openapi.json", served)


ASKED = [(operation, mode) for operation in OPERATIONS for mode in GenerationMode if mode.is_positive or _can_be_wrong(operation)]


@pytest.mark.parametrize(("operation", "mode"), ASKED, ids=[f"{operation.name}-{mode.value}" for operation, mode in ASKED])
def test_whatever_is_asked_the_answer_is_what_the_document_says(
    described: Any, known: list[str], operation: Any, mode: GenerationMode
) -> None:
    address = operation.rule.replace("<", "{").replace(">", "}")
    cases = described[address][operation.method].as_strategy(generation_mode=mode)

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(case=cases, job_id=st.sampled_from([*known, None]))
    def ask(case: Any, job_id: str | None) -> None:
        if mode.is_positive and isinstance(case.body, dict) and case.media_type == "multipart/form-data":
            case.body |= {name: what for name, what in SENT.items() if name in case.body}
        if mode.is_positive and job_id and "job_id" in (case.path_parameters or {}):
            case.path_parameters["job_id"] = job_id
        if mode.is_positive and "wait" in (case.query or {}):
            case.query["wait"] = min(case.query["wait"], 0.1)  # nothing ends here while anybody waits
        if mode.is_positive and job_id and "name" in (case.path_parameters or {}):
            case.path_parameters |= {"name": "denoise"} | ({"version": 1} if "version" in case.path_parameters else {})
        if mode.is_positive and job_id and operation.body:
            case.body |= {name: value for name, value in {"version": 1, "model": "denoise@1"}.items() if name in case.body}
        unsayable = operation.form or {"Range", "Idempotency-Key"} & set(operation.headers) or "canceled" in operation.problems
        which = UNSAYABLE[:1] if operation.body or "If-Match" in operation.headers else []  # which versions there are
        case.call_and_validate(excluded_checks=UNSAYABLE if unsayable else which)

    ask()
