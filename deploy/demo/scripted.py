"""A registrar that says what it is told to say, whatever a registrar should say, and keeps what it hears.

Rule: nothing is retransmitted, checked or remembered; a script decides about every request by itself.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from deploy.demo.account import Account
from deploy.demo.program import wait_until

_COPIED = ("via", "from", "call-id", "cseq", "record-route")


@dataclass(frozen=True)
class Request:
    """A request as it came, with the time (monotonic seconds) and the TOS byte of its packet."""

    at: float
    method: str
    text: str
    tos: int

    def header(self, name: str) -> str:
        """The first header of that name, "" when there is none."""
        found = re.search(rf"^{re.escape(name)}\s*:\s*(.*?)\r?$", self.text, re.MULTILINE | re.IGNORECASE)
        return found[1] if found else ""


@dataclass(frozen=True)
class Say:
    """An answer: its status with the reason, further headers, a body, and by how much it is late."""

    status: str
    headers: Mapping[str, str] | None = None
    body: str = ""
    late_seconds: float = 0.0
    times: int = 1


def granted(seconds: object = 300) -> Callable[[Request], Say]:
    """A 200 that grants the Contact of a REGISTER so many seconds."""
    return lambda request: Say(
        "200 OK", {"Contact": f"{request.header('Contact').partition(';expires')[0]};expires={seconds}"}
    )


Script = Callable[[Request], Say | None]


class ScriptedRegistrar:
    """A UDP socket that answers each request as its script says; None is silence.

    Args:
        script: for REGISTER; OPTIONS gets 200 unless `deaf`, everything else goes to `calls`.
        address: IPv4 or IPv6 address to listen on.
        port: a free one when 0.
    """

    def __init__(self, script: Script, address: str = "127.0.0.1", port: int = 0) -> None:
        self.script = script
        self.calls: Script = lambda request: Say("486 Busy Here")
        self.deaf = False
        self.other: Callable[[bytes], object] = lambda data: None
        self.heard: list[Request] = []
        self.keep_alives = 0
        self._answered = threading.Event()
        six = ":" in address
        self._socket = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        if six:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        else:
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        self._socket.bind((address, port))
        self.port = int(self._socket.getsockname()[1])
        self.place = f"[{address}]:{self.port}" if six else f"{address}:{self.port}"
        self._timers: list[threading.Timer] = []
        self._thread = threading.Thread(target=self._serve, name="scripted registrar", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close its port. Harmless when it is closed."""
        if self._socket.fileno() == -1:
            return
        for timer in self._timers:
            timer.cancel()
        for timer in self._timers:
            timer.join()
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def account(self, user: str = "door") -> Account:
        """An account here; no password is asked for."""
        return Account(user, "secret", "site.example", self.place)

    @property
    def registers(self) -> list[Request]:
        """Every REGISTER so far; those that were sent again as they were count once."""
        seen: dict[str, Request] = {}
        for request in list(self.heard):
            if request.method == "REGISTER":
                seen.setdefault(request.header("Via"), request)
        return list(seen.values())

    def ask(self, timeout: float) -> float | None:
        """Send OPTIONS to where the last REGISTER came from; seconds to the answer, None if there is none."""
        contact = re.search(r"<(sip:[^>]*@([^;>]*))", self.registers[-1].header("Contact"))
        assert contact is not None, "it names no Contact"
        host, _, port = contact[2].rpartition(":")
        number = len(self.heard) + time.monotonic_ns()
        request = (
            f"OPTIONS {contact[1]} SIP/2.0\r\nVia: SIP/2.0/UDP {self.place};branch=z9hG4bK{number}\r\n"
            f"From: <sip:{self.place}>;tag={number}\r\nTo: <{contact[1]}>\r\nCall-ID: {number}\r\n"
            "CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        )
        self._answered.clear()
        begin = time.monotonic()
        with suppress(OSError):  # no network: nobody answers
            self._socket.sendto(request.encode(), (host.strip("[]"), int(port)))
        return time.monotonic() - begin if self._answered.wait(timeout) else None

    def wait_registers(self, count: int, timeout: float) -> list[Request]:
        """Block until there were so many REGISTERs, or for `timeout` seconds; those that there were."""
        wait_until(lambda: len(self.registers) >= count, timeout)
        return self.registers

    def _serve(self) -> None:
        while True:
            data, notes, _, sender = self._socket.recvmsg(65_535, 256)
            if not data:
                return
            if data[0] & 0xC0 == 0x80:  # RTP, if it was offered this port for sound
                self.other(data)
                continue
            text = data.decode("utf-8", "replace")
            method = text.partition(" ")[0]
            if text.startswith("SIP/2.0 "):
                self._answered.set()
            if not text.strip():
                self.keep_alives += 1
            if not method.isalpha() or method == "ACK":
                continue
            tos = next((note[2][0] for note in notes), 0)
            request = Request(time.monotonic(), method, text, tos)
            self.heard.append(request)
            say = self._decide(request)
            if say is not None:
                self._say(say, request, sender)

    def _decide(self, request: Request) -> Say | None:
        if request.method == "REGISTER":
            return self.script(request)
        if request.method == "OPTIONS":
            return None if self.deaf else Say("200 OK")
        return Say("200 OK") if request.method in {"BYE", "CANCEL"} else self.calls(request)

    def _say(self, say: Say, request: Request, sender: tuple[str, int]) -> None:
        answer = _answer(say, request)
        for number in range(say.times):
            if say.late_seconds or number:
                timer = threading.Timer(say.late_seconds + number * 0.2, self._send, [answer, sender])
                self._timers.append(timer)
                timer.start()
            else:
                self._send(answer, sender)

    def _send(self, answer: bytes, sender: tuple[str, int]) -> None:
        self._socket.sendto(answer, sender)


def _answer(say: Say, request: Request) -> bytes:
    lines = [f"SIP/2.0 {say.status}"]
    for line in request.text.partition("\r\n\r\n")[0].split("\r\n")[1:]:
        name = line.partition(":")[0].strip().lower()
        if name in {header.lower() for header in say.headers or {}}:
            continue  # told otherwise
        if name in _COPIED:
            lines.append(line)
        elif name == "to":
            lines.append(line if ";tag=" in line else f"{line};tag=scripted")
    lines += [f"{name}: {value}" for name, value in (say.headers or {}).items()]
    return "\r\n".join([*lines, f"Content-Length: {len(say.body.encode())}", "", say.body]).encode()
