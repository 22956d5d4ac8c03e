"""What happens to Redis."""

import signal
import time
from contextlib import closing
from random import Random

from redis import Redis

from shared.jobs.job import Lane
from tests.faults.checker import Told
from tests.faults.row import Repetition, Row, all_succeed, posted
from tests.faults.service import Service
from tests.promises.test_programs import FORGED

FILE = ("--appendonly", "yes", "--appendfsync", "always")


def killed(*options: str) -> Repetition:
    """SIGKILL while there is work, posts and work without it, and a new start."""

    def once(service: Service, random: Random) -> Told:
        job_ids = posted(service, random, 2)
        service.kill_redis()
        job_ids += posted(service, random, 2)
        time.sleep(random.random())
        service.start_redis(*options)
        return all_succeed(job_ids)

    return once


def stopped(service: Service, random: Random) -> Told:
    """SIGSTOP: connections that nobody answers, for longer than a lease; all the work is done meanwhile."""
    assert service.redis is not None
    service.redis.send_signal(signal.SIGSTOP)
    began = time.time()
    try:
        job_ids = posted(service, random)
        service.ended(job_ids)
        time.sleep(max(0.0, 4 - (time.time() - began)))
    finally:
        service.redis.send_signal(signal.SIGCONT)
    return Told(all_succeed(job_ids).posted, began)


def flapping(service: Service, random: Random) -> Told:
    """Killed and started again five times while jobs are posted."""
    job_ids = []
    for _ in range(5):
        service.kill_redis()
        job_ids += posted(service, random, 1)
        service.start_redis()
        job_ids += posted(service, random, 1)
    return all_succeed(job_ids)


def flushed(service: Service, random: Random) -> Told:
    """FLUSHALL, again and again among posts."""
    job_ids = []
    with closing(Redis(port=service.redis_port)) as redis:
        for _ in range(4):
            job_ids += posted(service, random, 1)
            redis.flushall()
    return all_succeed(job_ids)


def forged(service: Service, random: Random) -> Told:
    """Bells of others, bells twice, and what is no bell: none of it starts anything, and the worker lives on."""
    worker = service.part("worker.app worker")
    job_ids = posted(service, random, 2)
    with closing(Redis(port=service.redis_port)) as redis:
        messages = [*FORGED, random.randbytes(200), *(redis.lrange(Lane.INTERACTIVE, 0, -1) * 3)]
        random.shuffle(messages)
        for message in messages:
            redis.lpush(random.choice(list(Lane)), message)
        redis.publish("/0.celery.pidbox", b"not JSON")
    job_ids += posted(service, random, 2)
    told = all_succeed(job_ids, 1)
    service.ended(job_ids)
    assert service.part("worker.app worker") == worker
    return told


ROWS = (
    Row("Redis killed, and started again with nothing in it", ("P1", "P4"), killed()),
    Row("Redis killed, and started again with its file", ("P1", "P4"), killed(*FILE)),
    Row("Redis frozen for longer than a lease", ("P1", "P4"), stopped),
    Row("Redis killed five times in a row", ("P1", "P4"), flapping),
    Row("FLUSHALL among posts", ("P1", "P4"), flushed),
    Row("duplicate, forged and malformed messages", ("P4", "P10"), forged),
)
