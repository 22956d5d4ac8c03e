"""Clients that ask as fast as they are answered: four threads, each with a connection of its own, on http.client."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

CLIENTS = 4
BOUNDARY = "lacuna-benchmark"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
JSON = {"Content-Type": "application/json"}
TIMEOUT_S = 120.0


class Client:
    """One connection, kept open."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
        """The answer's body. Raises `RuntimeError` for what is no success."""
        self._connection.request(method, path, body, headers or {})
        if self._connection.sock is not None:  # it sends a small request at once
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path} was answered with {answer.status}: {data[:300]!r}")
        return data

    def answered(self, path: str, body: bytes) -> int:
        """The status that a form is answered with, whatever it is."""
        self._connection.request("POST", path, body, FORM)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def json(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """The same, read as a JSON object."""
        found: dict[str, Any] = json.loads(self.ask(method, path, body, headers))
        return found


def form(name: str, data: bytes, **fields: str) -> bytes:
    """A picture as multipart/form-data, behind the fields."""
    said = "".join(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n' for field, value in fields.items())
    head = f'{said}--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def shared(address: str, work: Sequence[Any], do: Callable[[Client, Any], object]) -> None:
    """`CLIENTS` threads do every item of `work` between them. Raises what one of them raised."""
    errors: list[BaseException] = []

    def run(items: Sequence[Any]) -> None:
        client = Client(address)
        try:
            for item in items:
                do(client, item)
        except Exception as error:  # noqa: BLE001  # raised below, by the thread that waits
            errors.append(error)

    threads = [threading.Thread(target=run, args=[work[number::CLIENTS]]) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def until_answered(address: str) -> None:
    """Return when somebody answers there."""
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        try:
            Client(address).ask("GET", "/healthz")
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"nobody answered at {address}")
