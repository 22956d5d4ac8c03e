"""Lets batches go on that were paused because their outputs had no room."""

from shared import events
from shared.batches.store import Batches
from shared.errors import Refused
from shared.folders.roots import Roots


def resume_roomy(batches: Batches, roots: Roots, min_free: int) -> None:
    """Those whose folder of outputs has room again."""
    for batch in batches.paused_full():
        try:
            with roots.target(batch.params["out"]) as target:
                roomy = target.free() > min_free
        except (OSError, Refused) as error:  # its disk is away: the next round looks again
            events.emit("upkeep.failed", reason=f"{type(error).__name__}: {error}"[:300])
            continue
        if roomy:
            batches.resume(batch.owner_id, batch.id)
