"""Bells over Redis, by Celery. No promise hangs on it: no result backend, acknowledged early, JSON only."""

import base64
import json
import time
from typing import Any
from uuid import uuid4

from celery import Celery
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from redis.exceptions import RedisError

from shared import events
from shared.bells.bell import TASK
from shared.bells.ringer import RingFailed
from shared.jobs.job import Lane

LANES = frozenset(Lane)
UNREADABLE = (ValueError, RecursionError)  # json.JSONDecodeError and UnicodeDecodeError are ValueErrors


class GuardedChannel(kombu_redis.Channel):  # type: ignore[misc]  # kombu has no types
    """Drops what is not JSON. Kombu would let it end the whole worker: one stranger's byte, every job in flight."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except UNREADABLE as error:
            events.emit("bell.dropped", reason=f"unreadable: {error}"[:200])
            raise kombu_redis.Empty from error

    def _receive_one(self, client: Any) -> Any:
        try:
            return super()._receive_one(client)
        except UNREADABLE as error:
            events.emit("bell.dropped", reason=f"unreadable: {error}"[:200])
            raise kombu_redis.Empty from error

    def _get(self, queue: str) -> Any:
        try:
            return super()._get(queue)
        except UNREADABLE as error:
            events.emit("bell.dropped", reason=f"unreadable: {error}"[:200])
            raise kombu_redis.Empty from error


class GuardedTransport(kombu_redis.Transport):  # type: ignore[misc]  # kombu has no types
    """Redis, with the guarded channel; and of what lies in a lane, Celery sees nothing but bells that were made here."""

    Channel = GuardedChannel

    def _deliver(self, message: Any, queue: str) -> None:
        if not _is_message(message):
            events.emit("bell.dropped", reason="JSON, but no message")
            return
        if queue in LANES:
            job_id = _who_rang(message)
            if job_id is None:
                events.emit("bell.dropped", reason="a message, but no bell")
                return
            message = _bell(job_id, queue, message["properties"]["delivery_tag"])
        super()._deliver(message, queue)


# by name, not as Celery's `broker_transport`: Kombu lets the scheme of a `redis+socket://` address win over that
TRANSPORT_ALIASES.update(redis=f"{__name__}:GuardedTransport", rediss=f"{__name__}:GuardedTransport")


def _is_message(message: Any) -> bool:
    """Whether Kombu can deliver it: what its own virtual transports put into a queue."""
    if not isinstance(message, dict) or not isinstance(message.get("body"), str) or not isinstance(message.get("headers"), dict):
        return False
    properties = message.get("properties")
    if not isinstance(properties, dict) or not isinstance(properties.get("delivery_tag"), str):
        return False
    delivery = properties.get("delivery_info")
    return properties.get("body_encoding") == "base64" and isinstance(delivery, dict) and {"exchange", "routing_key"} <= delivery.keys()


def _who_rang(message: dict[str, Any]) -> str | None:
    """The job that a bell names; None if it is no bell."""
    try:
        (job_id,), *_ = json.loads(base64.b64decode(message["body"]))
    except (TypeError, *UNREADABLE):
        return None
    return job_id if message["headers"].get("task") == TASK and isinstance(job_id, str) else None


def _bell(job_id: str, lane: str, delivery_tag: str) -> dict[str, Any]:
    """A bell as Kombu delivers it. Made anew: a header or an encoding that Celery does not expect ends the whole worker."""
    return {
        "body": base64.b64encode(json.dumps([[job_id], {}, {}]).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": TASK, "id": str(uuid4()), "lang": "py"},
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": lane},
            "delivery_tag": delivery_tag,
        },
    }


def celery_app(redis_url: str) -> Celery:
    """The Celery application of worker and ringer. Opens nothing."""
    app = Celery("lacuna", broker=redis_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_transport_options={"socket_connect_timeout": 2, "socket_timeout": 10, "retry_on_timeout": False},
        task_acks_late=False,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        task_create_missing_queues=True,
        task_ignore_result=True,
        task_publish_retry=False,
        task_serializer="json",
        worker_enable_remote_control=True,
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=1,
    )
    return app


ENOUGH = 16  # bells in a lane that nobody took yet: no thread is free, and who hears one looks for all that is due
HEARD_SECONDS = 0.02  # in less time nobody hears so many


class CeleryRinger:
    """Publishes bells, as long as there are not enough in the lane: while all workers are busy, nobody takes them out."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._full: dict[str, float] = {}  # lane → until when there are enough, for certain

    def ring(self, lane: str, job_id: str) -> None:
        """See `Ringer.ring`."""
        if time.monotonic() < self._full.get(lane, 0.0):
            return
        try:
            with self._app.pool.acquire(block=True) as connection:
                if connection.default_channel.client.llen(lane) >= ENOUGH:
                    self._full[lane] = time.monotonic() + HEARD_SECONDS
                    return
            self._app.send_task(TASK, args=[job_id], queue=lane, ignore_result=True)
        except (OperationalError, RedisError, OSError) as error:
            raise RingFailed(str(error)) from error
