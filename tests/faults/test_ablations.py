"""The matrix can go red: the quickest of the ablations. `make ablations` runs them all."""

import pytest

from tests.faults.ablations import ABLATIONS, Ablation, ablated
from tests.faults.rows import ROWS

QUICK = [ablation for ablation in ABLATIONS if ablation.without == "no_reservation"]


@pytest.mark.parametrize("ablation", QUICK, ids=lambda ablation: ablation.without)
def test_without_its_mechanism_a_promise_is_broken(ablation: Ablation) -> None:
    assert ablated(ablation, "sqlite").complaints


def test_every_ablation_names_a_row_and_one_of_its_promises() -> None:
    promises = {row.fault: row.promises for row in ROWS}
    assert [ablation for ablation in ABLATIONS if ablation.promise not in promises[ablation.fault]] == []
