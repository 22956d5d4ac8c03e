"""docs/reliability.md is compared with the ablations."""

import inspect

from tests.documents.pages import rows, section
from tests.faults.ablations import ABLATIONS
from tests.faults.wirings import WIRINGS

PAGE = "docs/reliability.md"


def test_every_ablation_has_its_line() -> None:
    found = rows(section(PAGE, "## What is taken away"), "| without | promise | fault | the matrix is |")
    expected = [
        (" ".join(inspect.getdoc(WIRINGS[name]) or "" for name in ablation.without.split(",")), ablation.promise, ablation.fault,
         "red" if ablation.red else "green")
        for ablation in ABLATIONS
    ]  # fmt: skip
    assert found == expected
