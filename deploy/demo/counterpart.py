"""A SIP server and a telephone in one, which says and plays whatever a test wants it to.

A program registers at its address, calls through it and is called by it, so everything that the program takes
from its own server and peer can be said here, also what no real one would say.

Rule: it answers REGISTER by itself while it waits for something else; everything else is the test's.
"""

from __future__ import annotations

import re
import secrets
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deploy.demo.account import Account
from deploy.demo.stranger import Reply, Stranger

PCMA, EVENT = 8, 101
SILENCE = b"\xd5" * 160
PACKET_SECONDS = 0.02
CODECS = {
    "PCMU": (0, "PCMU/8000"),
    "PCMA": (8, "PCMA/8000"),
    "G722": (9, "G722/8000"),
    "opus": (96, "opus/48000/2"),
    "GSM": (3, "GSM/8000"),
}


def sdp(address: str, port: int, codecs: Sequence[str] = ("PCMA",), event: int | None = EVENT) -> str:
    """A session with these codecs, and telephone events under this payload type."""
    numbers = [str(CODECS[name][0]) for name in codecs]
    lines = [f"a=rtpmap:{number} {CODECS[name][1]}" for number, name in zip(numbers, codecs, strict=True)]
    if event is not None:
        numbers.append(str(event))
        lines += [f"a=rtpmap:{event} telephone-event/8000", f"a=fmtp:{event} 0-15"]
    media = f"m=audio {port} RTP/AVP {' '.join(numbers)}"
    head = ["v=0", f"o=- {secrets.randbits(30)} 1 IN IP4 {address}", "s=-", f"c=IN IP4 {address}", "t=0 0"]
    return "\r\n".join([*head, media, *lines, "a=sendrecv", ""])


@dataclass
class Dialog:
    """A call, seen from here (RFC 3261 section 12): what requests in it say, and where its sound goes."""

    call_id: str
    local: str
    remote: str
    target: str
    sound: tuple[str, int]
    session: str
    cseq: int = 1

    @property
    def event(self) -> int:
        """The payload type under which the program takes telephone events."""
        return _event(self.session)

    def headers(self, method: str, cseq: int | None = None) -> dict[str, str]:
        """The headers of the next request, or of one with a number of its own."""
        if cseq is None:
            self.cseq += method != "ACK"
            cseq = self.cseq
        return {"From": self.local, "To": self.remote, "Call-ID": self.call_id, "CSeq": f"{cseq} {method}"}


@dataclass
class Stream:
    """RTP packets of one source, one after another (RFC 3550 section 5.1)."""

    ssrc: int = field(default_factory=lambda: secrets.randbits(32))
    sequence: int = field(default_factory=lambda: secrets.randbits(15))
    timestamp: int = field(default_factory=lambda: secrets.randbits(31))
    event: int = EVENT

    def packet(self, payload: bytes, kind: int = PCMA, *, timestamp: int | None = None) -> bytes:
        """The next packet."""
        self.sequence = (self.sequence + 1) % 65536
        at = self.timestamp if timestamp is None else timestamp
        return struct.pack("!BBHII", 0x80, kind, self.sequence, at % 2**32, self.ssrc) + payload

    def voice(self) -> bytes:
        """20 ms of silence, as A-law."""
        self.timestamp += 160
        return self.packet(SILENCE)

    def press(self, digit: str, *, held: int = 8, ends: int = 3, odd: bool = False) -> list[bytes]:
        """The packets of a key press (RFC 4733 section 2.5.1.2); `odd`: without end and duration."""
        self.timestamp += 160
        key = "0123456789*#ABCD".index(digit)
        durations = [160 * (number + 1) for number in range(held)] + [160 * (held + 1)] * ends
        at = self.timestamp
        made = [
            self.packet(
                struct.pack(
                    "!BBH", key, 10 | (0x80 if number >= held and not odd else 0), 0 if odd else duration
                ),
                self.event,
                timestamp=at,
            )
            for number, duration in enumerate(durations)
        ]
        self.timestamp += durations[-1] + 320
        return made


class Counterpart(Stranger):
    """The server and peer of one program.

    Args:
        port: of the program on 127.0.0.1.
        address: IPv4 address that it has itself.

    Attributes:
        sound: the socket of its RTP.
    """

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        super().__init__(f"127.0.0.1:{port}", address)
        self.sound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sound.bind((address, 0))
        self.sound_port: int = self.sound.getsockname()[1]

    def close(self) -> None:
        """Close both sockets."""
        self.sound.close()
        super().close()

    def account(self, user: str = "door") -> Account:
        """What the program registers as."""
        return Account(user, f"{user}-secret", "site.example", self.address)

    def wait(self, wanted: str, timeout: float = 5.0) -> str:
        """Block for the next message that begins with this; others are dropped, REGISTER is granted.

        Raises:
            TimeoutError: none came.
        """
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            message = self.receive(left)
            if message.startswith("REGISTER "):
                contact = Reply(0, message).header("Contact")
                self.reply(message, 200, {"Contact": f"{contact};expires=300", "Expires": "300"})
            if message.startswith(wanted):
                return message
        raise TimeoutError(f"no {wanted} within {timeout:g} s")

    @property
    def offer(self) -> str:
        """The session it offers, if a test has none of its own."""
        return sdp(self.sound.getsockname()[0], self.sound_port)

    def answer(self, invite: str) -> str:
        """The session it answers with: as `offer`, with the telephone events of the call that came in."""
        return sdp(self.sound.getsockname()[0], self.sound_port, event=_event(invite))

    def take(self, body: str = "", timeout: float = 10.0, peer: Counterpart | None = None) -> Dialog:
        """Answer the next call of the program at once, and block until it is established.

        Args:
            body: the session; `answer` if empty.
            timeout: seconds to wait for the call.
            peer: who is in the call, if not this one: what comes after the answer goes to him.
        """
        invite = self.wait("INVITE ", timeout)
        contact = {"Contact": f"<sip:peer@{peer.address}>"} if peer else {}
        self.reply(invite, 200, {"Content-Type": "application/sdp", **contact}, body or self.answer(invite))
        dialog = self.dialog_of(invite)
        (peer or self).wait("ACK ")
        return dialog

    def dialog_of(self, invite: str) -> Dialog:
        """The dialog that our answer to a call of the program makes."""
        field = Reply(0, invite).header
        local = f"{field('To')};tag={self.tag}"
        return Dialog(field("Call-ID"), local, field("From"), _uri(field("Contact")), _sound(invite), invite)

    def call(
        self,
        body: str = "",
        headers: Mapping[str, str] | None = None,
        caller: str = "flat1",
        timeout: float = 5.0,
    ) -> Reply | Dialog:
        """Call the program and block: for the call, or for the refusal; either is acknowledged."""
        tag, uri = secrets.token_hex(4), f"sip:door@{self.target}"
        own = {
            "From": f"<sip:{caller}@site.example>;tag={tag}",
            "Via": f"SIP/2.0/UDP {self.address};branch=z9hG4bK{secrets.token_hex(8)};rport",
            "Content-Type": "application/sdp",
            **(headers or {}),
        }
        reply = self.ask("INVITE", uri, own, body or self.offer, timeout)
        ack = {
            "From": own["From"],
            "To": reply.header("To"),
            "Call-ID": reply.header("Call-ID"),
            "CSeq": "1 ACK",
        }
        if reply.code >= 300:
            self.send("ACK", uri, {**ack, "Via": own["Via"]})
            return reply
        target = _uri(reply.header("Contact"))
        self.send("ACK", target, ack)
        return Dialog(ack["Call-ID"], ack["From"], ack["To"], target, _sound(reply.text), reply.text)

    def within(self, dialog: Dialog, method: str, body: str = "", **headers: str) -> Reply:
        """Ask something within a call; header names are given with `_` for `-`."""
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask(method, dialog.target, {**dialog.headers(method), **extra}, body)

    def play(self, dialog: Dialog, packets: Sequence[bytes] | Iterator[bytes]) -> None:
        """Send RTP to the program, as fast as it goes."""
        for packet in packets:
            self.sound.sendto(packet, dialog.sound)

    def heard(self, timeout: float) -> bytes:
        """Block for the next packet of the program.

        Raises:
            TimeoutError: none came.
        """
        self.sound.settimeout(timeout)
        return self.sound.recv(2048)


def _event(message: str) -> int:
    found = re.search(r"^a=rtpmap:(\d+) telephone-event/8000", message, re.MULTILINE)
    return int(found[1]) if found else EVENT


def _uri(contact: str) -> str:
    found = re.search(r"sips?:[^>\s]*", contact)
    return found[0] if found else ""


def _sound(message: str) -> tuple[str, int]:
    address = re.search(r"^c=IN IP4 (\S+)", message, re.MULTILINE)
    port = re.search(r"^m=audio (\d+)", message, re.MULTILINE)
    return (address[1] if address else "", int(port[1]) if port else 0)
