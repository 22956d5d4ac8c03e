"""The faults, by what they happen to."""

from tests.faults.row import Row
from tests.faults.rows import api, clock, database, folders, lanes, power, races, real, redis, workers

ROWS: tuple[Row, ...] = (
    *api.ROWS,
    *workers.ROWS,
    *races.ROWS,
    *redis.ROWS,
    *database.ROWS,
    *clock.ROWS,
    *power.ROWS,
    *lanes.ROWS,
    *folders.ROWS,
    *real.ROWS,
)
