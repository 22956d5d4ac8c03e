"""A folder of the server's machine, restored there in place: started, and followed to its end."""

import threading
from typing import Any, Protocol

from client.errors import ClientError, ProblemError
from client.folder import Tally
from client.http import Batch, Job, Lacuna
from client.restoring import end_of

FOLLOW_S = 1.0  # between two looks
LOOKED_AT = 100  # batches, the newest, among which one under way is looked for
PLACES = ("folder", "out", "mask", "masks", "references", "pattern", "quality", "strength")  # and what else is left out of a batch's params
DEFAULTS: dict[str, Any] = {"task": "denoise", "format": "keep", "speed": "normal", "verify": False}
GOING = frozenset({"open", "listing", "running", "paused"})


class InPlaceScreen(Protocol):
    """Shows the run to the user."""

    def began(self, tally: Tally) -> None:
        """It is known how many files there are."""

    def moved(self, tally: Tally, rate_per_s: float | None, left_s: float | None) -> None:
        """So far it is."""

    def held_up(self, reason: str) -> None:
        """It is paused, and why: `storage_full`, or a user."""


def survey(lacuna: Lacuna, order: dict[str, Any]) -> Job:
    """The job of a dry run, once it has ended."""
    return lacuna.wait(lacuna.start_folder(order | {"dry_run": True})["id"], poll_s=2)


def start(lacuna: Lacuna, order: dict[str, Any]) -> tuple[Batch, bool]:
    """The batch that does this, and whether it was under way already: a run whose client was killed goes on by itself."""
    try:
        return lacuna.start_folder(order), False
    except ProblemError as problem:
        if problem.code == "output_busy":
            for batch in lacuna.batches(limit=LOOKED_AT):
                if batch["state"] in GOING and _does(batch["params"], order):
                    return batch, True
        raise


def _does(params: dict[str, Any], order: dict[str, Any]) -> bool:
    """Whether a batch with these parameters does what is ordered."""
    asked = DEFAULTS | {name: value for name, value in order.items() if name in (*DEFAULTS, *PLACES)}
    asked["overwrite"] = order.get("on_existing") == "overwrite"
    model = order.get("model")
    return all(params.get(name) == asked.get(name) for name in (*asked, *PLACES)) and (
        model is None or model in (params.get("model"), str(params.get("model")).partition("@")[0])
    )


def follow(lacuna: Lacuna, batch_id: str, screen: InPlaceScreen) -> Batch:
    """The batch once it has ended. Ctrl-C ends the looking, not the batch."""
    pause, began = threading.Event(), False
    while (batch := lacuna.batch(batch_id))["state"] in GOING:
        if batch["state"] == "paused" or batch["reason"]:
            screen.held_up(batch["reason"] or "paused by a user")
        elif batch["state"] != "listing" and not began:
            began = True
            screen.began(tally_of(batch))
        elif began:
            screen.moved(tally_of(batch), batch["rate_per_s"], batch["eta_s"])
        pause.wait(FOLLOW_S)
    return batch


def ended_early(lacuna: Lacuna, batch: Batch) -> ClientError:
    """Why a batch failed as a whole, or that somebody canceled it."""
    listing = listed(lacuna, batch)
    if batch["state"] == "failed" and listing and listing["error"]:
        return end_of(listing)
    return ClientError("canceled", f"The batch {batch['id']} was canceled", "Run the command again if you want it after all.")


def listed(lacuna: Lacuna, batch: Batch) -> Job | None:
    """The job that looked through its folder."""
    return next(iter(lacuna.jobs(batch=batch["id"], kind="ingest", limit=1)), None)


def tally_of(batch: Batch, listing: Job | None = None) -> Tally:
    """Its counts, as those of a run; what `listing` found done before is told apart from what is in the way."""
    counts = batch["counts"]
    kept = listing["result"]["done_before"] if listing and listing["result"] else 0
    return Tally(
        total=counts["total"] - counts["ignored"],
        restored=counts["succeeded"],
        kept=kept,
        skipped=counts["skipped"] - kept,
        failed=counts["failed"] + counts["canceled"],
        ignored=counts["ignored"],
    )
