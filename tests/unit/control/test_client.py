"""The command line's side of the socket, against a real server and against none."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from intercom.control.client import Denied, NotRunning, ask, follow
from intercom.core.events import OpenRequested
from tests.fakes import FLAT, TIME_LIMIT, live, open_site


@live
async def test_asking(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        status = await asyncio.to_thread(ask, place.path, "GET", "/status")
        called = await asyncio.to_thread(ask, place.path, "POST", "/call", {"to": FLAT})
    assert status["name"] == "Side door"
    assert called == {"call": 1, "to": FLAT}


@live
async def test_a_refusal_has_one_line(tmp_path: Path) -> None:
    async with open_site(tmp_path) as place:
        with pytest.raises(Denied, match=r"^there is no door 'vault'; there is front, gate$"):
            await asyncio.to_thread(ask, place.path, "POST", "/open", {"door": "vault"})


@live
async def test_following_until_the_service_ends(tmp_path: Path) -> None:
    told: asyncio.Queue[Any] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read(path: Path) -> None:
        for line in follow(path, "/watch"):
            loop.call_soon_threadsafe(told.put_nowait, line)

    async with open_site(tmp_path) as place:
        reading = asyncio.create_task(asyncio.to_thread(read, place.path))
        assert await told.get() == {"watching": "Side door"}
        place.runtime.post(OpenRequested("front"))
        assert (await told.get())["event"] == {"type": "OpenRequested", "door": "front"}
    await reading
    assert told.empty()


def test_nobody_answers(tmp_path: Path) -> None:
    missing = tmp_path / "socket"
    with pytest.raises(NotRunning, match=f"the service is not running .nothing answers on {missing}"):
        ask(missing, "GET", "/status")
    with pytest.raises(NotRunning, match="the service is not running"):
        next(follow(missing, "/watch"))


def test_a_socket_that_was_left_behind(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "socket"))
    with pytest.raises(NotRunning, match="the service is not running"):
        ask(tmp_path / "socket", "GET", "/status")


Impostor = Callable[[bytes], Path]


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[Impostor]:
    """Something else on the socket, that says the same to everybody."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        listening.settimeout(TIME_LIMIT)
        threads = []

        def says(answer: bytes) -> Path:
            def serve() -> None:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

            threads.append(threading.Thread(target=serve))
            threads[-1].start()
            return tmp_path / "socket"

        yield says
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_something_else_on_the_socket(impostor: Impostor, answer: bytes) -> None:
    path = impostor(answer)
    with pytest.raises(NotRunning, match=f"the service does not answer on {path}"):
        ask(path, "GET", "/status")
