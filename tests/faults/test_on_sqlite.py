"""The short form of the matrix, this database's half of it. A file for each, so that both run at once."""

from tests.faults.short import short


def test_no_fault_breaks_a_promise() -> None:
    assert short("sqlite") == []
