"""What must be written is written, even if the database is away for a while: the lease is valid until somebody reaps it."""

import time
from collections.abc import Callable
from typing import TypeVar

from shared import events
from shared.database.engine import AWAY

AGAIN_SECONDS = 0.5

T = TypeVar("T")


def until_answered(call: Callable[[], T]) -> T:
    """The answer of `call`, which is made again as long as the database does not answer."""
    while True:
        try:
            return call()
        except AWAY as error:
            events.emit("database.away", reason=type(error).__name__)
            pause()


def pause() -> None:
    """Before it is tried again."""
    time.sleep(AGAIN_SECONDS)
