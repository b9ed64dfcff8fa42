"""What every driver test gets: fresh pins, an ear for callbacks, and a check that no thread is left alive."""

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVarTuple

import pytest

from hardware.simulator import SimulatedPins

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
