"""HTTP on a Unix socket, and everything that is not quite HTTP."""

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intercom.control.server import LARGEST_BODY, MAX_CLIENTS, READ_SECONDS, Answer, ControlServer, Refused
from tests.fakes import get, http, live, post, timeless


async def echo(sent: Mapping[str, Any]) -> Answer:
    return dict(sent)


async def refuse(sent: Mapping[str, Any]) -> Answer:
    raise Refused(409, "not now")


HANDLERS = {("GET", "/echo"): echo, ("POST", "/echo"): echo, ("POST", "/refuse"): refuse}


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Path]:
    server = ControlServer(path, HANDLERS)
    await server.start()
    try:
        yield path
        assert await http(path, get("/echo?well=yes")) == (200, b'{"well": "yes"}\n'), "it still serves"
    finally:
        await server.stop()


async def answer(path: Path, raw: bytes) -> tuple[int, Any]:
    status, body = await http(path, raw)
    return status, json.loads(body)


@live
async def test_a_request_and_its_answer(tmp_path: Path) -> None:
    async with serving(tmp_path / "socket") as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(post("/echo", b'{"a": [1, "\xc3\xa9"]}'))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 ",
        b"Content-Type: application/json",
        b"Connection: close",
        b"Cache-Control: no-store",
        b"Content-Length: %d" % len(body),
    ]
    assert json.loads(body) == {"a": [1, "é"]}


@live
async def test_a_request_may_arrive_byte_by_byte(tmp_path: Path) -> None:
    async with serving(tmp_path / "socket") as path:
        reader, writer = await asyncio.open_unix_connection(path)
        for byte in post("/echo", b'{"a": 1}'):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.read()).endswith(b'{"a": 1}\n')
        writer.close()


@pytest.mark.parametrize(
    ("raw", "status", "error"),
    [
        (get("/nothing"), 404, "GET /nothing is not known"),
        (get("/refuse"), 405, "GET /refuse is not known"),
        (post("/refuse", b""), 409, "not now"),
        (post("/echo", b"{"), 400, "the body is not JSON"),
        (post("/echo", b"\xff\xfe\xff"), 400, "the body is not JSON"),
        (post("/echo", b"[" * 60_000), 400, "the body is not JSON"),
        (post("/echo", b"1" * 5000), 400, "the body is not JSON"),
        (post("/echo", b"[1]"), 400, "the body is not a JSON object"),
        (post("/echo", b"null"), 400, "the body is not a JSON object"),
        (post("/echo", b" " * (LARGEST_BODY + 1)), 413, "the body is too large"),
        (get("//[/status"), 404, "GET //[/status is not known"),
    ],
    ids=range(11),
)
@live
async def test_requests_that_cannot_be_done(tmp_path: Path, raw: bytes, status: int, error: str) -> None:
    async with serving(tmp_path / "socket") as path:
        assert await answer(path, raw) == (status, {"error": error})


@live
async def test_the_largest_body_is_taken(tmp_path: Path) -> None:
    async with serving(tmp_path / "socket") as path:
        status, _ = await answer(path, post("/echo", b'{"a": 1}'.ljust(LARGEST_BODY)))
    assert status == 200


@live
async def test_a_body_without_end_is_cut_off(tmp_path: Path) -> None:
    async with serving(tmp_path / "socket") as path:
        chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
        head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert await answer(path, head + chunk * 17) == (413, {"error": "the body is too large"})


@pytest.mark.parametrize(
    "raw",
    [
        b"\0" * 100,
        b"\xff\xfe\r\n\r\n",
        b"GET /echo HTTP/1.1\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"GET /e cho HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000,
        b"SIP/2.0 200 OK\r\n\r\n",
    ],
    ids=range(7),
)
@live
async def test_what_is_not_http_is_refused(tmp_path: Path, raw: bytes) -> None:
    async with serving(tmp_path / "socket") as path:
        status, data = await answer(path, raw)
    assert 400 <= status < 500
    assert set(data) == {"error"}


@given(
    st.lists(
        st.one_of(st.binary(max_size=60), st.sampled_from([b"GET ", b"/echo", b" HTTP/1.1\r\n", b"\r\n"])),
        max_size=8,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_noise(tmp_path: Path, pieces: list[bytes]) -> None:
    @live
    async def send() -> None:
        async with serving(tmp_path / "socket") as path:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"".join(pieces))
            writer.write_eof()
            said = await reader.read()
            writer.close()
            assert said == b"" or said.startswith(b"HTTP/1.1 ")

    send()


@pytest.mark.parametrize("raw", [b"", b"GET /echo HT", post("/echo", b'{"a": 1}')[:-3]])
@live
async def test_a_client_that_leaves_in_the_middle(tmp_path: Path, raw: bytes) -> None:
    async with serving(tmp_path / "socket") as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(raw)
        writer.write_eof()
        said = await reader.read()
        writer.close()
    assert said.startswith(b"HTTP/1.1 400 ") if raw else said == b""


# Patience and numbers


@timeless
async def test_a_slow_client_is_let_go(tmp_path: Path) -> None:
    async with serving(tmp_path / "socket") as path:
        started = asyncio.get_running_loop().time()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /echo HTTP/1.1\r\n")
        assert await reader.read() == b""
        writer.close()
        assert asyncio.get_running_loop().time() - started == pytest.approx(READ_SECONDS)


@live
async def test_one_client_too_many_is_turned_away_and_the_others_stay(tmp_path: Path) -> None:
    async with serving(tmp_path / "socket") as path:
        clients = [await asyncio.open_unix_connection(path) for _ in range(MAX_CLIENTS)]
        assert await http(path, b"") == (0, b"")
        for reader, writer in clients:
            writer.write(get("/echo?a=b"))
            assert (await reader.read()).endswith(b'{"a": "b"}\n')
            writer.close()


# The socket


@live
async def test_the_socket_is_for_its_owner_and_group_and_goes_with_the_service(tmp_path: Path) -> None:
    async with serving(tmp_path / "new" / "folder" / "socket") as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert not path.exists()


@live
async def test_a_second_service_on_a_live_socket_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path / "socket") as path:
        second = ControlServer(path, HANDLERS)
        with pytest.raises(FileExistsError, match="another intercom service answers on"):
            await second.start()
        await second.stop()
        assert path.is_socket()


@live
async def test_a_dead_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    assert path.is_socket()
    async with serving(path):
        pass


@live
async def test_a_file_that_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "intercom.toml"
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        await ControlServer(path, HANDLERS).start()
    assert path.read_text() == "precious"


@live
async def test_stopping_ends_clients_that_wait(tmp_path: Path) -> None:
    async with serving(tmp_path / "socket") as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /echo HT")
        assert await http(path, get("/echo")) == (200, b"{}\n")
    assert await reader.read() == b""
    writer.close()


@live
async def test_a_service_that_never_started_can_be_stopped(tmp_path: Path) -> None:
    await ControlServer(tmp_path / "socket", HANDLERS).stop()


@live
async def test_a_mistake_in_a_handler_is_an_answer_and_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(sent: Mapping[str, Any]) -> Answer:
        raise ZeroDivisionError("our mistake")

    server = ControlServer(tmp_path / "socket", {("GET", "/broken"): broken})
    await server.start()
    try:
        status, body = await http(tmp_path / "socket", get("/broken"))
    finally:
        await server.stop()
    assert status == 500
    assert set(json.loads(body)) == {"error"}
    assert "our mistake" in caplog.text
