"""Asks a SIP server whether it is there: one OPTIONS (RFC 3261 section 11), no pjsua2 and no password.

Rule: any SIP answer counts, also a refusal; what the server says is cut to a line that can be printed.
"""

import asyncio
import errno
import re
import secrets
import socket
import time
from dataclasses import dataclass

WAITS_SECONDS = (0.5, 1.0, 1.5)
"""How long each datagram waits for its answer; the sum is the limit over TCP."""
LARGEST_ANSWER = 65535
LONGEST_TEXT = 80
_NO_NETWORK = frozenset({errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})

_REQUEST = """\
OPTIONS {registrar} SIP/2.0
Via: SIP/2.0/{transport} {own};branch=z9hG4bK{token};rport
Max-Forwards: 70
From: <{sender}>;tag={token}
To: <{registrar}>
Call-ID: {token}
CSeq: 1 OPTIONS
Contact: <sip:{own}>
Accept: application/sdp
Content-Length: 0

"""


class NotSip(ValueError):
    """Something answers, but not in SIP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said: its status, the reason, its software if it tells, and how long it took."""

    status: int
    reason: str
    software: str
    seconds: float


async def ask_options(address: str, port: int, transport: str, registrar: str, sender: str) -> Answer:
    """Send OPTIONS and return the answer; takes three seconds at most.

    Args:
        address: numeric address of the server.
        port: its port.
        transport: `udp` or `tcp`.
        registrar: the URI to ask.
        sender: the URI to ask as.

    Raises:
        TimeoutError: no answer.
        ConnectionRefusedError: nobody listens there.
        NotSip: the answer is not SIP.
        OSError: it cannot be reached.
    """
    udp = transport == "udp"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    started = time.monotonic()
    with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as channel:
        channel.setblocking(False)
        async with asyncio.timeout(sum(WAITS_SECONDS)):
            await asyncio.get_running_loop().sock_connect(channel, (address, port))
            own, own_port = channel.getsockname()[:2]
            own = f"[{own}]:{own_port}" if ":" in own else f"{own}:{own_port}"
            token = secrets.token_hex(8)
            request = _REQUEST.format(
                registrar=registrar, sender=sender, own=own, token=token, transport=transport.upper()
            )
            data = request.replace("\n", "\r\n").encode()
            text = await (_by_datagram(channel, data) if udp else _by_stream(channel, data))
    return _read(text, time.monotonic() - started)


async def is_there(address: str, port: int, transport: str, registrar: str, sender: str) -> bool | None:
    """Tell whether a server answers OPTIONS, whatever it says; None while this machine has no network.

    Takes three seconds at most; the arguments are those of `ask_options`.
    """
    try:
        await ask_options(address, port, transport, registrar, sender)
    except NotSip:
        return False
    except OSError as error:
        return None if error.errno in _NO_NETWORK else False
    return True


async def _by_datagram(channel: socket.socket, request: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    for seconds in WAITS_SECONDS:
        await loop.sock_sendall(channel, request)
        try:
            async with asyncio.timeout(seconds):
                return await loop.sock_recv(channel, LARGEST_ANSWER)
        except TimeoutError:
            continue  # a datagram may be lost
    raise TimeoutError


async def _by_stream(channel: socket.socket, request: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(channel, request)
    text = b""
    while b"\r\n\r\n" not in text and len(text) < LARGEST_ANSWER:
        more = await loop.sock_recv(channel, LARGEST_ANSWER)
        if not more:
            break
        text += more
    return text


def _read(raw: bytes, seconds: float) -> Answer:
    text = raw.decode("utf-8", "replace")
    status = re.match(r"SIP/2\.0 (\d{3}) ?([^\r\n]*)", text)
    if status is None:
        raise NotSip(_line(text.partition("\n")[0]) or "nothing")
    software = re.search(r"^(?:Server|User-Agent)[ \t]*:[ \t]*(.*)$", text, re.IGNORECASE | re.MULTILINE)
    return Answer(int(status[1]), _line(status[2]), _line(software[1]) if software else "", seconds)


def _line(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable()).strip()[:LONGEST_TEXT]
