"""Asks the running service, for the command line. Blocking; standard library only, so that it starts fast."""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 10.0


class NotRunning(ConnectionError):
    """No service answers on the socket."""


class Denied(ValueError):
    """The service refused the request; the reason is one line."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float | None) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _request(
    connection: _Connection, path: Path, method: str, target: str, body: str | None
) -> http.client.HTTPResponse:
    try:
        connection.request(method, target, body)
        response = connection.getresponse()
    except PermissionError:
        raise NotRunning(f"no permission to talk to the service on {path}: try with sudo") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunning(f"the service is not running (nothing answers on {path})") from None
    except (OSError, http.client.HTTPException) as error:
        raise NotRunning(f"the service does not answer on {path}: {error}") from None
    if response.status != http.client.OK:
        raise Denied(str(json.loads(response.read())["error"]))
    return response


def ask(path: Path, method: str, target: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Make one request of the service on this socket and return its answer.

    Raises:
        NotRunning: nobody answers within ten seconds, or the socket may not be opened.
        Denied: the service refuses.
    """
    connection = _Connection(path, TIMEOUT_SECONDS)
    try:
        response = _request(connection, path, method, target, None if body is None else json.dumps(body))
        try:
            answer: dict[str, Any] = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotRunning(f"the service does not answer on {path}: {error}") from None
    finally:
        connection.close()
    return answer


def follow(path: Path, target: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a stream as they come, until the service ends. Raises as `ask` does."""
    connection = _Connection(path, None)
    try:
        response = _request(connection, path, "GET", target, None)
        for line in response:
            yield json.loads(line)
    finally:
        connection.close()
