"""Asks STUN and TURN servers whether they are there, so that a call waits for none that is not.

Rule: no pjsua2 and no call; a server is used only from its last answer on, until it is silent.
"""

import asyncio
import contextlib
import hashlib
import hmac
import secrets
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from intercom.sip.targets import Names, NoRecord, is_numeric

WAITS_SECONDS = (0.3, 0.6, 1.1)
"""How long each datagram waits for its answer; the sum is the limit over TCP."""
PAUSE_SECONDS = 10.0
_COOKIE = 0x2112A442
_BINDING, _REFRESH = 0x0001, 0x0004
_USERNAME, _INTEGRITY, _ERROR_CODE, _REALM, _NONCE, _FINGERPRINT = 0x06, 0x08, 0x09, 0x14, 0x15, 0x8028
_UNAUTHORIZED = 401
_LARGEST = 1500


@dataclass(frozen=True, slots=True)
class Relay:
    """A server that the settings name.

    Attributes:
        kind: `STUN` or `TURN`.
        host: name or address.
        port: of the same.
        transport: `udp` or `tcp`.
        username: for TURN.
        password: its secret.
    """

    kind: str
    host: str
    port: int
    transport: str = "udp"
    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Nat:
    """What helps sound through address translators.

    Attributes:
        ice: whether it is offered and taken (RFC 8445).
        relays: the STUN server, the TURN server, or both, or none.
    """

    ice: bool = False
    relays: tuple[Relay, ...] = ()


class Absent(Exception):
    """A server cannot be used; the text says why, to go on after its name."""


async def look(relay: Relay, names: Names) -> str:
    """Return the `address:port` of a server that answers, and takes our password if it is a TURN server.

    Takes five seconds at most, two of them for its name. Nothing is allocated.

    Raises:
        Absent: in words.
    """
    try:
        address = relay.host if is_numeric(relay.host) else (await names.addresses(relay.host))[0]
    except (NoRecord, OSError):
        raise Absent("has a name that does not resolve") from None
    try:
        async with asyncio.timeout(sum(WAITS_SECONDS)):
            await _ask(relay, address)
    except TimeoutError:
        raise Absent("does not answer") from None
    except ConnectionRefusedError:
        raise Absent("is not running: nobody listens on this port") from None
    except OSError as error:
        raise Absent(f"cannot be reached: {error.strerror or error}") from None
    except (ValueError, struct.error, asyncio.IncompleteReadError):
        raise Absent(f"answers, but not as a {relay.kind} server does") from None
    return f"[{address}]:{relay.port}" if ":" in address else f"{address}:{relay.port}"


async def follow(
    relay: Relay, names: Names, use: Callable[[str], object], health: Callable[[str | None], object]
) -> None:
    """Ask a server every ten seconds, for ever.

    Args:
        relay: the server.
        names: the name server.
        use: told each time its `address:port` if it answers, "" if it does not.
        health: told in words what is wrong, None when it is well.
    """
    fault: str | None = None
    while True:
        there, wrong = "", None
        try:
            there = await look(relay, names)
        except Absent as absent:
            wrong = f"the {relay.kind} server {relay.host}:{relay.port} {absent}; calls go without it"
        use(there)
        if wrong != fault:
            fault = wrong
            health(wrong)
        await asyncio.sleep(PAUSE_SECONDS)


async def _ask(relay: Relay, address: str) -> None:
    """Raises Absent, ValueError for nonsense, and OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    udp = relay.transport == "udp"
    with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as channel:
        channel.setblocking(False)
        await asyncio.get_running_loop().sock_connect(channel, (address, relay.port))
        send = _by_datagram if udp else _by_stream
        if relay.kind == "STUN":
            await send(channel, _request(_BINDING))
            return
        # Refreshing what was never allocated tells whether the password is right, and takes no relay's port.
        said = _read(await send(channel, _request(_REFRESH)))
        if _REALM not in said or _NONCE not in said:
            raise ValueError("no challenge")
        answer = _read(await send(channel, _request(_REFRESH, relay, said[_REALM], said[_NONCE])))
        if _code(answer) == _UNAUTHORIZED:
            raise Absent("refuses the user name or the password")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + b"\0" * (-len(value) % 4)


def _request(method: int, relay: Relay | None = None, realm: bytes = b"", nonce: bytes = b"") -> bytes:
    """A request (RFC 8489 section 5), with a long-term credential if there is a challenge to answer."""
    token, body = secrets.token_bytes(12), b""

    def head(length: int) -> bytes:
        return struct.pack("!HHI", method, length, _COOKIE) + token

    if relay is not None:
        user, password = relay.username.encode(), relay.password.encode()
        body = _attribute(_USERNAME, user) + _attribute(_REALM, realm) + _attribute(_NONCE, nonce)
        key = hashlib.md5(b":".join((user, realm, password)), usedforsecurity=False).digest()
        body += _attribute(_INTEGRITY, hmac.digest(key, head(len(body) + 24) + body, "sha1"))
    mark = zlib.crc32(head(len(body) + 8) + body) ^ 0x5354554E
    body += _attribute(_FINGERPRINT, struct.pack("!I", mark))
    return head(len(body)) + body


def _read(answer: bytes) -> dict[int, bytes]:
    """The attributes of an answer. Raises ValueError and struct.error."""
    found, rest = {}, answer[20:]
    while rest:
        kind, length = struct.unpack_from("!HH", rest)
        found[kind] = rest[4 : 4 + length]
        rest = rest[4 + length + -length % 4 :]
    return found


def _code(attributes: dict[int, bytes]) -> int:
    """The error (RFC 8489 section 14.8); 0 for none."""
    value = attributes.get(_ERROR_CODE, b"\0\0\0\0")
    _, hundreds, rest = struct.unpack_from("!HBB", value)
    return 100 * int(hundreds) + int(rest)


async def _by_datagram(channel: socket.socket, request: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    for seconds in WAITS_SECONDS:
        await loop.sock_sendall(channel, request)
        with contextlib.suppress(TimeoutError):  # a datagram may be lost
            async with asyncio.timeout(seconds):
                return _checked(await loop.sock_recv(channel, _LARGEST), request)
    raise TimeoutError


async def _by_stream(channel: socket.socket, request: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(channel, request)
    answer = b""
    while len(answer) < 20 or len(answer) < 20 + struct.unpack_from("!H", answer, 2)[0]:
        more = await loop.sock_recv(channel, _LARGEST)
        if not more or len(answer) > _LARGEST:
            raise ValueError("the connection was closed")
        answer += more
    return _checked(answer, request)


def _checked(answer: bytes, request: bytes) -> bytes:
    """An answer to this request: a response with its cookie and its number (RFC 8489 section 5)."""
    if len(answer) < 20 or answer[4:20] != request[4:20] or answer[0] & 0xC1 != 1:
        raise ValueError("no answer of STUN")
    return answer
