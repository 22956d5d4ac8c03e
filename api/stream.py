"""`GET /v1/events`: jobs as they change, as server-sent events.

A stream holds a thread, so there are few, and each ends after a minute: the client comes back with the id of the last event
it has. That id is a time, up to which it has been told; rows that changed later, and for safety a little earlier, are told
then. Nothing polls here: the thread of `api/watch.py` looks, and wakes the streams.
"""

import contextlib
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from flask import Blueprint, Response, copy_current_request_context, current_app, g, json, request
from sqlalchemy.exc import SQLAlchemyError

from api import jobs as jobs_api
from api import watch
from api.owner import owner_id
from api.routes import Routes
from api.schemas import EventsQuery
from api.watch import Following
from api.wiring import Ports
from shared import events
from shared.errors import Refused, Transient
from shared.jobs.job import Job
from shared.jobs.store import LATE_MS, Change, Scope

STREAMS = 24  # at once
STREAM_SECONDS = 60.0
HEARTBEAT_SECONDS = 5.0  # a client that is gone is noticed when something is sent to it
AT_ONCE = 500  # jobs that a new stream begins with, beside those that run
CHUNK = 100  # rows read at once
PAGE = 1_000  # changes read at once
RESUMED_MS = 6 * 3_600_000  # who was away for longer begins anew

Views = Callable[[list[Job]], list[dict[str, Any]]]  # jobs as JSON

routes = Routes(Blueprint("stream", __name__))

_room = threading.BoundedSemaphore(STREAMS)


@routes.add(
    "GET", "/v1/events", {200: "text/event-stream"}, query=EventsQuery, headers={"Last-Event-ID": "the id of the last event you have"},
    problems=("bad_id", "job_not_found", "invalid_field", "unknown_field", "database_busy", "too_many_streams"),
)  # fmt: skip
def stream_events() -> Response:
    """Jobs as they change, as server-sent events.

    First the states as they are, then each job when it changes; states in between may be skipped. A stream ends after a
    minute and is resumed with `Last-Event-ID`; drop a job whose `version` you have.
    """
    ports: Ports = current_app.extensions["lacuna"]()
    query: EventsQuery = g.query
    job_id = jobs_api.find(ports, query.job).id if query.job is not None else None
    batch_id = jobs_api.known_id(query.batch) if query.batch is not None else None
    since = _last_event()
    response = Response(content_type="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"  # nginx would keep the events until it has many
    if request.method == "HEAD":
        return response
    views = copy_current_request_context(lambda jobs: jobs_api.views(ports, jobs))  # links are made within a request only
    with contextlib.ExitStack() as held:
        if not _room.acquire(blocking=False):
            raise Transient("too_many_streams", retry_after_s=5)
        held.callback(_room.release)
        followed = held.enter_context(ports.watch.following(Scope(owner_id(), job_id, batch_id)))  # before reading: no change falls between
        response.response = _begin(ports, followed, since if job_id is None else None, views)
        response.call_on_close(held.pop_all().close)
    return response


def _last_event() -> int | None:
    given = request.headers.get("Last-Event-ID")
    if not given:
        return None
    if not re.fullmatch("[0-9]{1,15}", given):
        raise Refused("invalid_field", "Last-Event-ID takes the id of an event.", fields={"Last-Event-ID": "not one of ours"})
    recent = time.time() * 1000 - RESUMED_MS  # the database's clock may be another, but not by hours
    return int(given) if int(given) > recent else None


def _begin(ports: Ports, followed: Following, since: int | None, views: Views) -> Iterator[str]:
    """A stream whose first rows are read: where the database is away, none begins."""
    if since is None:
        return _stream(ports, followed, ports.jobs.current(followed.scope, AT_ONCE), iter(()), views)
    pages = _changed(ports, followed.scope, since - LATE_MS)
    return _stream(ports, followed, [], itertools.chain([next(pages, [])], pages), views)


def _stream(ports: Ports, followed: Following, current: list[Job], missed: Iterator[list[Change]], views: Views) -> Iterator[str]:
    until = time.monotonic() + STREAM_SECONDS
    told: dict[str, int] = {}  # job → version

    def tell(jobs: list[Job], watermarks: list[int]) -> Iterator[str]:
        """Those jobs whose state was not told; each watermark is a time up to which everything was told with that job."""
        new = [(job, mark) for job, mark in zip(jobs, watermarks, strict=True) if job.version > told.get(job.id, 0)]
        told.update({job.id: job.version for job, _ in new})
        for shown, (_, watermark) in zip(views([job for job, _ in new]), new, strict=True):
            yield f"id: {watermark}\nevent: job\ndata: {json.dumps(shown)}\n\n"

    def tell_of(changes: list[Change]) -> Iterator[str]:
        """The jobs that changed, as they are now; but those that were deleted meanwhile."""
        for start in range(0, len(changes), CHUNK):
            chunk = changes[start : start + CHUNK]
            rows = ports.jobs.these(change.id for change in chunk)
            there = [change for change in chunk if change.id in rows]
            yield from tell([rows[change.id] for change in there], [change.changed_at for change in there])

    yield "retry: 1000\n\n"
    try:
        yield from tell(current, [job.changed_at for job in current])
        for page in missed:
            yield from tell_of(page)
            if _left(until) <= 0:  # the next stream goes on from here
                return
        while (seconds := _left(until)) > 0:
            news, looked_at = ports.watch.news(followed, min(seconds, HEARTBEAT_SECONDS))
            yield from tell_of(news)
            if not news:
                yield ": still here\n" + (f"id: {looked_at}\n\n" if looked_at else "\n")
    except SQLAlchemyError as error:  # the client comes back, and is told what it missed
        events.emit("watch.failed", reason=type(error).__name__)


def _left(until: float) -> float:
    """Seconds; none when the service stops."""
    return 0.0 if watch.stopping.is_set() else until - time.monotonic()


def _changed(ports: Ports, scope: Scope, since: int) -> Iterator[list[Change]]:
    """All that changed since, in pages: it may be long ago."""
    after = ""
    while page := ports.jobs.changed(scope, since, after, PAGE):
        yield page
        since, after = page[-1].changed_at, page[-1].id
