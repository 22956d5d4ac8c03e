"""What can be set, in one typed class: `LACUNA_…` variables, or `lacuna.toml` in the working directory.

Each setting is described in docs/operations.md. A value that is unknown or absurd stops the start with a sentence.
"""

import functools
import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

PREFIX = "LACUNA_"
CHILD_PREFIX = "LACUNA_CHILD_"  # what a parent tells its child; not settings
CLIENTS = frozenset({"LACUNA_SERVER", "LACUNA_KEY"})  # what `lacuna` reads; whoever sets it may also start a server
FILE = Path("lacuna.toml")
HOST = re.compile(r"[^:\[\]/]+|\[[0-9A-Fa-f:.]+\]")


def _home() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "lacuna"


class Settings(BaseModel):
    """Times in seconds, sizes in bytes, pictures in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    home: Path = Field(default_factory=_home, description="where the database, pictures and running parts keep their files")
    database_url: str = Field("", description="SQLite or PostgreSQL database; empty: SQLite, `lacuna.db` under HOME")
    redis_url: str = Field("", description="Redis or Valkey for the bells; empty: the embedded one, on a socket under HOME")
    bind: str = Field("127.0.0.1:8080", description="address and port of the API")
    hosts: tuple[str, ...] = Field(("localhost", "127.0.0.1", "[::1]"), min_length=1, description="host names that are answered")
    roots: tuple[str, ...] = Field((), description="folders of this machine that may be restored in place: `read:DIR`, `write:DIR`")
    max_upload: int = Field(10**9, ge=1, description="largest request, in bytes")
    max_pixels: int = Field(120_000_000, ge=1, description="largest picture, in pixels")
    memory: int = Field(0, ge=0, description="memory for pictures in work, in bytes; 0: half of the machine's or the container's")
    executor: Literal["auto", "openvino", "tensorflow"] = Field(
        "auto", description="what runs the networks; auto: TensorFlow on a GPU, OpenVINO on a CPU"
    )
    workers: int = Field(8, ge=1, le=256, description="pictures in work at once in a worker (one device; the others decode and encode)")
    lease_seconds: float = Field(30, gt=0, description="how long a worker may be silent before its pictures go to another")
    renew_seconds: float = Field(10, gt=0, description="how often a worker renews its leases")
    tick_seconds: float = Field(5, gt=0, description="how often upkeep looks")
    look_seconds: float = Field(2, gt=0, description="how often a worker looks for work that no bell told of")
    silence_seconds: float = Field(20, gt=0, description="silence after which a part counts as frozen and is started again")
    grace_seconds: float = Field(25, gt=0, description="time to end what is in work at a shutdown")
    sweep_seconds: float = Field(3600, gt=0, description="age at which a file that no job names is removed")
    request_seconds: float = Field(900, gt=0, description="longest upload")
    stall_seconds: float = Field(20, gt=0, description="longest pause within an upload")
    max_attempts: int = Field(3, ge=1, le=100, description="how often a picture is tried when its worker dies or the storage fails")
    max_queued: int = Field(1_000_000, ge=1, description="jobs of one owner that may wait or run; more are refused")
    keep_days: float = Field(30, ge=0, le=36_500, description="how long pictures and results are kept after their job ended; 0: for ever")
    min_free: int = Field(
        2 * 10**9, ge=0, description="free disk space, in bytes, below which uploads are refused, bulk and trainings pause"
    )

    @field_validator("hosts", "roots", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("home", mode="before")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        return value if value != "" else _home()  # else it would be the working directory

    @field_validator("roots")
    @classmethod
    def _rooted(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        rooted = []
        for root in value:
            kind, _, place = root.partition(":")
            if kind not in ("read", "write") or not place:
                raise ValueError(f"it takes read:DIR and write:DIR with commas between; {root} is neither")
            rooted.append(f"{kind}:{os.path.normpath(Path(place).expanduser().absolute())}")
        return tuple(rooted)

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _can_be_reached(self) -> "Settings":
        host, _, port = self.bind.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) <= 65535:
            raise ValueError("BIND must look like 127.0.0.1:8080")
        if ":" in host.strip("[]") and not (host.startswith("[") and host.endswith("]")):
            raise ValueError("BIND must have an IPv6 address in brackets: [::1]:8080")
        if odd := set("%?#") & set(str(self.home)):
            raise ValueError(f"HOME must not hold {' '.join(sorted(odd))}: it becomes a part of addresses in which these mean something")
        if not _is_address(host):
            raise ValueError("BIND takes the address of this machine that is listened on: 127.0.0.1:8080, or 0.0.0.0:8080 for all")
        if strange := [name for name in self.hosts if not HOST.fullmatch(name)]:
            raise ValueError(f"HOSTS takes names without a port, and IPv6 addresses in brackets; {strange[0]} is neither")
        return self

    @model_validator(mode="after")
    def _fit_together(self) -> "Settings":
        if self.renew_seconds * 2 > self.lease_seconds:
            raise ValueError("LEASE_SECONDS must be at least twice RENEW_SECONDS, so that one lost renewal loses no lease")
        if self.sweep_seconds < self.request_seconds:
            raise ValueError("SWEEP_SECONDS must be at least REQUEST_SECONDS, so that no upload under way is swept")
        if self.database_url and not self.database_url.startswith(("sqlite:///", "postgresql+psycopg://", "postgresql://")):
            raise ValueError(
                "DATABASE_URL must look like postgresql+psycopg://USER:PASSWORD@HOST/NAME or sqlite:////var/lib/lacuna/lacuna.db"
            )
        if self.database_url.removeprefix("sqlite:///") in {"", ":memory:"} and self.database_url:
            raise ValueError("DATABASE_URL must name a file, which all parts share: sqlite:////var/lib/lacuna/lacuna.db")
        if self.redis_url and not _is_redis(self.redis_url):
            raise ValueError("REDIS_URL must look like redis://HOST:6379/0, rediss://… or redis+socket://PATH?virtual_host=0")
        return self

    @functools.cached_property
    def needs_keys(self) -> bool:
        """Whether anybody but this machine's own users can reach the API."""
        host, _, _ = self.bind.rpartition(":")
        return not all(map(_is_loopback, (host, *self.hosts)))

    @property
    def keep_seconds(self) -> float:
        """How long pictures and results are kept; 0: for ever."""
        return self.keep_days * 24 * 3600

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.home / 'lacuna.db'}"

    @property
    def blobs(self) -> Path:
        """The folder of the blob store."""
        return self.home / "blobs"

    @property
    def models(self) -> Path:
        """This machine's copies of added models; worthless, they are fetched anew."""
        return self.home / "models"

    @property
    def networks(self) -> Path:
        """The cache of exported networks; worthless, it is made anew."""
        return self.home / "networks"

    @property
    def metrics(self) -> Path:
        """Where each process counts."""
        return self.home / "metrics"

    @property
    def run(self) -> Path:
        """The folder of locks, sockets and the like; worthless when nothing runs."""
        return self.home / "run"

    @property
    def redis(self) -> str:
        """The URL of Redis, the embedded one or the user's."""
        return self.redis_url or f"redis+socket://{self.run / 'valkey.sock'}?virtual_host=0"


class SettingsError(Exception):
    """A sentence about a setting that cannot be used."""


def load(environ: dict[str, str] | None = None, file: Path = FILE) -> Settings:
    """Settings from `lacuna.toml` and the environment, which wins. Raises `SettingsError`."""
    environ = dict(os.environ) if environ is None else environ
    try:
        given: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not TOML: {error}.") from error
    given = {name.lower(): value for name, value in given.items()}
    given |= {name.removeprefix(PREFIX).lower(): value for name, value in environ.items() if _sets(name)}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from error


def _sets(name: str) -> bool:
    return name.startswith(PREFIX) and not name.startswith(CHILD_PREFIX) and name not in CLIENTS


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost"
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _is_redis(url: str) -> bool:
    """Whether it is one of the addresses that the guard of shared/bells/celery.py stands before."""
    try:
        parts = urlsplit(url)
        return parts.scheme in {"redis", "rediss", "redis+socket"} and parts.port != 0
    except ValueError:  # its port is no number
        return False


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    what = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:  # said by a validator, of several settings: it begins with a name
        return f"{PREFIX}{what}."
    name = PREFIX + str(first["loc"][0]).upper()
    if first["type"] == "extra_forbidden":
        return f"{name} is not a setting of Lacuna; docs/operations.md lists them all."
    return f"{name} cannot be used: {what}."
