"""The NFC chip NXP PN532 on a serial port (HSU): asks it for ISO 14443A cards, and cards for their secret.

One rule: as in `frames`, it is pure and nothing that arrives can harm it; a wrong or missing answer costs a
retry. What a card has not proved is called `Strength.NUMBER`, whatever is expected of it.

Sources: NXP UM0701-02 "PN532 User Manual" (frames, wake-up, commands), NXP data sheet "NTAG213/215/216"
(PWD_AUTH), NXP data sheet "NT4H2421Gx NTAG 424 DNA" and AN12196 (AuthenticateEV2First), ISO/IEC 14443-3
(CRC_A, random UID).
"""

import hmac
import secrets
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from hardware.frames import HELD_SECONDS, NOISE_BYTES, ONLY_NOISE, Card, Reading, Strength

BAUD = 115200
ANSWER_SECONDS = 0.15
"""How long the chip may take for an answer; most take 10 ms."""
PAUSE_SECONDS = 0.1
"""Between two questions for cards. The field is off meanwhile, so every card begins anew."""
GAP_SECONDS = 0.02
"""Silence after which the rest of a frame does not come: 230 bytes would have had the time."""
TRIES = 2
"""How often a card may fail to prove its secret before it is read as a mere number: hands tremble."""

WAKE_UP = b"\x55\x55" + bytes(14)
ACK = bytes.fromhex("0000FF00FF00")
TO_CHIP, FROM_CHIP = 0xD4, 0xD5
SAM_CONFIGURATION = bytes.fromhex("14011401")
RETRIES = bytes.fromhex("3205FF0101")
FIELD_OFF = bytes.fromhex("320100")
LIST_ONE = bytes.fromhex("4A0100")
IN_DATA_EXCHANGE, IN_COMMUNICATE_THRU = b"\x40", b"\x42"
PWD_AUTH = b"\x1b"
ISO_DEP = 0x20
RANDOM_UID = 0x08

SELECT_NTAG424 = bytes.fromhex("00A4040C07D276000085010100")
MORE, DONE = bytes.fromhex("91AF"), bytes.fromhex("9100")

NO_ANSWER = "does not answer"


@dataclass(frozen=True, slots=True)
class NtagPassword:
    """What an NTAG213, 215 or 216 proves itself with.

    Attributes:
        password: PWD, 4 bytes, which the reader sends in the clear.
        acknowledge: PACK, 2 bytes, which the card answers in the clear.
    """

    password: bytes = field(repr=False)
    acknowledge: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if (len(self.password), len(self.acknowledge)) != (4, 2):
            raise ValueError("an NTAG has a password of 4 bytes and an acknowledge of 2")


@dataclass(frozen=True, slots=True)
class Ntag424Key:
    """What an NTAG 424 DNA proves itself with.

    Attributes:
        key: AES-128, 16 bytes, which is never sent.
        number: which of the card's keys it is, 0 to 4.
    """

    key: bytes = field(repr=False)
    number: int = 0

    def __post_init__(self) -> None:
        if len(self.key) != 16 or not 0 <= self.number <= 4:
            raise ValueError("an NTAG 424 DNA has keys 0 to 4 of 16 bytes")


CardSecret = NtagPassword | Ntag424Key
SecretOf = Callable[[str], CardSecret | None]


def frame(payload: bytes) -> bytes:
    """A normal information frame (UM0701-02, 6.2.1.1), for up to 254 bytes after the direction byte."""
    length = len(payload)
    return b"".join(
        (b"\x00\x00\xff", bytes((length, -length & 0xFF)), payload, bytes((-sum(payload) & 0xFF, 0)))
    )


class Frames:
    """Cuts the chip's bytes into the payloads of its frames, direction byte first.

    Extended frames are not understood, since nothing that is asked for here needs one.
    """

    def __init__(self) -> None:
        self._kept = b""
        self._heard = float("-inf")

    def receive(self, data: bytes, now: float) -> list[bytes]:
        """Takes the next bytes, also none, and returns the payloads that they complete."""
        payloads = []
        if self._kept and now - self._heard > GAP_SECONDS:
            payloads = self._cut(self._kept, waiting=False)
        if data:
            self._heard = now
            payloads += self._cut(self._kept + data, waiting=True)
        return payloads

    def _cut(self, text: bytes, waiting: bool) -> list[bytes]:
        """All payloads of the text; keeps an unfinished frame if the rest of it is waited for."""
        payloads = []
        at = 0
        while (start := text.find(b"\x00\xff", at)) >= 0:
            head = text[start + 2 : start + 4]
            if len(head) == 2 and sum(head) & 0xFF:
                at = start + 1
                continue
            end = start + 4 + head[0] + 1 if len(head) == 2 else len(text) + 1
            if end > len(text):
                if waiting:
                    break
                at = start + 1
                continue
            if head[0] and sum(text[start + 4 : end]) & 0xFF == 0:
                payloads.append(text[start + 4 : end - 1])
                at = end
            else:  # an ACK, whose 00 FF 00 may begin the next frame, or a wrong checksum
                at = start + 1
        if not waiting:
            self._kept = b""
        else:
            self._kept = text[start:] if start >= 0 else text[max(at, len(text) - 1) :]
        return payloads


Conversation = Generator[bytes | None, bytes | None, None]
Proof = Generator[bytes | None, bytes | None, bool | None]
"""True: the card has its secret. False: it has another. None: it could not be asked to the end."""


class Pn532:
    """The conversation with the chip: wakes it, asks for cards, and cards for their secret.

    Args:
        secret_of: the secret of the card with a UID (hexadecimal, capitals), None if it has none. Must
            neither block nor raise.
        random: draws so many random bytes.
    """

    def __init__(
        self, secret_of: SecretOf | None = None, random: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._secret_of = secret_of
        self._random = random
        self._frames = Frames()
        self._noise = 0
        self._silent = 0
        self._found: list[Reading] = []
        self._card: Card | None = None
        self._seen = float("-inf")
        self._failed = 0
        self._now = float("-inf")
        self._asked = b""
        self._outbox = b""
        self._deadline: float | None = None
        self._talk = self._conversation()
        self._go_on(None)

    @property
    def fault(self) -> str | None:
        """That the chip does not answer, or sends only noise."""
        if self._silent >= TRIES:
            return ONLY_NOISE if self._noise >= NOISE_BYTES else NO_ANSWER
        return None

    @property
    def deadline(self) -> float | None:
        """When the next question is due, or the answer overdue."""
        return self._deadline

    def receive(self, data: bytes, now: float) -> list[Reading]:
        """Takes what the chip sent, also nothing, and returns the cards that are there."""
        self._now = now
        self._noise += len(data)
        for payload in self._frames.receive(data, now):
            if self._asked and payload[:2] == bytes((FROM_CHIP, self._asked[0] + 1)):
                self._noise = self._silent = 0
                self._go_on(payload[2:])
        if self._deadline is not None and now >= self._deadline:
            if self._asked:
                self._silent += 1
            self._go_on(None)
        found, self._found = self._found, []
        return found

    def send(self, now: float) -> bytes:
        """What to write now; its answer is waited for from now on."""
        outbox, self._outbox = self._outbox, b""
        if outbox:
            self._deadline = now + ANSWER_SECONDS
        return outbox

    def _go_on(self, answer: bytes | None) -> None:
        """Gives the conversation its answer, and takes the next question, or None for a pause."""
        question = self._talk.send(answer)
        if question is None:
            self._asked = b""
            self._deadline = self._now + PAUSE_SECONDS
        else:
            self._asked = question
            waking = WAKE_UP + ACK if question == SAM_CONFIGURATION else b""
            self._outbox = waking + frame(bytes((TO_CHIP,)) + question)
            self._deadline = None

    def _conversation(self) -> Conversation:
        while True:
            ready = (yield SAM_CONFIGURATION) is not None and (yield RETRIES) is not None
            while ready:
                listed = yield LIST_ONE
                if listed is None:
                    break
                yield from self._look(listed)
                ready = (yield FIELD_OFF) is not None
                if ready:
                    yield None

    def _look(self, listed: bytes) -> Conversation:
        """Read the card that InListPassiveTarget found, if there is one."""
        if len(listed) < 6 or listed[0] != 1:
            self._failed = 0
            return
        target, select, uid = listed[1], listed[4], listed[6 : 6 + listed[5]]
        if len(uid) != listed[5] or len(uid) not in (4, 7, 10) or (len(uid) == 4 and uid[0] == RANDOM_UID):
            return
        number = uid.hex().upper()
        card = self._card
        if card is None or card.number != number or self._now - self._seen >= HELD_SECONDS:
            card = yield from self._proved(number, target, select)
        if card is not None:
            self._found.append(card)
            self._seen = self._now
        self._card = card

    def _proved(
        self, number: str, target: int, select: int
    ) -> Generator[bytes | None, bytes | None, Card | None]:
        """The card with the strength it has proved; None if it has not, and may try again."""
        secret = self._secret_of(number) if self._secret_of is not None else None
        strength, proved = Strength.NUMBER, None if secret else False
        if isinstance(secret, NtagPassword) and not select & ISO_DEP:
            strength, proved = Strength.PASSWORD, (yield from self._knows_password(secret))
        elif isinstance(secret, Ntag424Key) and select & ISO_DEP:
            strength, proved = Strength.KEY, (yield from self._has_key(secret, target))
        if proved is None:
            self._failed += 1
            if self._failed < TRIES:
                return None
        self._failed = 0
        return Card("iso14443a", number, strength if proved else Strength.NUMBER)

    def _knows_password(self, secret: NtagPassword) -> Proof:
        answer = yield IN_COMMUNICATE_THRU + PWD_AUTH + secret.password
        if answer is None or answer[:1] != b"\x00":
            return None
        acknowledge = answer[1:]
        if len(acknowledge) == 4 and crc_a(acknowledge[:2]) == acknowledge[2:]:
            acknowledge = acknowledge[:2]  # the chip hands the CRC on unless it was told to check it
        if len(acknowledge) != 2:
            return None
        return hmac.compare_digest(acknowledge, secret.acknowledge)

    def _has_key(self, secret: Ntag424Key, target: int) -> Proof:
        """AuthenticateEV2First: both sides show that they can turn the other's random number."""
        exchange = IN_DATA_EXCHANGE + bytes((target,))
        if (yield exchange + SELECT_NTAG424) != b"\x00\x90\x00":
            return None
        challenge = yield exchange + apdu(0x71, bytes((secret.number, 0)))
        if challenge is None or len(challenge) != 19 or challenge[:1] + challenge[17:] != b"\x00" + MORE:
            return None
        theirs = decrypted(secret.key, challenge[1:17])
        ours = self._random(16)
        reply = yield exchange + apdu(0xAF, encrypted(secret.key, ours + turned(theirs)))
        if reply is None or reply[:1] != b"\x00":
            return None
        if len(reply) != 35 or reply[33:] != DONE:
            return False  # the card says that our key is not its key
        return hmac.compare_digest(decrypted(secret.key, reply[1:33])[4:20], turned(ours))


def apdu(command: int, data: bytes) -> bytes:
    """A command of the card in its ISO 7816-4 wrapping."""
    return bytes((0x90, command, 0, 0, len(data))) + data + b"\x00"


def turned(number: bytes) -> bytes:
    """The first byte put last."""
    return number[1:] + number[:1]


def crc_a(data: bytes) -> bytes:
    """CRC_A of ISO/IEC 14443-3, the low byte first."""
    crc = 0x6363
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x8408 if crc & 1 else 0)
    return crc.to_bytes(2, "little")


def encrypted(key: bytes, text: bytes) -> bytes:
    """AES-128 in CBC mode from an initial vector of zeros, as the card does while authenticating."""
    # Imported when the first card with a key is shown: no other card needs it.
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    aes = Cipher(algorithms.AES128(key), modes.CBC(bytes(16))).encryptor()
    return aes.update(text) + aes.finalize()


def decrypted(key: bytes, text: bytes) -> bytes:
    """The other way round of `encrypted`."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    aes = Cipher(algorithms.AES128(key), modes.CBC(bytes(16))).decryptor()
    return aes.update(text) + aes.finalize()
