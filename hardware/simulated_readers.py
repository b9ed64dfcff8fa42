"""Readers and keypads without hardware, on pseudo-terminals that people and tests can use.

One rule: what they send is what the data sheets say, made here without the code that reads it, so that the
two sides cannot share a mistake.
"""

import os
import select
import tty
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Self

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

STX, ETX, CR_LF = b"\x02", b"\x03", b"\r\n"


def rdm6300_frame(number: str) -> bytes:
    """What an RDM6300 sends of a tag with these ten hexadecimal digits."""
    return STX + _checked(number) + ETX


def id12la_frame(number: str) -> bytes:
    """What an ID-12LA sends of the same tag."""
    return STX + _checked(number) + CR_LF + ETX


def wiegand_frame(bits: str) -> bytes:
    """What a converter sends of 26 or 34 bits, written as 0 and 1."""
    return STX + _checked(f"{int(bits, 2):0{8 if len(bits) == 26 else 10}X}") + ETX


def _checked(digits: str) -> bytes:
    check = 0
    for at in range(0, len(digits), 2):
        check ^= int(digits[at : at + 2], 16)
    return f"{digits}{check:02X}".encode()


class SimulatedPort:
    """A serial port behind a link, with a cable that can be pulled.

    Args:
        link: the name that the port has while it is plugged in, like those in /dev/serial/by-id.
    """

    def __init__(self, link: Path) -> None:
        self.link = link
        self.plugged = False
        self.plug()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def plug(self) -> None:
        """Plugs it in, as a new device under the old name."""
        self._ours, self._theirs = os.openpty()
        tty.setraw(self._theirs)
        new = self.link.with_name(f".{self.link.name}")
        new.symlink_to(os.ttyname(self._theirs))
        new.replace(self.link)
        self.plugged = True

    def unplug(self) -> None:
        """Pulls the cable: the name is gone, and who has it open sees an error."""
        if self.plugged:
            self.plugged = False
            self.link.unlink()
            os.close(self._ours)
            os.close(self._theirs)

    def close(self) -> None:
        """Pulls the cable for good. May be called twice."""
        self.unplug()

    def send(self, data: bytes) -> None:
        """Sends bytes; blocks while nobody reads and the buffer of the port is full."""
        while data:
            data = data[os.write(self._ours, data) :]

    def type(self, keys: str) -> None:
        """Types on a keypad: 0 to 9, * and #, and a line feed for its enter key."""
        self.send(keys.replace("\n", "\r").encode())

    def heard(self, seconds: float) -> bytes:
        """What the other side writes next, waiting for it so long; nothing if it is silent."""
        ready, _, _ = select.select([self._ours], [], [], seconds)
        return os.read(self._ours, 4096) if ready else b""


@dataclass(frozen=True)
class SimulatedCard:
    """A card of ISO 14443A.

    Attributes:
        uid: 4, 7 or 10 bytes.
        password: PWD and PACK of an NTAG21x, 6 bytes; empty if it has none.
        key: key 0 of an NTAG 424 DNA; empty if it is another card.
    """

    uid: bytes
    password: bytes = b""
    key: bytes = b""


class SimulatedPn532(SimulatedPort):
    """The chip PN532 with an antenna that cards can be shown to; it answers on a thread of its own.

    Attributes:
        asked: how many commands it has had, for each first byte.
        deaf: True for a chip that answers nothing.
    """

    def __init__(self, link: Path) -> None:
        self.asked: dict[int, int] = {}
        self.deaf = False
        self._card: SimulatedCard | None = None
        self._challenge = b""
        self._writing = Lock()
        super().__init__(link)

    def plug(self) -> None:
        """Plugs it in; the chip has forgotten everything."""
        super().plug()
        self._chip = Thread(target=self._serve, name=f"simulated {self.link.name}", daemon=True)
        self._end, self._ending = os.pipe()
        self._chip.start()

    def unplug(self) -> None:
        """Pulls the cable."""
        if self.plugged:
            os.write(self._ending, b"!")
            self._chip.join()
            os.close(self._end)
            os.close(self._ending)
        super().unplug()

    def send(self, data: bytes) -> None:
        """Sends bytes in one piece, also between the answers of the chip."""
        with self._writing:
            super().send(data)

    def show(self, card: SimulatedCard | None) -> None:
        """Holds a card before the antenna, or takes it away."""
        self._card = card

    def _serve(self) -> None:
        kept = b""
        while True:
            ready, _, _ = select.select([self._ours, self._end], [], [])
            if self._end in ready:
                return
            with suppress(OSError):
                kept += os.read(self._ours, 4096)
            while (start := kept.find(b"\x00\x00\xff")) >= 0:
                if len(kept) < start + 5 or len(kept) < start + 6 + kept[start + 3]:
                    break
                body = kept[start + 5 : start + 5 + kept[start + 3]]
                kept = kept[start + 6 + len(body) :]
                if len(body) > 1 and body[0] == 0xD4 and not self.deaf:
                    self._obey(body[1:])

    def _obey(self, command: bytes) -> None:
        self.asked[command[0]] = self.asked.get(command[0], 0) + 1
        answer = bytes((0xD5, command[0] + 1)) + self._answer(command)
        check = -sum(answer) % 256
        head = bytes((0, 0, 255, len(answer), -len(answer) % 256))
        self.send(b"\x00\x00\xff\x00\xff\x00" + head + answer + bytes((check, 0)))

    def _answer(self, command: bytes) -> bytes:
        card = self._card
        match command[0]:
            case 0x4A if card is None:
                return b"\x00"
            case 0x4A if card is not None:
                select_response = b"\x20" if card.key else b"\x00"
                history = b"\x06\x77\x77\x71\x02\x80" if card.key else b""
                return b"\x01\x01\x00\x44" + select_response + bytes((len(card.uid),)) + card.uid + history
            case 0x42 if card is not None and card.password and command[1] == 0x1B:
                right = command[2:6] == card.password[:4]
                return b"\x00" + card.password[4:] if right else b"\x01"
            case 0x40 if card is not None and card.key:
                return b"\x00" + self._ntag424(card.key, command[2:])
            case 0x40 | 0x42:
                return b"\x01"
        return b""

    def _ntag424(self, key: bytes, apdu: bytes) -> bytes:
        aes = Cipher(algorithms.AES128(key), modes.CBC(bytes(16)))
        if apdu[1] == 0xA4:
            return b"\x90\x00"
        if apdu[1] == 0x71:
            self._challenge = os.urandom(16)
            encryptor = aes.encryptor()
            return encryptor.update(self._challenge) + encryptor.finalize() + b"\x91\xaf"
        decryptor = aes.decryptor()
        both = decryptor.update(apdu[5:37]) + decryptor.finalize()
        if both[16:] != self._challenge[1:] + self._challenge[:1]:
            return b"\x91\xae"
        encryptor = aes.encryptor()
        proof = os.urandom(4) + both[1:16] + both[:1] + bytes(12)
        return encryptor.update(proof) + encryptor.finalize() + b"\x91\x00"
