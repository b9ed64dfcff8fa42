"""Serves the control interface.

    GET  /status            the whole status
    GET  /log?count=N       the newest records; also after=NUMBER, since= and until=MILLISECONDS, kind=,
                            door=, who=
    GET  /log/follow        the same, then one JSON line for each new record, until the client closes
    GET  /watch             one JSON line for each step from now on, until the client closes
    POST /press             {"button": NAME}
    POST /call              {"to": SIP ADDRESS}
    POST /hangup            {}
    POST /open              {"door": NAME}

Answers are JSON; a refusal is `{"error": WHY}` with 400, 404, 405, 409, 413 or 500. Who may connect is
decided by the socket's permissions alone. h11 reads HTTP: no more of the web is loaded than a door needs.
"""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import h11

log = logging.getLogger(__name__)

LARGEST_BODY = 64 * 1024
READ_SECONDS = 10.0
MAX_CLIENTS = 32
SOCKET_MODE = 0o660

Answer = dict[str, Any] | AsyncIterator[dict[str, Any]]
Handler = Callable[[Mapping[str, Any]], Awaitable[Answer]]


class Refused(Exception):
    """A request that cannot be done, with its HTTP status and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        """Keep both."""
        super().__init__(reason)
        self.status = status


class ControlServer:
    """Listens on a Unix socket and hands each request to its handler, on the event loop's thread."""

    def __init__(self, path: Path, handlers: Mapping[tuple[str, str], Handler]) -> None:
        """Prepare; nothing happens before `start`.

        Args:
            path: of the socket; a dead one that is left there is replaced.
            handlers: by method and path. Each takes the JSON body, or the query of a GET, and returns one
                JSON object or a stream of them; it raises `Refused`.
        """
        self._path = path
        self._handlers = handlers
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises OSError, also when another service answers on the socket."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.is_socket():
            try:
                _, writer = await asyncio.open_unix_connection(self._path)
            except OSError:
                self._path.unlink()
            else:
                writer.close()
                raise FileExistsError(f"another intercom service answers on {self._path}")
        mask = os.umask(0o777 & ~SOCKET_MODE)
        try:
            self._server = await asyncio.start_unix_server(self._accept, self._path)
        finally:
            os.umask(mask)

    async def stop(self) -> None:
        """Stop listening and end every client."""
        if self._server is None:
            return
        self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) <= MAX_CLIENTS:
                await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError, h11.RemoteProtocolError, TimeoutError) as error:
            log.debug("control client: %r", error)
        finally:
            self._clients.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; the connection ends with it."""
        connection = h11.Connection(h11.SERVER)
        try:
            answer = await self._answer(*await _read(connection, reader))
        except Refused as refused:
            await _write_object(connection, writer, refused.status, {"error": str(refused)})
            return
        except h11.RemoteProtocolError as error:
            await _write_object(connection, writer, error.error_status_hint, {"error": str(error)})
            return
        if isinstance(answer, dict):
            await _write_object(connection, writer, 200, answer)
        else:
            await _write_stream(connection, writer, answer, reader)

    async def _answer(self, method: str, target: str, body: bytes) -> Answer:
        address, _, query = target.partition("?")
        handler = self._handlers.get((method, address))
        if handler is None:
            known = any(path == address for _, path in self._handlers)
            raise Refused(405 if known else 404, f"{method} {address} is not known")
        try:
            return await handler(_sent(method, query, body))
        except Refused:
            raise
        except Exception as error:
            log.exception("%s %s", method, address)
            raise Refused(500, "the service made a mistake; see its log") from error


def _sent(method: str, query: str, body: bytes) -> Mapping[str, Any]:
    """What a request says: the query of a GET, the JSON object of a POST."""
    if method == "GET":
        return {key: values[-1] for key, values in parse_qs(query).items()}
    try:
        data = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(data, dict):
        raise Refused(400, "the body is not a JSON object")
    return data


async def _read(connection: h11.Connection, reader: asyncio.StreamReader) -> tuple[str, str, bytes]:
    request: h11.Request | None = None
    body = b""
    async with asyncio.timeout(READ_SECONDS):
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(LARGEST_BODY))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > LARGEST_BODY:
                    raise Refused(413, "the body is too large")
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                return request.method.decode(), request.target.decode("latin-1"), body
            else:
                raise ConnectionResetError("the client has gone")


def _head(status: int, kind: str, length: int | None) -> h11.Response:
    headers = [("Content-Type", kind), ("Connection", "close"), ("Cache-Control", "no-store")]
    if length is not None:
        headers.append(("Content-Length", str(length)))
    return h11.Response(status_code=status, headers=headers)


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, event: h11.Event) -> None:
    writer.write(connection.send(event) or b"")
    await writer.drain()


async def _write_object(
    connection: h11.Connection, writer: asyncio.StreamWriter, status: int, data: dict[str, Any]
) -> None:
    body = json.dumps(data).encode() + b"\n"
    await _send(connection, writer, _head(status, "application/json", len(body)))
    await _send(connection, writer, h11.Data(data=body))
    await _send(connection, writer, h11.EndOfMessage())


async def _write_stream(
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    lines: AsyncIterator[dict[str, Any]],
    reader: asyncio.StreamReader,
) -> None:
    await _send(connection, writer, _head(200, "application/x-ndjson", None))

    async def copy() -> None:
        async for line in lines:
            await _send(connection, writer, h11.Data(data=json.dumps(line).encode() + b"\n"))

    copying = asyncio.create_task(copy())
    gone = asyncio.create_task(reader.read(1))
    try:
        await asyncio.wait((copying, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (copying, gone):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await task
