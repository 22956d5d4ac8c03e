"""Keys open what is their owner's until they are revoked, and nobody can read them anywhere."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from shared.keys.store import Keys


@pytest.fixture
def keys(engine: Engine) -> Keys:
    return Keys(engine)


def test_a_key_is_its_owners_until_it_is_revoked(keys: Keys) -> None:
    first, second, other = keys.make("anna", "laptop"), keys.make("anna"), keys.make("ben")
    assert [keys.owner_of(key) for key in (first, second, other)] == ["anna", "anna", "ben"]
    made = keys.list()
    assert [(key.owner_id, key.label, key.revoked_at) for key in made] == [
        ("anna", "laptop", None),
        ("anna", None, None),
        ("ben", None, None),
    ]
    assert keys.revoke(made[0].id)
    assert [keys.owner_of(key) for key in (first, second, other)] == [None, "anna", "ben"]
    assert keys.list()[0].revoked_at is not None
    assert not keys.revoke(made[0].id), "it was revoked before"
    assert not keys.revoke("no such key")


@pytest.mark.parametrize("nobodys", ["", "lacuna_", "x" * 10_000, "é", "a\0b", "' OR 1=1 --"])
def test_what_is_no_key_opens_nothing(keys: Keys, nobodys: str) -> None:
    keys.make()
    assert keys.owner_of(nobodys) is None


def test_a_key_is_long_and_another_each_time_and_not_in_the_database(keys: Keys, engine: Engine) -> None:
    made = {keys.make() for _ in range(20)}
    assert len(made) == 20
    assert all(len(key) >= 43 + len("lacuna_") and key.isascii() for key in made)
    with engine.connect() as connection:
        stored = "\n".join(str(row) for row in connection.execute(text("SELECT * FROM keys")))
    assert not [key for key in made if key in stored or key.removeprefix("lacuna_") in stored]


def test_the_first_key_is_made_once_whoever_starts_at_once(keys: Keys) -> None:
    with ThreadPoolExecutor(4) as starts:
        made = [key for key in starts.map(lambda _: keys.first(), range(4)) if key]
    assert [keys.owner_of(key) for key in made] == ["local"]
    keys.revoke(keys.list()[0].id)
    assert keys.first() is None, "whoever revoked every key did not ask for another one"
