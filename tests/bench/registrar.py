"""A SIP server that answers everything at once: 200 to a REGISTER, 486 to an INVITE.

It keeps the time at which the kernel took each new INVITE off the wire.
"""

import queue
import re
import socket
import struct
import threading
from types import TracebackType
from typing import Self

from deploy.demo.account import Account

_SO_TIMESTAMPNS = 35  # socket(7); Python has no name for it
_ANSWERS = {"REGISTER": "200 OK", "INVITE": "486 Busy Here"}
_COPIED = ("via", "from", "call-id", "cseq", "contact", "expires")


class Registrar:
    """On a port of its own, on loopback."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.bind(("127.0.0.1", 0))
        self._address = self._socket.getsockname()
        self._invites: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._seen: set[str] = set()
        self._thread = threading.Thread(target=self._serve, name="registrar", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.sendto(b"", self._address)
        self._thread.join()
        self._socket.close()

    def account(self, user: str) -> Account:
        return Account(user, "secret", "site.example", "{}:{}".format(*self._address))

    def wait_invite(self, timeout: float = 5.0) -> int:
        """Block for the next call and return when its INVITE arrived, in ns of CLOCK_REALTIME.

        Raises:
            queue.Empty: none came within the time.
        """
        return self._invites.get(timeout=timeout)

    def _serve(self) -> None:
        while True:
            data, notes, _, sender = self._socket.recvmsg(65_535, 64)
            if not data:
                return
            head, _, _ = data.decode().partition("\r\n\r\n")
            method, *_ = head.partition(" ")
            if method in _ANSWERS:
                self._socket.sendto(_answer(head, _ANSWERS[method]), sender)
            call = re.search(r"^Call-ID:\s*(\S+)", head, re.MULTILINE | re.IGNORECASE)
            if method == "INVITE" and call is not None and call[1] not in self._seen:
                self._seen.add(call[1])
                seconds, nanoseconds = struct.unpack("qq", notes[0][2])
                self._invites.put(seconds * 1_000_000_000 + nanoseconds)


def _answer(head: str, status: str) -> bytes:
    lines = [f"SIP/2.0 {status}"]
    for line in head.split("\r\n")[1:]:
        name = line.partition(":")[0].strip().lower()
        if name in _COPIED:
            lines.append(line)
        elif name == "to":
            lines.append(line if ";tag=" in line else f"{line};tag=bench")
    return "\r\n".join([*lines, "Content-Length: 0", "", ""]).encode()
