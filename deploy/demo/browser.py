"""A telephone in a browser: SIP over WebSocket (RFC 7118), on one connection and with one call.

Rule: it has no address of its own, so whatever reaches it has come over its connection. It is driven step by
step and does nothing in between but answer the server's pings. Its sound goes nowhere.
"""

from __future__ import annotations

import re
import secrets
import ssl
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from deploy.demo.account import Account
from deploy.demo.stranger import Reply, proof

_SDP = """\
v=0\r
o=browser 1 1 IN IP4 127.0.0.1\r
s=-\r
c=IN IP4 127.0.0.1\r
t=0 0\r
m=audio 9 RTP/AVP 8\r
a=rtpmap:8 PCMA/8000\r
"""


class Browser:
    """One page with one account.

    Args:
        account: who it is; its transport is "ws" or "wss".
        trusts: PEM file of the authority that the server's certificate must come from; for wss.
        path: of the server's WebSocket.

    Raises:
        websockets.exceptions.InvalidStatus: from `start()`, when the server does not take it.
        ssl.SSLCertVerificationError: from `start()`, when the server's certificate is not the right one.
    """

    def __init__(self, account: Account, *, trusts: Path | None = None, path: str = "/ws") -> None:
        self.account = account
        self._trusts = trusts
        self._path = path
        self._host = f"{secrets.token_hex(6)}.invalid"
        self._registration = secrets.token_hex(8)
        self._sequence = 0
        self._parts = ExitStack()
        self._connection: ClientConnection | None = None
        self._call: dict[str, str] = {}
        self._route: list[str] = []
        self._invite = Reply(0, "")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def contact(self) -> str:
        """The URI it registers, which no name server knows."""
        return f"sip:{self.account.user}@{self._host};transport=ws"

    def start(self) -> None:
        """Open the connection; blocks until the server has taken it."""
        secure = self.account.transport == "wss"
        context = ssl.create_default_context(cafile=self._trusts) if secure else None
        address = f"{self.account.transport}://{self.account.proxy}{self._path}"
        protocols = [Subprotocol("sip")]
        self._connection = self._parts.enter_context(
            connect(address, ssl=context, subprotocols=protocols, compression=None, proxy=None)
        )

    def stop(self) -> None:
        """Close the connection, as a page that is left. Harmless when there is none."""
        self._parts.close()
        self._connection = None

    def register(self, expires: int = 60) -> Reply:
        """REGISTER with the password, for so many seconds; blocks for the answer."""
        me = f"<{self.account.uri}>"
        uri = f"sip:{self.account.realm}"
        headers = {"From": f"{me};tag=1", "To": me, "Call-ID": self._registration, "Expires": str(expires)}
        headers["Contact"] = f"<{self.contact}>"
        return self._ask_with_password("REGISTER", uri, headers)

    def dial(self, uri: str) -> Reply:
        """Call somebody and wait for his answer; sends the ACK."""
        headers = {
            "From": f"<{self.account.uri}>;tag={secrets.token_hex(4)}",
            "To": f"<{uri}>",
            "Call-ID": secrets.token_hex(8),
            "Contact": f"<{self.contact}>",
            "Content-Type": "application/sdp",
        }
        reply = self._ask_with_password("INVITE", uri, headers, _SDP)
        if reply.code == 200:
            self._begin(reply, mine=headers["From"], theirs=reply.header("To"))
            self._route.reverse()
            self._send_in_call("ACK", str(self._sequence))
        return reply

    def wait_ringing(self, timeout: float = 10.0) -> Reply:
        """Block for a call and say that it rings; the INVITE, with code 0.

        Raises:
            TimeoutError: none came.
        """
        invite = self._wait_request("INVITE", timeout)
        self._begin(
            invite, mine=f"{invite.header('To')};tag={secrets.token_hex(4)}", theirs=invite.header("From")
        )
        self._answer(invite, "180 Ringing")
        self._invite = invite
        return invite

    def answer(self, timeout: float = 10.0) -> None:
        """Lift the receiver; blocks until the caller has heard of it.

        Raises:
            TimeoutError: no ACK came.
        """
        self._answer(self._invite, "200 OK", {"Content-Type": "application/sdp"}, _SDP)
        self._wait_request("ACK", timeout)

    def hang_up(self, timeout: float = 10.0) -> Reply:
        """End the call; blocks for the other side's answer."""
        self._sequence += 1
        self._send_in_call("BYE", str(self._sequence))
        return self._wait_reply("BYE", timeout)

    def wait_closed(self, timeout: float = 10.0) -> None:
        """Block until the other side hangs up.

        Raises:
            TimeoutError: it did not.
        """
        self._answer(self._wait_request("BYE", timeout), "200 OK")

    def wait_cancelled(self, timeout: float = 10.0) -> None:
        """Block until the caller gives up, or somebody else has answered.

        Raises:
            TimeoutError: nobody did.
        """
        self._answer(self._wait_request("CANCEL", timeout), "200 OK")
        self._answer(self._invite, "487 Request Terminated")
        self._wait_request("ACK", timeout)

    def _begin(self, message: Reply, *, mine: str, theirs: str) -> None:
        """Keep what requests within the dialog need; the route as the called side needs it."""
        found = re.search(r"<([^>]*)>", message.header("Contact"))
        assert found, message.text
        self._call = {"From": mine, "To": theirs, "Call-ID": message.header("Call-ID"), "uri": found[1]}
        routes = re.findall(r"^Record-Route\s*:\s*(.*?)\r?$", message.text, re.MULTILINE | re.IGNORECASE)
        self._route = [hop.strip() for route in routes for hop in route.split(",")]

    def _ask_with_password(self, method: str, uri: str, headers: Mapping[str, str], body: str = "") -> Reply:
        self._sequence += 1
        self._send(method, uri, {"CSeq": f"{self._sequence} {method}", **headers}, body)
        challenge = self._wait_reply(method)
        if challenge.code not in (401, 407):
            return challenge
        if method == "INVITE":
            refused = {**headers, "To": challenge.header("To"), "CSeq": f"{self._sequence} ACK"}
            self._send("ACK", uri, {**refused, "Via": challenge.header("Via")})
        self._sequence += 1
        answer = proof(challenge, self.account, method, uri)
        self._send(method, uri, {"CSeq": f"{self._sequence} {method}", **headers, **answer}, body)
        return self._wait_reply(method)

    def _send_in_call(self, method: str, sequence: str) -> None:
        call = {name: self._call[name] for name in ("From", "To", "Call-ID")}
        routes = {"Route": ", ".join(self._route)} if self._route else {}
        self._send(method, self._call["uri"], {**call, **routes, "CSeq": f"{sequence} {method}"})

    def _send(self, method: str, uri: str, headers: Mapping[str, str], body: str = "") -> None:
        branch = f"z9hG4bK{secrets.token_hex(8)}"
        lines = {
            "Via": f"SIP/2.0/{self.account.transport.upper()} {self._host};branch={branch}",
            "Max-Forwards": "70",
            **headers,
        }
        self._write(f"{method} {uri} SIP/2.0", lines, body)

    def _answer(
        self, request: Reply, status: str, headers: Mapping[str, str] | None = None, body: str = ""
    ) -> None:
        copied = "\r\n".join(
            line
            for line in request.text.split("\r\n")
            if re.match(r"(Via|Record-Route)\s*:", line, re.IGNORECASE)
        )
        to = request.header("To")
        lines = {
            "From": request.header("From"),
            "To": to if "tag=" in to or not self._call else self._call["From"],
            "Call-ID": request.header("Call-ID"),
            "CSeq": request.header("CSeq"),
            "Contact": f"<{self.contact}>",
            **(headers or {}),
        }
        self._write(f"SIP/2.0 {status}\r\n{copied}", lines, body)

    def _write(self, first: str, headers: Mapping[str, str], body: str) -> None:
        assert self._connection is not None, "the page is not open"
        lines = {**headers, "Content-Length": str(len(body))}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._connection.send(f"{first}\r\n{text}\r\n{body}")

    def _wait_reply(self, method: str, timeout: float = 10.0) -> Reply:
        """The next final answer to a request of this kind; anything else is lost."""
        deadline = time.monotonic() + timeout
        while True:
            message = self._receive(deadline)
            if message.code >= 200 and message.header("CSeq").endswith(method):
                return message

    def _wait_request(self, method: str, timeout: float) -> Reply:
        deadline = time.monotonic() + timeout
        while True:
            message = self._receive(deadline)
            if message.text.startswith(f"{method} "):
                return message
            if message.text.startswith("OPTIONS "):
                self._answer(message, "200 OK")

    def _receive(self, deadline: float) -> Reply:
        assert self._connection is not None, "the page is not open"
        data = self._connection.recv(max(deadline - time.monotonic(), 0.001))
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        status = re.match(r"SIP/2\.0 (\d\d\d) ", text)
        return Reply(int(status[1]) if status else 0, text)
