"""The strikes of the doors as the service has them: orders to the guardian, and its word on what they did.

One rule: a door is shown as released when the guardian says so, and has a fault when nobody guards it.
"""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Protocol

log = logging.getLogger(__name__)

FEED_SECONDS = 0.25
"""How often to call `Strikes.feed` while a door is released; the guardian locks it after a second without."""
ANSWER_SECONDS = 1.0
RETRY_SECONDS = 0.2
LONGEST_MESSAGE = 512


class StrikeFault(OSError):
    """A door that cannot be released; the text is the reason."""


class Guardian(Protocol):
    """A way to the guardian."""

    def connect(self) -> socket.socket:
        """Open a connection to it.

        Raises:
            OSError: it is not there.
        """

    def close(self) -> None:
        """Forget it."""


class SystemGuardian:
    """The guardian that systemd runs."""

    def __init__(self, path: Path) -> None:
        """Take the path of its socket."""
        self._path = path

    def connect(self) -> socket.socket:
        """Open a connection to it; blocks for a second at most.

        Raises:
            OSError: it is not there.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Nothing is left behind."""


class OwnGuardian:
    """A guardian that is our own child, for a board without pins. It ends when its connection does."""

    def __init__(self, settings: Path) -> None:
        """Take the settings that it reads."""
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def connect(self) -> socket.socket:
        """Start it.

        Raises:
            OSError: it cannot be started.
        """
        self.close()
        environment = {name: value for name, value in os.environ.items() if name not in _SUPERVISION}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                # In a process group of its own: Ctrl-C is for the service, which then locks the doors.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "hardware.guardian", str(self._settings.resolve())],
                    stdin=theirs.fileno(),
                    env=environment,
                    process_group=0,
                )
            except OSError:
                ours.close()
                raise
        return ours

    def close(self) -> None:
        """Wait for its end, which comes with that of its connection."""
        if self._process is not None:
            try:
                self._process.wait(ANSWER_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def look(guardian: Guardian) -> dict[str, str]:
    """Ask for each door what is wrong with it, nothing being an empty text; blocks for a second at most.

    Raises:
        OSError: the guardian is not there, or does not answer.
    """
    faults: dict[str, str] = {}
    with guardian.connect() as connection:
        connection.settimeout(ANSWER_SECONDS)
        while message := connection.recv(LONGEST_MESSAGE):
            match message.decode(errors="replace").split("\t"):
                case ["locked" | "released", door, _]:
                    faults[door] = ""
                case ["fault", door, reason]:
                    faults[door] = reason
                case ["ready"]:
                    return faults
    raise ConnectionResetError("the guardian is gone")


def lock_all(guardian: Guardian) -> None:
    """Have every door locked that somebody has released; blocks for a second at most.

    Raises:
        OSError: the guardian is not there, or does not answer.
    """
    with guardian.connect() as connection:
        connection.settimeout(ANSWER_SECONDS)
        released, ready = set(), False
        while message := connection.recv(LONGEST_MESSAGE):
            match message.decode(errors="replace").split("\t"):
                case ["released", door, _]:
                    released.add(door)
                case ["locked", door, _]:
                    released.discard(door)
                case ["ready"]:
                    for door in released:
                        connection.send(f"lock\t{door}".encode())
                    ready = True
            if ready and not released:
                return
    raise ConnectionResetError("the guardian is gone")


_SUPERVISION = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Strikes:
    """Every strike. Every method may be called from any thread and none blocks, except `close`.

    A thread of its own listens to the guardian, and looks for it again when it is gone.

    Args:
        doors: their names.
        guardian: the way to it.
        on_move: `on_move(door, released, number)` after each change, `number` being that of the release; also
            for a release that did not come about, which was never reported as released. On the own thread;
            what it raises is logged.
        on_fault: `on_fault(door, reason)` when a door cannot be used, None when it can again. As `on_move`.
    """

    def __init__(
        self,
        doors: Collection[str],
        guardian: Guardian,
        on_move: Callable[[str, bool, int], None],
        on_fault: Callable[[str, str | None], None],
    ) -> None:
        self._doors = tuple(doors)
        self._guardian = guardian
        self._on_move = on_move
        self._on_fault = on_fault
        self._state = Lock()
        self._connection: socket.socket | None = None
        self._faults = dict.fromkeys(self._doors, "its guardian has not answered yet")
        self._told: dict[str, str | None] = dict.fromkeys(self._doors)
        self._released: set[str] = set()
        self._wanted: dict[str, int] = {}
        self._number = 0
        self._closing = Event()
        self._thread = Thread(target=self._listen, name="strikes", daemon=True)
        self._thread.start()

    def release(self, door: str, seconds: float) -> int:
        """Order a release, at most up to the door's limit. Returns its number.

        Raises:
            KeyError: there is no such door.
            StrikeFault: it cannot be released.
        """
        with self._state:
            if fault := self._faults[door]:
                raise StrikeFault(fault)
            self._number += 1
            self._send("release", door, self._number, seconds)
            self._wanted[door] = self._number
            return self._number

    def lock(self, door: str) -> None:
        """Order that it be locked; without a guardian it is.

        Raises:
            KeyError: there is no such door.
        """
        with self._state:
            if not self._faults[door] or door in self._released:
                with suppress(StrikeFault):
                    self._send("lock", door)

    def feed(self) -> bool:
        """Tell the guardian that the service lives, if a door is released; returns whether one is."""
        with self._state:
            if self._wanted:
                with suppress(StrikeFault):
                    self._send("feed")
            return bool(self._wanted)

    @property
    def released(self) -> dict[str, bool]:
        """Each door without a fault, and whether it is released."""
        with self._state:
            return {door: door in self._released for door in self._doors if not self._faults[door]}

    @property
    def faults(self) -> dict[str, str]:
        """Each door that cannot be used, and why."""
        with self._state:
            return {door: fault for door, fault in self._faults.items() if fault}

    def close(self) -> None:
        """Let go of the guardian, which locks every door. May be called twice."""
        self._closing.set()
        with self._state:
            if self._connection is not None:
                with suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _send(self, *words: object) -> None:
        if self._connection is None:
            raise StrikeFault("its guardian is not there")
        try:
            self._connection.send("\t".join(map(str, words)).encode(), socket.MSG_DONTWAIT)
        except OSError as error:
            raise StrikeFault(f"its guardian takes no orders: {error.strerror}") from None

    # The thread

    def _listen(self) -> None:
        self._ail(self._faults)
        while not self._closing.is_set():
            try:
                connection = self._guardian.connect()
            except OSError as error:
                self._lost(f"its guardian is not there: {error.strerror or error}")
            else:
                with connection:
                    self._lost(self._follow(connection))
            self._closing.wait(RETRY_SECONDS)
        self._guardian.close()

    def _follow(self, connection: socket.socket) -> str:
        """Take in what the guardian says until it is gone; returns why it is."""
        connection.settimeout(ANSWER_SECONDS)  # frozen, it would take the connection and say nothing
        with self._state:
            self._connection = connection
        faults = dict.fromkeys(self._doors, "its guardian does not know it: are its settings older?")
        try:
            while not self._closing.is_set() and (message := connection.recv(LONGEST_MESSAGE)):
                match message.decode(errors="replace").split("\t"):
                    case ["locked" | "released" as word, door, number] if door in faults and number.isdigit():
                        if connection.gettimeout() is not None:
                            faults[door] = ""
                        self._moved(door, word == "released", int(number))
                    case ["refused", door, number, reason] if door in faults and number.isdigit():
                        log.warning("door %r was not released: it %s", door, reason)
                        self._moved(door, False, int(number))
                    case ["fault", door, reason] if door in faults:
                        faults[door] = reason
                    case ["fine", door] if door in faults:
                        faults[door] = ""
                    case ["ready"]:
                        connection.settimeout(None)
                if connection.gettimeout() is None:
                    self._ail(faults)
        except TimeoutError:
            return "its guardian does not answer"
        except OSError as error:
            return f"its guardian is gone: {error.strerror}"
        finally:
            with self._state:
                self._connection = None
        return "its guardian is gone"

    def _moved(self, door: str, released: bool, number: int) -> None:
        with self._state:
            before = door in self._released
            (self._released.add if released else self._released.discard)(door)
            ended = not released and self._wanted.get(door) == number
            if ended:
                del self._wanted[door]
        if before != released or ended:
            self._report(self._on_move, door, released, number)

    def _lost(self, reason: str) -> None:
        with self._state:
            open_doors = dict.fromkeys(self._released, self._number) | self._wanted
            self._released.clear()
            self._wanted.clear()
        if not self._closing.is_set():
            self._ail(dict.fromkeys(self._doors, reason))
        for door, number in open_doors.items():
            self._report(self._on_move, door, False, number)

    def _ail(self, faults: dict[str, str]) -> None:
        with self._state:
            self._faults = dict(faults)
            news = {
                door: fault or None for door, fault in faults.items() if (fault or None) != self._told[door]
            }
            self._told |= news
        for door, fault in news.items():
            self._report(self._on_fault, door, fault)

    def _report(self, listener: Callable[..., None], *said: object) -> None:
        try:
            listener(*said)
        except Exception:
            log.exception("%r was not taken", said)
