"""One attempt at doing again what failed in a batch: each failed picture becomes a new job in its place.

It may die anywhere: what it did already has not failed any more. What fails anew behind it is left for the next retry.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack

from uuid_utils import uuid7

from shared.batches.batch import Item
from shared.blobs.store import copy
from shared.errors import Refused
from shared.folders import order as orders
from shared.jobs.job import Job, NewJob, Success, again, blob_key, input_keys, rekeyed
from worker.committer import Committer
from worker.ending import end
from worker.keeper import Held
from worker.listing import CHUNK, LISTING_SECONDS, Listing, Report, accept, chunks
from worker.patience import until_answered
from worker.wiring import Ports


def retry_failed(held: Held, ports: Ports, committer: Committer) -> None:
    """Go through what failed, in the order of its paths."""
    job = held.job
    began = time.monotonic()
    held.begin(LISTING_SECONDS)
    report = Report()
    try:
        with ExitStack() as opened:
            listing = Listing.open(held, ports, opened) if job.input["order"] else None
            for item in _failed(held, ports):
                held.progress(report.files, report.files + 1)
                if item.job is not None:
                    report.count([new for new in [_again(ports, item.job)] if new is not None])
                elif listing is not None:
                    for found in chunks(listing.at(item.path), CHUNK):
                        report.count(found)
                        accept(held, ports, found, ring=True)
            held.conclude()
            free = listing.target.free() if listing is not None else 0
            committer.succeed(Success(job, report.told(job, ports, free, began), None, [], units=max(report.files, 1)))
    except Exception as error:  # noqa: BLE001  # shared/errors.py decides what becomes of the attempt; nothing is hidden
        end(held, ports, error)


def _failed(held: Held, ports: Ports) -> Iterator[Item]:
    batch_id, after = held.job.batch_id or "", ""
    while page := until_answered(lambda after=after: ports.batches.items(batch_id, "failed", CHUNK, after)):  # type: ignore[misc]
        yield from page
        after = page[-1].path


def _again(ports: Ports, old: Job) -> NewJob | None:
    """A job in the place of `old`; None where there is nothing to do it with, or somebody retried it just now."""
    settings, new_id = ports.settings, str(uuid7())
    keys: set[str] = set()
    try:
        if old.output is not None:
            new = orders.again(ports.outputs.roots, old, new_id, settings.max_pixels, settings.max_attempts, old.request_id)
        else:
            new = again(old, new_id, rekeyed(old.input, new_id), settings.max_attempts, old.request_id)
            keys = input_keys(new.input)
            for key in input_keys(old.input):
                copy(ports.blobs, key, blob_key(new_id, key.rsplit("/", 1)[1]))
            ports.blobs.sync(keys)
        until_answered(lambda: ports.jobs.accept(new))
    except (FileNotFoundError, Refused):  # for certain; after any other error the row may be there, and the sweeper decides
        for key in keys:
            ports.blobs.delete(key)
        return None
    ports.ringer.ring(new.lane, new.id)
    return new
