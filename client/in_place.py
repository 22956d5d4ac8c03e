"""A folder of the server's machine, restored there in place: started, and followed to its end."""

import threading
from typing import Any, Protocol

from client.errors import ClientError
from client.folder import Tally
from client.http import Batch, Job, Lacuna
from client.restoring import end_of

FOLLOW_S = 1.0  # between two looks
GOING = frozenset({"open", "listing", "running", "paused"})


class InPlaceScreen(Protocol):
    """Shows the run to the user."""

    def moved(self, tally: Tally, rate_per_s: float | None, left_s: float | None) -> None:
        """So far it is."""

    def held_up(self, reason: str) -> None:
        """It is paused, and why: `storage_full`, or a user."""


def survey(lacuna: Lacuna, order: dict[str, Any]) -> Job:
    """The job of a dry run, once it has ended."""
    return lacuna.wait(lacuna.start_folder(order | {"dry_run": True})["id"], poll_s=2)


def follow(lacuna: Lacuna, batch_id: str, screen: InPlaceScreen) -> Batch:
    """The batch once it has ended. Ctrl-C ends the looking, not the batch."""
    pause = threading.Event()
    while (batch := lacuna.batch(batch_id))["state"] in GOING:
        if batch["state"] == "paused" or batch["reason"]:
            screen.held_up(batch["reason"] or "paused by a user")
        elif batch["state"] != "listing":
            screen.moved(tally_of(batch), batch["rate_per_s"], batch["eta_s"])
        pause.wait(FOLLOW_S)
    return batch


def ended_early(lacuna: Lacuna, batch: Batch) -> ClientError:
    """Why a batch failed as a whole, or that somebody canceled it."""
    listing = list(lacuna.jobs(batch=batch["id"], kind="ingest", limit=1))
    if batch["state"] == "failed" and listing and listing[0]["error"]:
        return end_of(listing[0])
    return ClientError("canceled", f"The batch {batch['id']} was canceled", "Run the command again if you want it after all.")


def tally_of(batch: Batch) -> Tally:
    """Its counts, as those of a run."""
    counts = batch["counts"]
    return Tally(
        total=counts["total"] - counts["ignored"],
        restored=counts["succeeded"],
        skipped=counts["skipped"],
        failed=counts["failed"] + counts["canceled"],
        ignored=counts["ignored"],
    )
