"""What every driver test gets: fresh pins, an ear for callbacks, and a check that no thread is left alive."""

import queue
import socket
import threading
from collections.abc import Iterator
from typing import Generic, TypeVarTuple

import pytest

from hardware.simulator import SimulatedPins
from hardware.strike import Strikes

Said = TypeVarTuple("Said")

TIME_LIMIT = 5.0
"""Seconds after which a test stops waiting; nothing here takes a tenth of that."""


class Ear(Generic[*Said]):
    """A callback that keeps what it hears, so that a test can wait for it."""

    def __init__(self) -> None:
        self._heard: queue.Queue[tuple[*Said]] = queue.Queue()

    def __call__(self, *said: *Said) -> None:
        self._heard.put(said)

    def next(self) -> tuple[*Said]:
        """The next thing said, waiting for it."""
        return self._heard.get(timeout=TIME_LIMIT)

    def all(self) -> list[tuple[*Said]]:
        """What was said so far, without waiting."""
        heard = []
        while not self._heard.empty():
            heard.append(self._heard.get())
        return heard


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    assert not left, f"threads left alive: {left}"


@pytest.fixture
def pins(no_thread_stays: None) -> Iterator[SimulatedPins]:
    with SimulatedPins() as factory:
        yield factory


@pytest.fixture
def ear() -> Ear[str, bool]:
    """Hears what a driver reports."""
    return Ear()


@pytest.fixture
def levels() -> Ear[bool, float]:
    """Hears the levels of a watched pin."""
    return Ear()


class Guarded:
    """The strikes of a service, and a guardian that says what a test wants. It has not said anything yet."""

    def __init__(self) -> None:
        self.moved: Ear[str, bool, int] = Ear()
        self.ailed: Ear[str, str | None] = Ear()
        self.refuses = False
        self.looked_for: queue.Queue[socket.socket] = queue.Queue()
        self._ends: list[socket.socket] = []
        self._theirs: socket.socket | None = None
        self.strikes = Strikes(["front"], self, self.moved, self.ailed)
        assert self.ailed.next() == ("front", "its guardian has not answered yet")

    def connect(self) -> socket.socket:
        if self.refuses:
            raise ConnectionRefusedError("nobody is there")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ends.append(theirs)
        self.looked_for.put(theirs)
        return ours

    def close(self) -> None:
        """As a way to the guardian; nothing to do."""

    @property
    def theirs(self) -> socket.socket:
        """The guardian's end of the newest connection."""
        if self._theirs is None:
            self._theirs = self.looked_for.get(timeout=TIME_LIMIT)
            self._theirs.settimeout(TIME_LIMIT)
        return self._theirs

    def says(self, *messages: str) -> None:
        for message in messages:
            self.theirs.send(message.encode())

    def hears(self) -> str:
        return self.theirs.recv(512).decode()

    def goes(self) -> None:
        """The guardian ends."""
        self.theirs.close()
        self._theirs = None

    def end(self) -> None:
        self.strikes.close()
        for end in self._ends:
            end.close()


@pytest.fixture
def guarded(no_thread_stays: None) -> Iterator[Guarded]:
    guarded = Guarded()
    yield guarded
    guarded.end()
