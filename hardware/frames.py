"""Bytes from a serial port to keys and cards.

One rule: it is pure, and nothing that arrives can harm it. A decoder takes pieces of any size, finds the next
frame after garbage, keeps no more than one frame, and never raises. Time is an argument, in seconds of a
clock that never goes back. No port is opened here, and nothing is decided about a door.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import reduce
from operator import xor
from typing import Protocol

GAP_SECONDS = 0.5
"""Silence after which the first half of a frame is no longer waited for; a frame takes 20 ms at 9600 baud."""
QUIET_SECONDS = 0.1
"""Silence after which a keypad that sent garbage is believed again."""
MOST_KEYS = 32
"""Keys without such a silence; more come from no keypad, even if it sends whole codes at once."""
HELD_SECONDS = 1.0
"""A card that was away for this long is shown again. Readers repeat one that is held, all the time."""
MOST_HELD = 8
NOISE_BYTES = 1024
"""After so many bytes without a frame, the reader is of another kind than was said, or the wiring is bad."""

ONLY_NOISE = "sends only what this kind does not say: another kind, another speed, or bad wiring"


class Strength(StrEnum):
    """What it takes to make a second card that is read alike."""

    NUMBER = "number"
    """Nothing: the card tells its number to every reader, and blank cards that take any number are cheap."""
    PASSWORD = "password"  # noqa: S105  # the name of a strength
    """A password sent in the clear over the air: who listens once, a hand's breadth away, can copy it."""
    KEY = "key"
    """A key that never leaves the card: it is proved by AES against a number drawn for this one time."""


@dataclass(frozen=True, slots=True)
class Card:
    """A card or tag in front of a reader.

    Attributes:
        kind: of number: "em4100", "wiegand26", "wiegand34" or "iso14443a".
        number: hexadecimal in capitals, or "facility-card" in decimal for Wiegand. Not shown by `repr`: where
            it is the whole secret, it does not belong in a log.
        strength: how hard the card is to copy, as it was read this time.
    """

    kind: str
    number: str = field(repr=False)
    strength: Strength = Strength.NUMBER


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a keypad: one of 0 to 9, * and #. Not shown by `repr`."""

    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Garbled:
    """A keypad sent what no keypad sends: what was typed so far must not count."""


Reading = Card | Key | Garbled


class Decoder(Protocol):
    """What understands a kind of reader, and says what to send to it."""

    @property
    def fault(self) -> str | None:
        """What is wrong with the reader, as a clause that begins with a verb; None if nothing is."""

    @property
    def deadline(self) -> float | None:
        """When `receive` wants to be called again even if nothing arrives; None for never."""

    def receive(self, data: bytes, now: float) -> list[Reading]:
        """Takes the next bytes, also none, and returns what they complete."""

    def send(self, now: float) -> bytes:
        """The bytes to write now; none most of the time."""


class Held:
    """One reading for a card that is held before the reader, however often it is repeated."""

    def __init__(self) -> None:
        self._seen: dict[Card, float] = {}

    def first(self, card: Card, now: float) -> bool:
        """Whether the card has just come, and was not seen within the last `HELD_SECONDS`."""
        new = now - self._seen.pop(card, now - HELD_SECONDS) >= HELD_SECONDS
        self._seen[card] = now
        if len(self._seen) > MOST_HELD:
            del self._seen[next(iter(self._seen))]
        return new


class Listener:
    """The common part of readers that talk and do not listen."""

    deadline = None

    def __init__(self) -> None:
        self._heard = float("-inf")
        self._noise = 0

    @property
    def fault(self) -> str | None:
        """`ONLY_NOISE` while that is so."""
        return ONLY_NOISE if self._noise >= NOISE_BYTES else None

    def send(self, now: float) -> bytes:
        """Nothing."""
        return b""


class Framed(Listener):
    """A reader whose frames have one start byte, which is nowhere else in them.

    Args:
        pattern: a whole frame; group 1 is the number in hexadecimal, group 2 the XOR of its bytes.
        longest: bytes of the longest frame.
        card: makes the card of the number's bytes, or None if they are wrong.
    """

    def __init__(
        self, pattern: re.Pattern[bytes], longest: int, card: Callable[[bytes], Card | None]
    ) -> None:
        super().__init__()
        self._pattern = pattern
        self._longest = longest
        self._card = card
        self._kept = b""

    def receive(self, data: bytes, now: float) -> list[Reading]:
        """Takes the next bytes and returns the cards that they complete."""
        if now - self._heard > GAP_SECONDS:
            self._kept = b""
        self._heard = now
        text = self._kept + data
        self._noise += len(data)
        cards: list[Reading] = []
        end = 0
        for frame in self._pattern.finditer(text):
            end = frame.end()
            number = bytes.fromhex(frame[1].decode())
            card = self._card(number) if reduce(xor, number) == int(frame[2], 16) else None
            if card is not None:
                cards.append(card)
                self._noise = 0
        self._kept = text[max(end, len(text) - self._longest + 1) :]
        return cards


def rdm6300() -> Decoder:
    """Seeed/ITead RDM630 and RDM6300, 125 kHz, 9600 baud.

    STX, ten hexadecimal digits, their checksum, ETX ("RDM630 Specification", Output Data Format, UART). The
    digits are the 40 bits of an EM4100 tag (EM Microelectronic, "EM4100 Read Only Contactless Identification
    Device").
    """
    return Framed(re.compile(rb"\x02([0-9A-F]{10})([0-9A-F]{2})\x03"), 14, _em4100)


def id12la() -> Decoder:
    """ID Innovations ID-3LA, ID-12LA and ID-20LA, 125 kHz, 9600 baud, format pin "ASCII".

    The same digits as `rdm6300`, with CR and LF before ETX (data sheet "ID-2LA, ID-12LA, ID-20LA Low Voltage
    Series Reader Modules", Data Formats, Output Data Structure ASCII).
    """
    return Framed(re.compile(rb"\x02([0-9A-F]{10})([0-9A-F]{2})\r\n\x03"), 16, _em4100)


def wiegand() -> Decoder:
    """A converter from Wiegand to serial, 9600 baud, 26 or 34 bits.

    Converters differ, and a bare number, as some send it, cannot be told from noise. So this is a frame of
    our own, for a microcontroller between the two, in the manner of `rdm6300`: STX; the bits as they came,
    parity bits included, as a number of eight (26 bits) or ten (34 bits) hexadecimal digits; the XOR of its
    bytes; ETX.

    The bits: even parity over the first half, facility, card, odd parity over the second half (SIA AC-01,
    "Access Control Standard Protocol for the 26-bit Wiegand Reader Interface"; 34 bits in the same manner,
    with 16 bits of facility and 16 of card).
    """
    return Framed(re.compile(rb"\x02([0-9A-F]{8}|[0-9A-F]{10})([0-9A-F]{2})\x03"), 14, _wiegand)


def _em4100(number: bytes) -> Card:
    return Card("em4100", number.hex().upper())


def _wiegand(number: bytes) -> Card | None:
    bits = 26 if len(number) == 4 else 34
    value = int.from_bytes(number)
    low_half = value & ((1 << bits // 2) - 1)
    high_half = value >> bits // 2
    if value >> bits or high_half.bit_count() % 2 != 0 or low_half.bit_count() % 2 != 1:
        return None
    facility, card = divmod(value >> 1 & ((1 << bits - 2) - 1), 1 << 16)
    return Card(f"wiegand{bits}", f"{facility}-{card}")


class Keypad(Listener):
    """A keypad that sends ASCII: 0 to 9, * and #, and CR, with or without LF, for its enter key.

    CR is read as #, and is nothing right after a #. Single characters carry no checksum, so all is dropped
    from the first byte that no keypad sends until the line was quiet for `QUIET_SECONDS`, and what was typed
    before is called garbled.
    """

    _KEYS = re.compile(rb"[0-9*#\r\n]*")

    def __init__(self) -> None:
        super().__init__()
        self._noisy = False
        self._run = 0
        self._last = ""

    def receive(self, data: bytes, now: float) -> list[Reading]:
        """Takes the next bytes and returns the keys pressed, and once for each noise `Garbled`."""
        if not data:
            return []
        if now - self._heard >= QUIET_SECONDS:
            self._noisy = False
            self._run = 0
        self._heard = now
        if self._noisy:
            self._noise += len(data)
            return []
        keys = self._KEYS.match(data)
        assert keys is not None, "it also matches nothing"
        taken = min(keys.end(), MOST_KEYS - self._run)
        self._run += taken
        readings: list[Reading] = []
        for sign in data[:taken].decode().replace("\n", ""):
            key = "#" if sign == "\r" else sign
            if not (sign == "\r" and self._last == "#"):
                readings.append(Key(key))
            self._last = sign
        if taken == len(data):
            self._noise = 0
            return readings
        self._noisy = True
        self._noise += len(data)
        self._last = ""
        return [*readings, Garbled()]
