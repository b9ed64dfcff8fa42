"""Asks a SIP server whether it is there: one OPTIONS (RFC 3261 section 11), no pjsua2 and no password.

Rule: any SIP answer counts, also a refusal; what the server says is cut to a line that can be printed.
"""

import asyncio
import contextlib
import errno
import re
import secrets
import socket
import ssl
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from intercom.sip.certificate import Trust, fingerprint_of, is_for, names_of, objection

WAITS_SECONDS = (0.5, 1.0, 1.5)
"""How long each datagram waits for its answer; the sum is the limit over TCP."""
LARGEST_ANSWER = 65535
LONGEST_TEXT = 80
_UNKNOWN_AUTHORITY = frozenset({18, 19, 20, 21})  # X509_V_ERR_… of OpenSSL: no chain to one that is known
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


class Distrusted(Exception):
    """A server is not spoken to; the text says why, to go on after its name.

    Attributes:
        certificate: what it showed (DER); empty if it takes no TLS at all.
    """

    def __init__(self, reason: str, certificate: bytes = b"") -> None:
        """Keep what it showed."""
        super().__init__(reason)
        self.certificate = certificate


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said: its status, the reason, its software if it tells, and how long it took.

    Over TLS also the certificate that it showed (DER).
    """

    status: int
    reason: str
    software: str
    seconds: float
    certificate: bytes = b""


async def ask_options(
    address: str, port: int, transport: str, registrar: str, sender: str, trust: Trust | None = None
) -> Answer:
    """Send OPTIONS and return the answer; takes three seconds at most.

    Args:
        address: numeric address of the server.
        port: its port.
        transport: `udp`, `tcp` or `tls`.
        registrar: the URI to ask.
        sender: the URI to ask as.
        trust: what the server must show; for TLS.

    Raises:
        Distrusted: it does not show that over TLS.
        TimeoutError: no answer.
        ConnectionRefusedError: nobody listens there.
        NotSip: the answer is not SIP.
        OSError: it cannot be reached.
    """
    if trust is not None:
        return await _ask_by_tls(address, port, registrar, sender, trust)
    udp = transport == "udp"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    started = time.monotonic()
    with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as channel:
        channel.setblocking(False)
        async with asyncio.timeout(sum(WAITS_SECONDS)):
            await asyncio.get_running_loop().sock_connect(channel, (address, port))
            data = _request(channel.getsockname(), transport, registrar, sender)
            text = await (_by_datagram(channel, data) if udp else _by_stream(channel, data))
    return _read(text, time.monotonic() - started)


def _request(source: tuple[str, int], transport: str, registrar: str, sender: str) -> bytes:
    own, port = source[:2]
    own = f"[{own}]:{port}" if ":" in own else f"{own}:{port}"
    token = secrets.token_hex(8)
    request = _REQUEST.format(
        registrar=registrar, sender=sender, own=own, token=token, transport=transport.upper()
    )
    return request.replace("\n", "\r\n").encode()


async def is_there(
    address: str, port: int, transport: str, registrar: str, sender: str, trust: Trust | None = None
) -> bool | None:
    """Tell whether a server answers OPTIONS, whatever it says; None while this machine has no network.

    One that is not trusted is not there.

    Takes three seconds at most; the arguments are those of `ask_options`.
    """
    try:
        await ask_options(address, port, transport, registrar, sender, trust)
    except (NotSip, Distrusted):
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


async def _ask_by_tls(address: str, port: int, registrar: str, sender: str, trust: Trust) -> Answer:
    started = time.monotonic()
    async with asyncio.timeout(sum(WAITS_SECONDS)):
        reader, writer = await _connect(address, port, trust)
        try:
            certificate = _believed(writer, trust)
            writer.write(_request(writer.get_extra_info("sockname"), "tls", registrar, sender))
            text = b""
            with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                text = await reader.readuntil(b"\r\n\r\n")
        finally:
            writer.transport.abort()  # without it the far side would be waited for
    return replace(_read(text, time.monotonic() - started), certificate=certificate)


async def _connect(
    address: str, port: int, trust: Trust
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Raises Distrusted, and OSError."""
    context = trust.context()
    try:
        return await asyncio.open_connection(address, port, ssl=context, server_hostname=trust.host)
    except ssl.SSLCertVerificationError as error:
        unknown, other = error.verify_code in _UNKNOWN_AUTHORITY, error.verify_message
    except ssl.SSLError as error:
        raise Distrusted(f"takes no TLS as it should be ({_line(error.reason or str(error))})") from None
    except (ConnectionResetError, asyncio.IncompleteReadError):
        raise Distrusted("takes no TLS as it should be (the connection was closed)") from None
    context.verify_mode = ssl.CERT_NONE  # once more, to see what it shows; nothing is sent
    _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=trust.host)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    raise Distrusted(objection(shown, trust, datetime.now(UTC), unknown=unknown, other=other), shown)


def _believed(writer: asyncio.StreamWriter, trust: Trust) -> bytes:
    """Return the certificate (DER) of a connection; raises Distrusted if it is for somebody else."""
    tls = writer.get_extra_info("ssl_object")
    shown: bytes = tls.getpeercert(binary_form=True)
    if trust.fingerprint:
        good = fingerprint_of(shown) == trust.fingerprint
    else:
        good = is_for(trust.host, names_of(tls.getpeercert()))
    if not good:
        raise Distrusted(objection(shown, trust, datetime.now(UTC), unknown=False, other=""), shown)
    return shown


def _read(raw: bytes, seconds: float) -> Answer:
    text = raw.decode("utf-8", "replace")
    status = re.match(r"SIP/2\.0 (\d{3}) ?([^\r\n]*)", text)
    if status is None:
        raise NotSip(_line(text.partition("\n")[0]) or "nothing")
    software = re.search(r"^(?:Server|User-Agent)[ \t]*:[ \t]*(.*)$", text, re.IGNORECASE | re.MULTILINE)
    return Answer(int(status[1]), _line(status[2]), _line(software[1]) if software else "", seconds)


def _line(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable()).strip()[:LONGEST_TEXT]
