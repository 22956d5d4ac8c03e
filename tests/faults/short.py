"""The short form: rows of the matrix once each, but for those that are much like another."""

from tests.databases import KINDS
from tests.faults.row import grouped, run
from tests.faults.rows import ROWS


def short(database: str) -> list[str]:
    """What was broken in this database's share of the rows: one does every other row, the other the rest."""
    share = [row for row in ROWS if not row.long_only][KINDS.index(database) :: len(KINDS)]
    found = [row for rows in grouped(share) for row in run(rows, database, 1, 0)]
    return [f"{row.row.fault}, {complaint}" for row in found for complaint in row.complaints]
