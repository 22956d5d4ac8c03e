"""`make faults N=100`: the long form of the matrix, four rows at a time, and the table that docs/reliability.md shows."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from shared import children
from tests.databases import KINDS
from tests.faults.row import run
from tests.faults.rows import ROWS

AT_ONCE = 4
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- the matrix: written by make faults -->\n", "<!-- the end of the matrix -->\n"
HEAD = "| promises | fault | database | N | violations | 95 % bound | worst recovery |\n| --- | --- | --- | --- | --- | --- | --- |\n"


@click.command()
@click.argument("most", type=int)
@click.option("--only", default="", help="Rows whose fault has this in it.")
@click.option("--database", type=click.Choice(KINDS))
@click.option("--seed", default=0, show_default=True)
@click.option("--write", is_flag=True, help="Write the table into docs/reliability.md.")
def main(most: int, only: str, database: str | None, seed: int, write: bool) -> None:
    """Run each row up to MOST times on each database: slow ones a fifth of that, those of other promises a third."""
    if write and (only or database):
        raise click.UsageError("The table shows every row on every database: leave --only and --database out, or --write.")
    chosen = [(number, kind) for number, row in enumerate(ROWS) if only in row.fault for kind in row.databases if database in (None, kind)]

    def measured(row: tuple[int, str]) -> dict[str, Any]:
        number, kind = row
        began = time.monotonic()
        argv = children.python("tests.faults.matrix", "--one", str(number), kind, str(ROWS[number].repetitions(most)), str(seed))
        answer = subprocess.run(argv, capture_output=True, text=True, check=False)
        broken = {"n": 0, "violations": [f"it could not be run: {answer.stderr[-3000:]}"], "worst": 0.0}
        found: dict[str, Any] = broken if answer.returncode else json.loads(answer.stdout.splitlines()[-1])
        line = f"{ROWS[number].fault:<75} {kind:<10} {found['n']:>4} {len(found['violations']):>4} {found['worst']:>6.1f} s"
        print("\n    ".join([f"{line}  {time.monotonic() - began:>5.0f} s", *found["violations"]]), flush=True)
        return found

    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = list(threads.map(measured, chosen))
    if write:
        _write(chosen, found)
    sys.exit(any(row["violations"] for row in found))


def one(number: str, database: str, repetitions: str, seed: str) -> None:
    """One row in a process of its own: PostgreSQL is its own too, and can be stopped."""
    (found,) = run([ROWS[int(number)]], database, int(repetitions), int(seed))
    print(json.dumps({"n": found.repetitions, "violations": found.complaints, "worst": max(found.recoveries, default=0.0)}))


def _write(chosen: Sequence[tuple[int, str]], found: Sequence[dict[str, Any]]) -> None:
    lines = [
        f"| {', '.join(ROWS[number].promises)} | {ROWS[number].fault} | {kind} | {row['n']} | {len(row['violations'])} "
        f"| {min(1.0, 3 / max(1, row['n'])):.2f} | {row['worst']:.1f} s |\n"
        for (number, kind), row in zip(chosen, found, strict=True)
    ]
    table = BEGIN + HEAD + "".join(lines) + END
    PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: table, PAGE.read_text(encoding="utf-8"), flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(*sys.argv[2:])
    else:
        main()
