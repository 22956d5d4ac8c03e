"""docs/reliability.md is compared with the rows of the matrix and the ablations."""

import inspect

from tests.documents.pages import rows, section
from tests.faults.ablations import ABLATIONS
from tests.faults.rows import ROWS
from tests.faults.wirings import WIRINGS

PAGE = "docs/reliability.md"


def test_the_matrix_shows_every_row_on_every_database_without_a_violation() -> None:
    header = "| promises | fault | database | N | violations | 95 % bound | worst recovery |"
    found = rows(section(PAGE, "## How it is measured"), header)
    expected = [(", ".join(row.promises), row.fault, kind) for row in ROWS for kind in row.databases]
    assert [row[:3] for row in found] == expected, f"{PAGE} shows an older matrix: run `make faults`, which writes the table."
    assert {row[4] for row in found} == {"0"}, f"{PAGE} shows violations."


def test_every_ablation_has_its_line() -> None:
    found = rows(section(PAGE, "## What is taken away"), "| without | promise | fault | the matrix is |")
    expected = [
        (" ".join(inspect.getdoc(WIRINGS[name]) or "" for name in ablation.without.split(",")), ablation.promise, ablation.fault,
         "red" if ablation.red else "green")
        for ablation in ABLATIONS
    ]  # fmt: skip
    assert found == expected
