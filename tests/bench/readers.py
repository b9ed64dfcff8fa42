"""Ten million random bytes into each decoder; noise and pulled cables at pseudo-terminals, ten times each.

A grant is a reading, or a code typed up to its #, that is one of a thousand known ones.
"""

import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from deploy.demo.program import ProgramError, wait_until
from hardware.frames import HELD_SECONDS, QUIET_SECONDS, Card, Garbled, Key, Reading, Strength
from hardware.pn532 import IN_COMMUNICATE_THRU, LIST_ONE, Frames, NtagPassword, Pn532, frame
from hardware.reader import KINDS, Reader
from hardware.simulated_readers import (
    SimulatedCard,
    SimulatedPn532,
    SimulatedPort,
    id12la_frame,
    rdm6300_frame,
    wiegand_frame,
)
from tests.bench.rows import Row

BYTES = 10_000_000
KNOWN = 1000
LONGEST_PIECE = 512
RUNS = 10
NOISE_SECONDS = 1.0
NOISE_RATE = 1_000_000
BURST = 10_000
TIME_LIMIT = 10.0
PASSWORD = NtagPassword(b"1234", b"PK")
NTAG = bytes.fromhex("010100440007" + "04E141124C2880")
WELL_AFTER_SECONDS = 0.05
"""Longer than a gap inside a frame, shorter than the silence after noise."""

ALPHABETS = {
    "rdm6300": b"\x02\x030123456789ABCDEF",
    "id12la": b"\x02\x03\r\n0123456789ABCDEF",
    "wiegand": b"\x02\x030123456789ABCDEF",
    "pn532": bytes.fromhex("00 FF 01 02 04 07 4B D5"),
}
"""Noise that is harder than any: of the bytes alone that the reader's frames are made of."""


@dataclass
class Misread:
    """What random bytes were taken for."""

    cards: int = 0
    keys: int = 0
    grants: int = 0
    seconds: float = 0.0
    _entry: str = field(default="", repr=False)

    def count(self, readings: list[Reading], known: frozenset[str]) -> None:
        for reading in readings:
            match reading:
                case Card(number=number):
                    self.cards += 1
                    self.grants += number in known
                case Key(key="#"):
                    self.keys += 1
                    self.grants += self._entry in known
                    self._entry = ""
                case Key(key=key):
                    self.keys += 1
                    self._entry += key
                case Garbled():
                    self._entry = ""


def known_to(kind: str, dice: random.Random) -> frozenset[str]:
    """A thousand cards that a reader of this kind could read, or codes of six digits."""
    draw: dict[str, Callable[[], str]] = {
        "rdm6300": lambda: dice.randbytes(5).hex().upper(),
        "id12la": lambda: dice.randbytes(5).hex().upper(),
        "wiegand": lambda: f"{dice.randrange(256)}-{dice.randrange(65536)}",
        "keypad": lambda: f"{dice.randrange(10**6):06}",
        "pn532": lambda: dice.randbytes(dice.choice((4, 7))).hex().upper(),
    }
    known: set[str] = set()
    while len(known) < KNOWN:
        known.add(draw[kind]())
    return frozenset(known)


class Asking:
    """A PN532 that asks for cards while noise comes; or a card for its password, and only proof counts."""

    def __init__(self, proving: bool = False) -> None:
        self._chip = Pn532((lambda uid: PASSWORD) if proving else None)
        self._noise_at = IN_COMMUNICATE_THRU if proving else LIST_ONE
        self._asked = b""
        self._now = 0.0

    def receive(self, data: bytes, now: float) -> list[Reading]:
        self._now = max(self._now, now)
        readings: list[Reading] = []
        while not self._question().startswith(self._noise_at):
            # A card is new only if it was away.
            self._now += 2 * HELD_SECONDS if self._asked == LIST_ONE else WELL_AFTER_SECONDS
            listed = NTAG if self._asked == LIST_ONE else b""
            answer = frame(bytes((0xD5, self._asked[0] + 1)) + listed) if self._asked else b""
            self._asked = b""
            readings += self._chip.receive(answer, self._now)
        readings += self._chip.receive(data, self._now)
        if self._noise_at == LIST_ONE:
            return readings
        return [card for card in readings if isinstance(card, Card) and card.strength is not Strength.NUMBER]

    def _question(self) -> bytes:
        for payload in Frames().receive(self._chip.send(self._now), 0.0):
            self._asked = payload[1:]
        return self._asked


def misread(kind: str, count: int, alphabet: bytes = b"", proving: bool = False) -> Misread:
    """Feeds so many random bytes, in pieces of all sizes, with pauses and without."""
    dice = random.Random(6)
    known = known_to(kind, dice) | {NTAG[-7:].hex().upper()}
    result = Misread()
    decoder = Asking(proving) if kind == "pn532" else KINDS[kind].decoder(None)
    pauses = cycle([0.001, 2 * QUIET_SECONDS, 0.001, WELL_AFTER_SECONDS])
    now = 0.0
    while count > 0:
        size = min(count, dice.randint(1, LONGEST_PIECE))
        noise = bytes(dice.choices(alphabet, k=size)) if alphabet else dice.randbytes(size)
        count -= size
        now += next(pauses)
        begun = time.process_time()
        result.count(decoder.receive(noise, now), known)
        result.seconds += time.process_time() - begun
    return result


def make_noise(port: SimulatedPort, seconds: float = NOISE_SECONDS) -> int:
    """Random bytes into a port, a megabyte a second. Returns how many there were."""
    dice, clock = random.Random(20), threading.Event()
    begun, sent = time.monotonic(), 0
    while (passed := time.monotonic() - begun) < seconds:
        if sent < passed * NOISE_RATE:
            port.send(dice.randbytes(BURST))
            sent += BURST
        else:
            clock.wait(0.002)
    return sent


def wait_opened(link: Path) -> None:
    """Blocks until somebody has locked the port, and a moment more for what he does with it then.

    Raises:
        ProgramError: nobody does.
    """

    # Looked up, not tried: a lock of ours could be in the way of his.
    def held() -> bool:
        port = link.stat()
        place = f" {os.major(port.st_dev):02x}:{os.minor(port.st_dev):02x}:{port.st_ino} "
        return place in Path("/proc/locks").read_text()

    if not wait_until(held, TIME_LIMIT):
        raise ProgramError("nobody opens the port")
    threading.Event().wait(0.05)


UID = bytes.fromhex("04E141124C2880")
SHOWN: dict[str, tuple[bytes, Reading]] = {
    "rdm6300": (rdm6300_frame("62E3086CED"), Card("em4100", "62E3086CED")),
    "id12la": (id12la_frame("62E3086CED"), Card("em4100", "62E3086CED")),
    "wiegand": (wiegand_frame(f"0{0x1293D8:024b}1"), Card("wiegand26", "18-37848")),
    "keypad": (b"7", Key("7")),
    "pn532": (b"", Card("iso14443a", UID.hex().upper())),
}
"""What shows a card, or presses a key, and what is read then."""


def measure(folder: Path) -> Iterator[Row]:
    folder.mkdir(parents=True)
    for kind in KINDS:
        yield from _misread_rows(kind, "random bytes", misread(kind, BYTES))
    yield from _misread_rows("pn532", "random bytes for a password", misread("pn532", BYTES, proving=True))
    for kind, alphabet in ALPHABETS.items():
        yield from _misread_rows(kind, "its own bytes at random", misread(kind, BYTES, alphabet))
    for kind in KINDS:
        runs = [_after_noise(folder / f"{kind}-{run}", kind) for run in range(RUNS)]
        yield Row(
            f"readers: {kind}: noise, least of {RUNS} runs", min(rate for rate, _ in runs) / 1e6, "MB/s"
        )
        yield Row(
            f"readers: {kind}: card after noise, worst", max(wait for _, wait in runs) * 1000, "ms", 300
        )
    for kind in KINDS:
        waits = [_after_replug(folder / f"{kind}-again-{run}", kind) for run in range(RUNS)]
        yield Row(f"readers: {kind}: card after replug, worst of {RUNS}", max(waits), "s", 5)


def _misread_rows(kind: str, noise: str, result: Misread) -> Iterator[Row]:
    yield Row(f"readers: {kind}: {noise}: false grants", result.grants, "", 0)
    yield Row(f"readers: {kind}: {noise}: false cards", result.cards, "")
    if kind == "keypad":
        yield Row(f"readers: {kind}: {noise}: false keys", result.keys, "")
    yield Row(f"readers: {kind}: {noise}: decoded at", BYTES / 1e6 / result.seconds, "MB/s")


def _after_noise(link: Path, kind: str) -> tuple[float, float]:
    """Bytes a second of the noise, and seconds from its end to the reading."""
    with _Desk(link, kind) as desk:
        begun = time.monotonic()
        count = make_noise(desk.port)
        silent_from = time.monotonic()
        if kind == "keypad":
            threading.Event().wait(QUIET_SECONDS * 2)
        return count / (silent_from - begun), desk.show() - silent_from


def _after_replug(link: Path, kind: str) -> float:
    """Seconds from the plug to the reading of a card that is shown at once, again and again."""
    with _Desk(link, kind) as desk:
        desk.port.unplug()
        desk.port.plug()
        begun = time.monotonic()
        wait_opened(link)
        return desk.show() - begun


class _Desk:
    """A reader on a pseudo-terminal, with what it reads."""

    def __init__(self, link: Path, kind: str) -> None:
        self._kind = kind
        self._read: queue.SimpleQueue[tuple[Reading, float]] = queue.SimpleQueue()
        self._parts = ExitStack()
        self.port = self._parts.enter_context((SimulatedPn532 if kind == "pn532" else SimulatedPort)(link))
        reader = Reader(
            "bench",
            kind,
            str(link),
            lambda name, reading: self._read.put((reading, time.monotonic())),
            lambda name, why: None,
        )
        self._parts.callback(reader.close)
        wait_opened(link)

    def __enter__(self) -> "_Desk":
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()

    def show(self) -> float:
        """Shows a card, and returns when it was read."""
        data, expected = SHOWN[self._kind]
        while not self._read.empty():
            self._read.get()
        if isinstance(self.port, SimulatedPn532):
            self.port.show(SimulatedCard(UID))
        else:
            self.port.send(data)
        while True:
            reading, at = self._read.get(timeout=TIME_LIMIT)
            if reading == expected:
                return at
