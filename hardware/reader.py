"""A card reader or keypad on a serial port, which comes back by itself when its cable does.

One rule: it tells what was shown or typed, and what is wrong with the port, and decides nothing. What a card
or a code means is not known here.
"""

import logging
import os
import re
import select
import termios
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from errno import EACCES, EAGAIN, EBUSY, EIO, ENOENT
from pathlib import Path
from threading import Thread
from time import monotonic

import serial

from hardware import pn532
from hardware.frames import Card, Decoder, Held, Keypad, Reading, id12la, rdm6300, wiegand
from hardware.pn532 import Pn532, SecretOf

log = logging.getLogger(__name__)

REOPEN_SECONDS = 1.0
"""Between two tries to open a port that is not there."""
CLOSE_SECONDS = 1.0
MOST_BYTES = 4096
BELL = b"\a"

_NUMBERED = re.compile(r"tty(USB|ACM)\d+")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of reader.

    Attributes:
        baud: the speed that it has when it is delivered.
        decoder: makes what understands it.
        good: bytes that show that something was accepted; empty if it has no lamp or beeper to be told.
        bad: bytes that show that it was not.
    """

    baud: int
    decoder: Callable[[SecretOf | None], Decoder]
    good: bytes = b""
    bad: bytes = b""


KINDS: Mapping[str, Kind] = {
    "rdm6300": Kind(9600, lambda _: rdm6300()),
    "id12la": Kind(9600, lambda _: id12la()),
    "wiegand": Kind(9600, lambda _: wiegand()),
    "keypad": Kind(9600, lambda _: Keypad(), BELL, 3 * BELL),
    "pn532": Kind(pn532.BAUD, Pn532),
}


def check_port(port: str, dev: Path = Path("/dev")) -> None:
    """Refuses a name that may mean another device after the next start.

    /dev/ttyUSB0 is the adapter that was found first. It is taken only where it is plugged in and udev has no
    other name for it. /dev/ttyAMA0, /dev/ttyS0 and /dev/serial0 are soldered on, and keep their names.

    Args:
        port: the path of the port.
        dev: where the ports are.

    Raises:
        ValueError: not an absolute path, or such a name; the text names those to take instead.
    """
    if not Path(port).is_absolute():
        raise ValueError(f"port {port!r} is no path like {dev}/serial/by-id/…")
    if Path(port).parent != dev or not _NUMBERED.fullmatch(Path(port).name):
        return
    names = [
        str(link) for link in sorted(dev.glob("serial/by-*/*")) if link.resolve() == Path(port).resolve()
    ]
    if names or not Path(port).exists():
        instead = " or ".join(names) or f"a name in {dev}/serial/by-id"
        raise ValueError(f"port {port!r}: its number moves when adapters are plugged, use {instead}")


class Reader:
    """A reader on a port, from now until `close`. Every method may be called from any thread.

    A thread of its own reads, and opens the port again within `REOPEN_SECONDS` after the device has come
    back.

    Args:
        name: what the callbacks are told.
        kind: a key of `KINDS`.
        port: the path of the port, see `check_port`.
        on_read: called as `on_read(name, reading)` on the reader's thread, once for a card however long it is
            held there. Must not block. What it raises is logged.
        on_fault: called as `on_fault(name, why)` on that thread when something is wrong with the port or the
            reader, and with None when all is well again; `why` is a clause that begins with a verb. Must not
            block. What it raises is logged.
        baud: the speed of the port; if None, the kind's.
        good: bytes that show that something was accepted; if None, the kind's.
        bad: bytes that show that it was not; if None, the kind's.
        secret_of: the secrets of cards, see `pn532.Pn532`. What it raises is logged, and counts as no secret.

    Raises:
        ValueError: no such kind or speed, a port that is refused, or bytes for a kind that takes none.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        port: str,
        on_read: Callable[[str, Reading], None],
        on_fault: Callable[[str, str | None], None],
        baud: int | None = None,
        good: bytes | None = None,
        bad: bytes | None = None,
        secret_of: SecretOf | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"reader kind {kind!r} is not known; known are {', '.join(sorted(KINDS))}")
        if kind == "pn532" and (good or bad):
            raise ValueError("a pn532 takes no bytes for lamp and beeper")
        if baud is not None and baud not in serial.Serial.BAUDRATES:
            raise ValueError(f"{baud} baud is no speed of a serial port")
        check_port(port)
        self.name = name
        self.port = port
        self._kind = KINDS[kind]
        self._baud = self._kind.baud if baud is None else baud
        self._good = self._kind.good if good is None else good
        self._bad = self._kind.bad if bad is None else bad
        self._on_read = on_read
        self._on_fault = on_fault
        self._secret_of = secret_of
        self._held = Held()
        self._fault: str | None = None
        self._feedback: deque[bytes] = deque(maxlen=4)
        self._closing = False
        self._woken, self._waking = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = Thread(target=self._run, name=f"reader {name}", daemon=True)
        self._thread.start()

    @property
    def fault(self) -> str | None:
        """What is wrong now, in one line; None if nothing is."""
        return self._fault

    def good(self) -> None:
        """Shows at the reader that something was accepted, if it can. Does not block."""
        self._tell(self._good)

    def bad(self) -> None:
        """Shows at the reader that something was refused, if it can. Does not block."""
        self._tell(self._bad)

    def close(self) -> None:
        """Ends the thread and gives the port back, within `CLOSE_SECONDS`. May be called twice."""
        if self._closing:
            return
        self._closing = True
        self._wake()
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            os.close(self._woken)
            os.close(self._waking)

    def _tell(self, what: bytes) -> None:
        if what and not self._closing:
            self._feedback.append(what)
            self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._waking, b"!")
        except BlockingIOError:
            log.debug("reader %r: has been woken already", self.name)

    def _run(self) -> None:
        while not self._closing:
            try:
                with serial.Serial(self.port, self._baud, exclusive=True) as port:
                    try:
                        self._serve(port)
                    finally:
                        # What was not sent yet would keep a real port from closing for half a minute.
                        with suppress(OSError, termios.error):
                            port.reset_output_buffer()
            except (OSError, termios.error) as error:
                self._say(_reason(error))
            except Exception as error:
                log.exception("reader %r is opened again", self.name)
                self._say(f"failed: {error!r}")
            self._feedback.clear()
            self._sleep(REOPEN_SECONDS)

    def _serve(self, port: serial.Serial) -> None:
        decoder = self._kind.decoder(self._secret_of and self._secret)
        while not self._closing:
            self._say(decoder.fault)
            now = monotonic()
            outbox = decoder.send(now) + b"".join(self._waiting_feedback())
            if outbox:
                # A port that takes no more has no room: reading goes on, the beep or the question is lost.
                with suppress(BlockingIOError):
                    os.write(port.fileno(), outbox)
            left = None if decoder.deadline is None else max(0.0, decoder.deadline - now)
            ready, _, _ = select.select([port.fileno(), self._woken], [], [], left)
            self._drain(ready)
            data = b""
            if port.fileno() in ready:
                data = os.read(port.fileno(), MOST_BYTES)
                if not data:
                    raise OSError(EIO, "end of file")
            now = monotonic()
            for reading in decoder.receive(data, now):
                if not isinstance(reading, Card) or self._held.first(reading, now):
                    self._report(reading)

    def _waiting_feedback(self) -> list[bytes]:
        waiting = []
        while self._feedback:
            waiting.append(self._feedback.popleft())
        return waiting

    def _sleep(self, seconds: float) -> None:
        if not self._closing:
            ready, _, _ = select.select([self._woken], [], [], seconds)
            self._drain(ready)

    def _drain(self, ready: list[int]) -> None:
        if self._woken in ready:
            os.read(self._woken, MOST_BYTES)

    def _secret(self, number: str) -> pn532.CardSecret | None:
        assert self._secret_of is not None
        try:
            return self._secret_of(number)
        except Exception:
            log.exception("reader %r: the secret of a card could not be looked up", self.name)
            return None

    def _report(self, reading: Reading) -> None:
        try:
            self._on_read(self.name, reading)
        except Exception:
            log.exception("reader %r: %r was not taken", self.name, reading)

    def _say(self, fault: str | None) -> None:
        if fault == self._fault or self._closing:
            return
        self._fault = fault
        try:
            self._on_fault(self.name, fault)
        except Exception:
            log.exception("reader %r: the fault %r was not taken", self.name, fault)


def _reason(error: Exception) -> str:
    """The error as a clause that begins with a verb."""
    match getattr(error, "errno", None) or next(iter(error.args), None):
        case code if code == ENOENT:
            return "is not plugged in"
        case code if code == EACCES:
            return "may not be opened: the service needs the group dialout"
        case code if code in (EAGAIN, EBUSY):
            return "is used by another program"
        case code if code == EIO:
            return "was unplugged"
    return f"cannot be used: {error}"
