"""The doors' guardian as a process of its own, somebody who orders it about, and the levels of its lines."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from deploy.demo.program import Program, wait_until
from hardware.line import TRACE
from hardware.strike import SystemGuardian

TIME_LIMIT = 5.0
FRONT, YARD = 27, 23
ROOT = Path(__file__).parents[1]


class Change(NamedTuple):
    """A level of a line, and the monotonic time at which it was driven so."""

    at: float
    level: bool


class Trace:
    """What was done to the simulated lines."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def environment(self) -> dict[str, str]:
        return {TRACE: str(self.file)}

    def levels(self, pin: int = FRONT) -> list[Change]:
        """Every level that a line was driven to, the same again left out."""
        text = self.file.read_text() if self.file.exists() else ""
        found: list[Change] = []
        for at, number, level in (line.split() for line in text.splitlines()):
            if int(number) == pin and (not found or found[-1].level != (level == "1")):
                found.append(Change(float(at), level == "1"))
        return found

    def wait(self, changes: int, pin: int = FRONT, seconds: float = TIME_LIMIT) -> list[Change]:
        """The levels, once there are so many."""
        assert wait_until(lambda: len(self.levels(pin)) >= changes, seconds), self.levels(pin)
        return self.levels(pin)


def doors(*tables: Mapping[str, object], board: str = "simulated") -> str:
    """Settings, as far as the guardian reads them."""
    text = f'[station]\nboard = "{board}"\n'
    for table in tables:
        text += "[[door]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
    return text


class Orders:
    """A connection to the guardian."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.connection.settimeout(TIME_LIMIT)

    def say(self, *words: object) -> float:
        """Give an order; the monotonic time just before."""
        now = time.monotonic()
        self.connection.send("\t".join(map(str, words)).encode())
        return now

    def hear(self) -> list[str]:
        """The next message; empty when the guardian has ended the connection."""
        message = self.connection.recv(512).decode()
        return message.split("\t") if message else []

    def greeting(self) -> list[list[str]]:
        heard = [self.hear()]
        while heard[-1] != ["ready"]:
            heard.append(self.hear())
        return heard[:-1]

    def close(self) -> None:
        self.connection.close()


class Guardian:
    """The program, listening on a socket in a folder."""

    def __init__(self, folder: Path, settings: str, environment: Mapping[str, str] | None = None) -> None:
        self.settings, self.path = folder / "doors.toml", folder / "guardian.sock"
        self.trace = Trace(folder / "lines")
        self._log = folder / "guardian.log"
        self.environment = {**self.trace.environment, "PYTHONPATH": str(ROOT), **(environment or {})}
        self._peers: list[Orders] = []
        self._program: Program | None = None
        self.began = 0.0
        self.stop_hook = [sys.executable, "-m", "hardware.guardian", "--lock", str(self.settings)]
        self.settings.write_text(settings)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for peer in self._peers:
            peer.close()
        self.program.stop()

    @property
    def program(self) -> Program:
        assert self._program is not None
        return self._program

    def start(self) -> None:
        """Start it, or start it again."""
        self.path.unlink(missing_ok=True)
        command: list[str | Path] = [sys.executable, "-m", "hardware.guardian", self.settings, self.path]
        self.began = time.monotonic()
        self._program = Program(command, self._log, self.environment)
        assert wait_until(self._answers, TIME_LIMIT), self._program.tail()

    def connect(self) -> Orders:
        """A new connection, which has not heard anything yet."""
        connection = SystemGuardian(self.path).connect()
        self._peers.append(Orders(connection))
        return self._peers[-1]

    def ordered(self) -> Orders:
        """A connection that has heard how the doors are."""
        peer = self.connect()
        peer.greeting()
        return peer

    def _answers(self) -> bool:
        with suppress(OSError):
            self.connect().close()
            return True
        return False
