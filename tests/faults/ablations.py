"""`python -m tests.faults.ablations`: every mechanism taken away once, and whether the matrix notices.

Where two overlap, without one of them nothing is broken, and without both something is.
"""

import sys
from dataclasses import dataclass

import click

from tests.faults.row import Found, run
from tests.faults.rows import ROWS
from tests.promises import programs

PATIENCE_SECONDS = 30.0  # something that never happens is waited for


@dataclass(frozen=True)
class Ablation:
    """What is taken away, the row that is run without it, and whether that must break its promises."""

    without: str
    fault: str
    promise: str
    red: bool = True
    repetitions: int = 2


ABLATIONS = (
    Ablation("no_token", "SIGSTOP of the worker beyond its lease, then SIGCONT", "P2"),
    Ablation("no_token", "cancel about when the job ends", "P6", repetitions=6),
    Ablation("row_first", "SIGKILL of the API at each step between upload and bell; sent again", "P1", repetitions=12),
    Ablation("late_sync", "power fails at a step between the bytes and their row", "P1", repetitions=8),
    Ablation("no_folder_sync", "power fails at a step between the bytes and their row", "P1"),
    Ablation("no_file_sync", "power fails at a step between the bytes and their row", "P1"),
    Ablation("no_ringing", "Redis killed, and started again with nothing in it", "P4", red=False),
    Ablation("no_looking", "FLUSHALL among posts", "P4", red=False),
    Ablation("no_ringing,no_looking", "FLUSHALL among posts", "P4"),
    Ablation("no_reaping", "SIGSTOP of the worker beyond its lease, then SIGCONT", "P3"),
    Ablation("no_lone_child", "poison: killed, as when memory is out", "P5"),
    Ablation("no_silence", "poison: native code that never returns and holds the GIL", "P5"),
    Ablation("no_deadline", "poison: a loop without end", "P5"),
    Ablation("no_stopping", "cancel in the middle of a picture", "P6"),
    Ablation("no_pause", "the database's clock alone stepped forward by ten minutes", "P3"),
    Ablation("no_pause", "everything suspended for ten minutes", "P3"),
    Ablation("far_stamps", "all clocks stepped back by ten minutes under load", "P1"),
    Ablation("no_reservation", "the same POST 50 times at once", "P7"),
    Ablation("no_sweeper", "SIGKILL of the worker at each step of an attempt", "P9", repetitions=4),
    Ablation("no_settling", "SIGKILL of the worker at each step of a folder in place", "P9", repetitions=8),
    Ablation("place_first", "a folder in place canceled about when its outputs get there", "P2", repetitions=8),
    Ablation("no_lifeline", "SIGKILL of the guardian", "P9"),
    Ablation("no_guard", "duplicate, forged and malformed messages", "P10"),
)


def ablated(ablation: Ablation, database: str, seed: int = 0) -> Found:
    """The row without it."""
    (row,) = (row for row in ROWS if row.fault == ablation.fault)
    patience, programs.PATIENCE_SECONDS = programs.PATIENCE_SECONDS, PATIENCE_SECONDS
    try:
        (found,) = run([row], database, ablation.repetitions, seed, ablation.without)
    except AssertionError as error:  # not even before the fault
        found = Found(row, database, complaints=[str(error)])
    finally:
        programs.PATIENCE_SECONDS = patience
    return found


@click.command()
@click.option("--database", type=click.Choice(["sqlite", "postgresql"]), default="sqlite")
@click.option("--only", default="", help="Those without what has this in its name.")
def main(database: str, only: str) -> None:
    """Run all ablations."""
    wrong = False
    for ablation in ABLATIONS:
        if only in ablation.without:
            found = ablated(ablation, database)
            mark = "red" if found.complaints else "green"
            print(
                f"{ablation.without:<24} {ablation.promise:<4} {mark:<6} {ablation.fault}  {next(iter(found.complaints), '')[:150]}",
                flush=True,
            )
            wrong |= bool(found.complaints) is not ablation.red
    sys.exit(wrong)


if __name__ == "__main__":
    main()
