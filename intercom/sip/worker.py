"""The one thread that owns pjsua2, from its creation to its destruction.

Rule: an engine object never leaves this thread; jobs go in, and what comes out goes through the engine's own
`tell`. The thread sleeps in the engine's poll and is woken by a datagram to the engine's own SIP socket, so
that a job waits about 0.1 ms while an idle station makes about one poll a second.
"""

import functools
import heapq
import itertools
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

log = logging.getLogger(__name__)

LONGEST_POLL_SECONDS = 1.0
KEEP_ALIVE = b"\r\n\r\n"  # RFC 5626 section 3.5.1: a SIP stack reads it as a ping and drops it


class Pollable(Protocol):
    """What the worker needs of an engine. All of it runs on the worker's thread."""

    @property
    def wake_address(self) -> tuple[str, int]:
        """Where a datagram ends a poll."""

    def poll(self, seconds: float) -> None:
        """Handle what has come in, or wait for it no longer than this."""

    def close(self) -> None:
        """End everything and free the port."""


E = TypeVar("E", bound=Pollable)
Job = Callable[[E], None]
Later = Callable[[float, Callable[[], object]], None]


class Worker(Generic[E]):
    """Runs an engine and the jobs for it on a thread of its own."""

    def __init__(self, build: Callable[[Later], E], died: Callable[[str], None]) -> None:
        """Prepare; nothing happens before `start`.

        Args:
            build: makes the engine, on the worker's thread. It is given `later(seconds, job)` for the
                engine's own timers.
            died: told on the worker's thread that an error has ended it; nothing works any more.
        """
        self._build = build
        self._died = died
        self._jobs: deque[Job[E]] = deque()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._stopping = threading.Event()
        self._wake_address: tuple[str, int] | None = None
        self._waker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._waker.bind(("127.0.0.1", 0))
        self._waker.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="sip", daemon=True)

    def start(self) -> None:
        """Start the thread and return at once."""
        self._thread.start()

    def submit(self, job: Job[E]) -> None:
        """Have a job done on the SIP thread. Never blocks; may be called on any thread.

        A job submitted before the engine runs waits for it.
        """
        self._jobs.append(job)
        self._wake()

    def stop(self, seconds: float) -> bool:
        """End the engine and the thread. Blocks for at most this long; False if it did not end in time."""
        self._stopping.set()
        self._wake()
        self._thread.join(seconds)
        self._waker.close()
        return not self._thread.is_alive()

    def _wake(self) -> None:
        if self._wake_address is not None:
            try:
                self._waker.sendto(KEEP_ALIVE, self._wake_address)
            except OSError as error:  # a full loopback queue: the thread is awake anyway
                log.debug("wake-up datagram: %s", error)

    def _later(self, seconds: float, job: Callable[[], object]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), job))

    def _run(self) -> None:
        try:
            engine = self._build(self._later)
            self._wake_address = engine.wake_address
            try:
                self._serve(engine)
            finally:
                self._wake_address = None
                engine.close()
        except Exception as error:
            log.exception("the SIP thread has died")
            self._died(f"{type(error).__name__}: {error}")

    def _serve(self, engine: E) -> None:
        while not self._stopping.is_set():
            self._work(engine)
            engine.poll(self._due())
        self._work(engine)

    def _work(self, engine: E) -> None:
        while self._jobs:
            _try(functools.partial(self._jobs.popleft(), engine))

    def _due(self) -> float:
        """Run the timers that are due; return the seconds until the next, at most one poll."""
        while self._timers:
            wait = self._timers[0][0] - time.monotonic()
            if wait > 0:
                return min(wait, LONGEST_POLL_SECONDS)
            _try(heapq.heappop(self._timers)[2])
        return LONGEST_POLL_SECONDS


def _try(job: Callable[[], object]) -> None:
    """Do a job. One that fails is logged and forgotten: the bell must go on ringing."""
    try:
        job()
    except Exception:
        log.exception("a job of the SIP thread has failed")
