"""Keys, as whoever runs the server makes, sees and revokes them."""

from collections.abc import Iterator
from contextlib import contextmanager

from shared.database.engine import open_database
from shared.keys.store import Keys
from shared.settings import Settings


@contextmanager
def opened(settings: Settings) -> Iterator[Keys]:
    """The keys in the database of these settings, which must have its tables."""
    database = open_database(settings.database)
    try:
        yield Keys(database)
    finally:
        database.dispose()


def first(settings: Settings) -> list[str]:
    """What to say at a start: the first key, if keys are needed and there was never one. It cannot be shown again."""
    if not settings.needs_keys:
        return []
    with opened(settings) as keys:
        key = keys.first()
    return [f"Others can reach this address, so a key is needed. This is the first; it is shown only now:\n  {key}"] if key else []
