"""Removes what no row names, after a grace: blobs of refused requests and lost attempts, drafts of dead programs."""

from itertools import groupby

from shared import events
from shared.blobs.store import Blobs
from shared.datasets.store import Datasets
from shared.jobs.store import Jobs
from shared.models.store import Models

CHUNK = 500


def sweep(jobs: Jobs, models: Models, datasets: Datasets, blobs: Blobs, grace_seconds: float) -> int:
    """One pass; how many blobs and drafts were removed.

    Left alone: what a row names, whatever a running job, or a model or data set in preparation has, all of a job that changed within the
    grace, and files that are no blobs.
    """
    old = sorted(blob.key for blob in blobs.stored() if blob.age_seconds > grace_seconds and blob.key.count("/") == 2)
    by_owner = [(owner, list(keys)) for owner, keys in groupby(old, key=lambda key: key.split("/")[1])]
    removed = 0
    for start in range(0, len(by_owner), CHUNK):
        chunk = by_owner[start : start + CHUNK]
        owners = [owner for owner, _ in chunk]
        kept = jobs.kept_parts(owners, grace_seconds) | models.kept_parts(owners) | datasets.kept_parts(owners)
        for owner, keys in chunk:
            named = kept.get(owner, set())
            if named is None:
                continue
            for key in set(keys) - named:
                blobs.delete(key)
                removed += 1
    removed += blobs.sweep_drafts(grace_seconds)
    jobs.sweep_reservations()
    if removed:
        events.emit("upkeep.swept", blobs=removed)
    return removed
