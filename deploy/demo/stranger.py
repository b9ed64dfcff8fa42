"""Somebody on the network who speaks SIP over UDP and says whatever a test wants him to say.

Rule: it does nothing by itself, not even an ACK, and checks nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from deploy.demo.account import Account


@dataclass(frozen=True)
class Reply:
    """An answer to a request: its status code and the whole text."""

    code: int
    text: str

    def header(self, name: str) -> str:
        """The first header of that name, "" when there is none."""
        found = re.search(rf"^{re.escape(name)}\s*:\s*(.*?)\r?$", self.text, re.MULTILINE | re.IGNORECASE)
        return found[1] if found else ""


class Stranger:
    """A UDP socket that sends requests to one place.

    Args:
        target: `address:port` to send to.
        source: IPv4 address to send from; every 127.x.y.z will do on loopback.
        port: to send from; 0 is any.

    Attributes:
        target: `address:port` that it sends to.
        address: `address:port` that it has.
        tag: in the To of its answers.
    """

    def __init__(self, target: str, source: str = "127.0.0.1", port: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((source, port))
        self.target = target
        address, target_port = target.rsplit(":", 1)
        self._socket.connect((address, int(target_port)))
        self.address = "{}:{}".format(*self._socket.getsockname())
        self.tag = secrets.token_hex(4)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, method: str, uri: str, headers: Mapping[str, str] | None = None, body: str = "") -> str:
        """Send one request and return its Call-ID.

        Headers given replace those made up here; one that is "" is left out.
        """
        token = secrets.token_hex(8)
        lines = {
            "Via": f"SIP/2.0/UDP {self.address};branch=z9hG4bK{token};rport",
            "From": f"<sip:stranger@{self.address}>;tag={token}",
            "To": f"<{uri}>",
            "Call-ID": token,
            "CSeq": f"1 {method}",
            "Contact": f"<sip:stranger@{self.address}>",
            "Max-Forwards": "70",
            **(headers or {}),
            "Content-Length": str(len(body.encode())),
        }
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        self._socket.send(f"{method} {uri} SIP/2.0\r\n{text}\r\n{body}".encode())
        return lines["Call-ID"]

    def receive(self, timeout: float = 2.0) -> str:
        """Block for the next message, request or answer.

        Raises:
            TimeoutError: none came.
            ConnectionRefusedError: nobody listens there.
        """
        self._socket.settimeout(timeout)
        return self._socket.recv(65_535).decode("utf-8", "replace")

    def reply(
        self, request: str, code: int, headers: Mapping[str, str] | None = None, body: str = ""
    ) -> None:
        """Answer a request that came in; headers given replace those made up here."""
        same = "Via|Record-Route|From|To|Call-ID|CSeq"
        lines = re.findall(rf"^(?:{same})\s*:.*?(?=\r?$)", request, re.MULTILINE | re.IGNORECASE)
        tag = f";tag={self.tag}" if code > 100 else ""
        lines = [line + tag if line.startswith("To") and ";tag=" not in line else line for line in lines]
        own = {
            "Contact": f"<sip:stranger@{self.address}>",
            **(headers or {}),
            "Content-Length": str(len(body.encode())),
        }
        text = "".join(f"{line}\r\n" for line in [*lines, *(f"{name}: {own[name]}" for name in own)])
        self._socket.send(f"SIP/2.0 {code} As Wanted\r\n{text}\r\n{body}".encode())

    def ask(
        self,
        method: str,
        uri: str,
        headers: Mapping[str, str] | None = None,
        body: str = "",
        timeout: float = 2.0,
    ) -> Reply:
        """Send one request and block for its final answer.

        Raises:
            TimeoutError: no final answer within `timeout` seconds.
            ConnectionRefusedError: nobody listens there.
        """
        call = self.send(method, uri, headers, body)
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            text = self.receive(left)
            status = re.match(r"SIP/2\.0 ([2-6]\d\d) ", text)
            reply = Reply(int(status[1]) if status else 0, text)
            if status and reply.header("Call-ID") == call:
                return reply
        raise TimeoutError(f"no final answer to {method} {uri}")


def proof(challenge: Reply, account: Account, method: str, uri: str) -> dict[str, str]:
    """The header that answers a 401 or 407 with the password (RFC 7616 with qop=auth)."""
    proxy = challenge.code == 407
    asked = challenge.header("Proxy-Authenticate" if proxy else "WWW-Authenticate")
    field = dict(re.findall(r'(\w+)="?([^",]+)"?', asked))
    algorithm = field.get("algorithm", "MD5")
    once = secrets.token_hex(8)

    def digest(text: str) -> str:
        return hashlib.new({"MD5": "md5", "SHA-256": "sha256"}[algorithm], text.encode()).hexdigest()

    secret = digest(f"{account.user}:{field['realm']}:{account.password}")
    response = digest(f"{secret}:{field['nonce']}:00000001:{once}:auth:{digest(f'{method}:{uri}')}")
    value = (
        f'Digest username="{account.user}", realm="{field["realm"]}", nonce="{field["nonce"]}", uri="{uri}", '
        f'response="{response}", algorithm={algorithm}, qop=auth, nc=00000001, cnonce="{once}"'
    )
    return {"Proxy-Authorization" if proxy else "Authorization": value}
