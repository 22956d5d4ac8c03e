"""What a job of each kind does."""

from collections.abc import Callable

from shared.jobs.job import DATASET, Kind
from worker.committer import Committer
from worker.evaluating import evaluate
from worker.ingesting import ingest_dataset
from worker.keeper import Held
from worker.listing import list_folder
from worker.publishing import publish
from worker.restoration import restore
from worker.retrying import retry_failed
from worker.training import train
from worker.unpacking import unpack
from worker.wiring import Ports


def ingest(held: Held, ports: Ports, committer: Committer) -> None:
    """Find the pictures of a batch, wherever they are; or make a data set."""
    attempt = ingest_dataset if DATASET in held.job.input else INGESTS[held.job.input["format"]]
    attempt(held, ports, committer)


INGESTS: dict[str, Callable[[Held, Ports, Committer], None]] = {"folder": list_folder, "archive": unpack, "retry": retry_failed}
ATTEMPTS: dict[str, Callable[[Held, Ports, Committer], None]] = {
    Kind.RESTORE: restore, Kind.PUBLISH: publish, Kind.INGEST: ingest, Kind.TRAIN: train, Kind.EVALUATE: evaluate,
}  # fmt: skip
