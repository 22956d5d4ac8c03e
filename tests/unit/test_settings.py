"""A setting that cannot be used stops the start with a sentence that names it."""

from pathlib import Path

import pytest

from shared import settings
from shared.settings import Settings, SettingsError


def load(environ: dict[str, str], file: Path = Path("none.toml")) -> Settings:
    return settings.load(environ, file)


def test_without_anything_set_every_default_can_be_used() -> None:
    assert load({}) == Settings()


def test_what_the_environment_says_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "lacuna.toml"
    file.write_text('bind = "127.0.0.1:1"\nMAX_ATTEMPTS = 7\n')
    assert (load({}, file).bind, load({}, file).max_attempts) == ("127.0.0.1:1", 7)
    assert load({"LACUNA_BIND": "127.0.0.1:2"}, file).bind == "127.0.0.1:2"


def test_a_home_is_absolute_and_knows_the_user() -> None:
    assert load({"LACUNA_HOME": "~/pictures"}).home == Path.home() / "pictures"
    assert load({"LACUNA_HOME": "here"}).home == Path.cwd() / "here"


def test_hosts_are_a_list_with_commas() -> None:
    assert load({"LACUNA_HOSTS": "localhost, photos.local,"}).hosts == ("localhost", "photos.local")


def test_what_a_parent_tells_its_child_and_what_the_client_reads_are_no_settings() -> None:
    assert load({"LACUNA_CHILD_BEAT": "7", "LACUNA_SERVER": "http://127.0.0.1:9"}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LACUNA_LEASE_SECOND", "30"),  # misspelt
        ("LACUNA_LEASE_SECONDS", "soon"),
        ("LACUNA_LEASE_SECONDS", "nan"),
        ("LACUNA_LEASE_SECONDS", "-1"),
        ("LACUNA_LEASE_SECONDS", "15"),  # a lost renewal would lose the lease
        ("LACUNA_SWEEP_SECONDS", "60"),  # uploads last longer
        ("LACUNA_WORKERS", "0"),
        ("LACUNA_MAX_ATTEMPTS", "1.5"),
        ("LACUNA_EXECUTOR", "abacus"),
        ("LACUNA_HOSTS", ","),
        ("LACUNA_HOSTS", "localhost:8080"),
        ("LACUNA_HOSTS", "::1"),
        ("LACUNA_BIND", "127.0.0.1:0"),
        ("LACUNA_BIND", "::1:8080"),
        ("LACUNA_BIND", "[::1:8080"),
        ("LACUNA_HOME", "photos/a?b"),
        ("LACUNA_HOME", "photos/a%41b"),
        ("LACUNA_HOME", "photos/a#b"),
        ("LACUNA_DATABASE_URL", "sqlite:///"),
        ("LACUNA_DATABASE_URL", "sqlite:///:memory:"),
        ("LACUNA_BIND", "8080"),
        ("LACUNA_BIND", "127.0.0.1:70000"),
        ("LACUNA_BIND", "photos.local:8080"),
        ("LACUNA_BIND", "0.0.0:8080"),
        ("LACUNA_BIND", "127.0.0.1:²"),
        ("LACUNA_DATABASE_URL", "mysql://db/lacuna"),
        ("LACUNA_REDIS_URL", "localhost:6379"),
        ("LACUNA_REDIS_URL", "amqp://localhost"),  # the guard against forged messages stands before Redis only
        ("LACUNA_REDIS_URL", "redis://localhost:port/0"),
    ],
)
def test_an_unknown_or_absurd_value_is_one_sentence_that_names_the_setting(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as error:
        load({name: value})
    sentence = str(error.value)
    assert sentence.startswith(name)
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize("content", [b"lease = = 3", "home = 'K\u00f6ln'".encode("latin-1")])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "lacuna.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"lacuna\.toml is not TOML"):
        load({}, file)


def test_a_file_is_held_to_the_same_rules_as_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "lacuna.toml"
    for line in ("lease_second = 30", "workers = 0", "[lacuna]\nworkers = 8"):
        file.write_text(line)
        with pytest.raises(SettingsError, match=r"^LACUNA_[A-Z_]+ .*\.$"):
            load({}, file)


@pytest.mark.parametrize(
    "url", ["redis://localhost", "rediss://user:word@redis.local:6380/1", "redis+socket:///run/redis.sock?virtual_host=0"]
)
def test_a_redis_elsewhere_is_used_as_given(url: str) -> None:
    assert load({"LACUNA_REDIS_URL": url}).redis == url


@pytest.mark.parametrize("address", ["127.0.0.1:8080", "localhost:1", "[::1]:8080", "127.8.0.1:80"])
def test_every_loopback_address_can_be_bound(address: str) -> None:
    assert load({"LACUNA_BIND": address}).bind == address


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({}, False),
        ({"LACUNA_BIND": "[::1]:8080", "LACUNA_HOSTS": "localhost,127.0.0.1"}, False),
        ({"LACUNA_BIND": "0.0.0.0:8080"}, True),
        ({"LACUNA_BIND": "[::]:8080"}, True),
        ({"LACUNA_BIND": "192.0.2.1:8080"}, True),
        ({"LACUNA_HOSTS": "localhost,photos.local"}, True),  # somebody forwards it to us
        ({"LACUNA_HOSTS": "localhost,192.0.2.1"}, True),
    ],
)
def test_keys_are_needed_as_soon_as_anybody_else_could_ask(settings: dict[str, str], needed: bool) -> None:
    assert load(settings).needs_keys is needed


@pytest.mark.parametrize("hosts", ["localhost", "photos.local,127.0.0.1", "[::1],localhost"])
def test_hosts_are_names_or_addresses_in_brackets(hosts: str) -> None:
    assert load({"LACUNA_HOSTS": hosts}).hosts == tuple(hosts.split(","))


def test_an_empty_home_is_the_usual_one_and_not_the_working_directory() -> None:
    assert load({"LACUNA_HOME": ""}).home == Settings().home
