"""Contracts hold on every kind of database."""

import pytest

from tests.databases import KINDS


@pytest.fixture(scope="session", params=KINDS)
def database(request: pytest.FixtureRequest) -> str:
    return str(request.param)
