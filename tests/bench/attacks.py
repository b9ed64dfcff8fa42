"""What strangers try, at the station and at a bare script with plain pjsua2: how much of it each lets in.

Rule: an attack is one function for both. What the script lets in shows that the attack can succeed.
"""

import functools
import math
import random
import re
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from deploy.demo.counterpart import Counterpart, Dialog, Stream, sdp
from deploy.demo.phone import Phone
from deploy.demo.program import Program, ProgramError, free_port, wait_until
from deploy.demo.site import Site
from deploy.demo.station import Station, settings
from intercom.control.client import Denied
from tests.bench import plain, proc
from tests.bench.callers import Ordered
from tests.bench.rows import Row

FOREIGN = "127.0.0.9"
FRIEND = "sip:flat1@site.example"
CODE = "5#"
BURSTS = (1, 12, 50, 200)
PRESSES, PRESSES_OF_SCRIPT = 10_000, 500
WINDOW = 8
QUIET_SECONDS = 0.4
SETTINGS = f"""
[timing]
repeat_seconds = 0

[incoming]
permit = ["{FRIEND}"]
answer = "automatic"
"""
RELAY = {"Content-Type": "application/dtmf-relay"}
DIGIT = {"Content-Type": "application/dtmf"}
Counts = dict[str, float]
GONE = (TimeoutError, ConnectionRefusedError, ProgramError)


class Victim(Protocol):
    """A program that is attacked, with the server and peer that it believes in."""

    server: Counterpart
    port: int

    @property
    def program(self) -> Program: ...
    def call(self) -> None: ...
    def hang_up(self) -> None: ...
    def digits(self) -> int:
        """How many digits it took."""

    def opened(self) -> int:
        """How often a door was opened, or would have been by whoever believes each digit."""

    def rung(self) -> int:
        """How often it was called."""

    def established(self) -> int:
        """How many calls were established."""

    def ended(self) -> int:
        """How many calls ended."""


class Ours:
    """The station."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.server = Counterpart(self.port)
        text = settings(
            self.server.account(),
            [(FRIEND, 60)],
            codes=[CODE],
            release_seconds=0.2,
            more=f"[sip]\nport = {self.port}\n{SETTINGS}",
        )
        self._station = Station(folder, self.server.account().password, text)

    def __enter__(self) -> Self:
        self._station.start()
        self.server.wait("REGISTER")
        self._station.wait_registered()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._station.stop()
        self.server.close()

    @property
    def program(self) -> Program:
        return self._station.program

    def call(self) -> None:
        wait_until(lambda: self._station.status()["state"] == "idle", 10.0)
        self._station.press()

    def hang_up(self) -> None:
        with suppress(Denied):
            self._station.ask("POST", "/hangup", {})

    def digits(self) -> int:
        return self._count(r": a digit by ")

    def opened(self) -> int:
        return int(self._station.status()["counters"]["releases"])

    def rung(self) -> int:
        return self._count(r"CallOffered\(")

    def established(self) -> int:
        return self._count(r"CallAnswered\(")

    def ended(self) -> int:
        return self._count(r"CallEnded\(")

    def _count(self, pattern: str) -> int:
        return len(re.findall(pattern, self.program.log.read_text()))


class Script(Ordered):
    """The bare script, with pjsua2 as its authors ship it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.server = Counterpart(self.port)
        account = self.server.account()
        orders = folder.resolve() / "orders"
        who = [account.uri, account.proxy, account.user, account.password, FRIEND]
        command = [str(Path(__file__).parent / "naive.py"), str(orders), str(self.port), *who]
        super().__init__(folder.resolve(), command, orders, {"PYTHONPATH": str(plain.folder())})

    def __enter__(self) -> Self:
        self.server.wait("REGISTER", 10.0)
        self.program.wait_for("^registered", 10.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.server.close()

    def call(self) -> None:
        self.order("call")

    def hang_up(self) -> None:
        self.order("hangup")

    def digits(self) -> int:
        return self._count("digit")

    def opened(self) -> int:
        """It knows no code: each `#` opens."""
        return self._count("digit #")

    def rung(self) -> int:
        return self._count("incoming") + self._count("replaced")

    def established(self) -> int:
        return self._count("established")

    def ended(self) -> int:
        return self._count("ended")

    def _count(self, said: str) -> int:
        return len(re.findall(f"^{said}", self.program.log.read_text(), re.MULTILINE))


def settled(count: Callable[[], int]) -> int:
    """A count, once it has stood still for a moment."""
    last, since = count(), time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS:
        threading.Event().wait(0.05)
        if (now := count()) != last:
            last, since = now, time.monotonic()
    return last


def waiting(sound: socket.socket) -> int:
    """How many packets lie in a socket."""
    sound.setblocking(False)
    packets = 0
    with suppress(BlockingIOError):
        while True:
            sound.recv(2048)
            packets += 1
    return packets


# RTP and RTCP put into a call (row 2)


def injection(victim: Victim) -> Counts:
    server = victim.server
    victim.call()
    dialog = server.take()
    with Counterpart(victim.port, FOREIGN) as stranger:
        lines = len(victim.program.log.read_text().splitlines())
        voice = Stream()
        for _ in ("before the peer's first packet", "after it"):
            for size in BURSTS:
                stream = Stream(event=dialog.event)
                presses = [stream.press(digit, held=1, ends=2) for digit in "1234567890" * 7]
                stranger.play(dialog, [packet for press in presses for packet in press][:size])
            server.play(dialog, [voice.voice() for _ in range(20)])
        control = (dialog.sound[0], dialog.sound[1] + 1)
        for source in (voice.ssrc, secrets.randbits(32)):
            stranger.sound.sendto(struct.pack("!BBHI", 0x81, 203, 1, source), control)
        digits = settled(victim.digits)
        return {
            "digits put into a call by RTP": digits,
            "packets of the door's sound diverted": waiting(stranger.sound),
            "calls ended by a forged RTCP BYE": victim.ended(),
            "lines of log for it": len(victim.program.log.read_text().splitlines()) - lines,
            "calls that lost their own sound": waiting(server.sound) == 0,
        }


# Strangers who call (row 3)


def strangers(victim: Victim) -> Counts:
    server, uri = victim.server, f"sip:door@127.0.0.1:{victim.port}"
    taken = heard = accepted = 0

    def calls(stranger: Counterpart, headers: dict[str, str], caller: str = "stranger") -> None:
        nonlocal taken, heard
        with suppress(TimeoutError):
            taken += isinstance(stranger.call(headers=headers, caller=caller, timeout=0.5), Dialog)
        threading.Event().wait(0.1)
        heard += waiting(stranger.sound)

    with Counterpart(victim.port, FOREIGN) as stranger:
        calls(stranger, {})
        calls(stranger, {}, "flat1")
        victim.hang_up()
        calls(stranger, {"Call-Info": "<sip:x>;answer-after=0"})
        calls(stranger, {"Alert-Info": "info=alert-autoanswer", "P-Early-Media": "sendrecv"})
        victim.hang_up()
        for method, headers, body in (
            ("INFO", RELAY, "Signal=5\r\nDuration=160\r\n"),
            ("INFO", DIGIT, "#"),
            ("REFER", {"Refer-To": "<sip:stranger@192.0.2.1>"}, ""),
            ("MESSAGE", {"Content-Type": "text/plain"}, CODE),
            ("NOTIFY", {"Event": "check-sync"}, ""),
            ("SUBSCRIBE", {"Event": "presence", "Expires": "60"}, ""),
            ("OPTIONS", {}, ""),
        ):
            with suppress(TimeoutError):
                accepted += 200 <= stranger.ask(method, uri, headers, body, timeout=0.3).code < 300
        victim.call()
        dialog = server.take()
        to = re.sub(r".*tag=", "", dialog.remote)
        tag = re.sub(r".*tag=", "", dialog.local)
        calls(stranger, {"Replaces": f"{dialog.call_id};to-tag={to};from-tag={tag}"})
        lost = "replaced" in victim.program.log.read_text()
    return {
        "calls of strangers that rang": victim.rung(),
        "calls of strangers that were answered": taken,
        "packets of the door's sound sent to them": heard,
        "requests of strangers accepted": accepted,
        "calls taken over by Replaces": lost,
    }


def passwords(victim: Victim) -> Counts:
    """Who is in the call asks for the password when he is hung up on; so does one who forges answers."""
    server = victim.server
    challenge = {"Proxy-Authenticate": 'Digest realm="*", nonce="1", qop="auth", algorithm=MD5'}
    leaked = 0
    with Counterpart(victim.port, FOREIGN) as peer:
        victim.call()
        server.take(peer=peer)
        victim.hang_up()
        peer.reply(peer.wait("BYE "), 407, challenge)
        with suppress(*GONE):
            leaked += "Proxy-Authorization" in peer.wait("BYE ", 2.0)
    with Counterpart(victim.port, FOREIGN) as stranger:
        victim.call()
        invite = server.wait("INVITE ", 20.0)
        stranger.reply(invite, 407, challenge)
        with suppress(*GONE):
            again = server.wait("INVITE ", 1.5)
            leaked += "Proxy-Authorization" in again
    return {"digests of the password given away": leaked}


# Digits (row 4)


def many(victim: Victim, presses: int, seed: int, *, loss: float = 0.0, disorder: bool = False) -> float:
    """Press so many keys in one call; the difference to the digits that were taken."""
    server, chance = victim.server, random.Random(seed)
    victim.call()
    dialog = server.take()
    stream = Stream(event=dialog.event)
    digit, lost = "1", 0
    server.play(dialog, [stream.voice() for _ in range(10)])
    for number in range(presses):
        if chance.random() > 0.3:
            digit = chance.choice("0123456789")
        packets = [packet for packet in stream.press(digit) if chance.random() >= loss]
        if disorder:
            packets += [packet for packet in packets if chance.random() < 0.2]
            packets = [packets[i] for i in sorted(range(len(packets)), key=lambda i: i + 3 * chance.random())]
        server.play(dialog, packets)
        # As fast as they are read: the network's buffer holds the packets of a few presses only.
        if number % WINDOW == 0 and not wait_until(functools.partial(_caught_up, victim, number - lost), 1.0):
            lost = number - victim.digits()
    taken = settled(victim.digits)
    server.within(dialog, "BYE")
    return taken - presses


def _caught_up(victim: Victim, presses: int) -> bool:
    return victim.digits() >= presses


def odd_digits(victim: Victim) -> Counts:
    """Twice the same digit, in each way that networks and telephones spoil it."""
    server = victim.server
    victim.call()
    dialog = server.take()
    stream = Stream(event=dialog.event)
    server.play(dialog, [stream.voice() for _ in range(10)])
    wrong: Counts = {}

    def twice(name: str, *presses: list[bytes]) -> None:
        before = victim.digits()
        server.play(dialog, [packet for press in presses for packet in press])
        wrong[f"digits miscounted: {name}"] = abs(settled(victim.digits) - before - len(presses))

    def info(headers: dict[str, str], body: str) -> None:
        server.ask("INFO", dialog.target, {**dialog.headers("INFO"), **headers}, body, timeout=0.5)

    twice("the same twice", stream.press("1"), stream.press("1"))
    twice("the second's start lost", stream.press("2"), stream.press("2")[8:])
    twice("the first's end lost", stream.press("3")[:8], stream.press("3"))
    twice("only ends arrive", stream.press("4")[8:], stream.press("4")[8:])
    twice("no end, no duration (FRITZ!Box)", stream.press("5", odd=True), stream.press("5", odd=True))
    duplicated = [packet for packet in stream.press("6") for _ in range(3)]
    twice("each packet three times", duplicated, [packet for packet in stream.press("6") for _ in range(3)])
    mixed = [stream.press("7"), stream.press("7")]
    twice("out of order", mixed[0][::-1], mixed[1][::-1])
    threading.Event().wait(5.5)  # another way counts after a silence
    before = victim.digits()
    with suppress(TimeoutError):
        for headers, body in ((RELAY, "Signal=8\r\nDuration=160\r\n"), (DIGIT, "8"), (DIGIT, "8\r\n")):
            info(headers, body)
    wrong["digits miscounted: SIP INFO, both kinds"] = abs(settled(victim.digits) - before - 3)
    before = victim.digits()
    with suppress(TimeoutError):
        for _ in range(3):
            info(RELAY, "Signal=9\r\nDuration=160\r\n")
            server.play(dialog, stream.press("9"))
    wrong["digits miscounted: each by RTP and INFO"] = abs(settled(victim.digits) - before - 3)
    before, number = victim.digits(), dialog.cseq + 1
    with suppress(TimeoutError):
        for _ in range(20):
            headers = dialog.headers("INFO", number) | RELAY
            server.ask("INFO", dialog.target, headers, "Signal=9\r\nDuration=160\r\n", timeout=0.5)
    wrong["digits miscounted: an INFO replayed 20 times"] = abs(settled(victim.digits) - before - 1)
    return wrong


def tone(first: float, second: float) -> list[bytes]:
    """A key's tones as A-law sound, a fifth of a second."""
    made = bytearray()
    for step in range(1600):
        level = sum(math.sin(2 * math.pi * hertz * step / 8000) for hertz in (first, second)) / 2.2
        made.append(_a_law(int(level * 32000)))
    return [bytes(made[begin : begin + 160]) for begin in range(0, 1600, 160)]


def _a_law(sample: int) -> int:
    """G.711, one sample of 16 bits."""
    sign, size = (0x80, sample) if sample >= 0 else (0, -sample - 1)
    exponent = max(0, min(7, size.bit_length() - 8))
    part = (size >> 4 if exponent == 0 else size >> (exponent + 3)) & 0x0F
    return (sign | exponent << 4 | part) ^ 0x55


def wrong_paths(victim: Victim) -> Counts:
    """The right code, on every way but the right one."""
    server = victim.server
    victim.call()
    invite = server.wait("INVITE ", 10.0)
    early = server.dialog_of(invite)
    stream = Stream(event=early.event)
    code = [packet for digit in CODE for packet in stream.press(digit)]
    server.play(early, code)
    server.reply(invite, 183, {"Content-Type": "application/sdp"}, server.answer(invite))
    code = [packet for digit in CODE for packet in stream.press(digit)]
    server.play(early, code)
    for digit in CODE:
        with suppress(TimeoutError):
            body = f"Signal={digit}\r\nDuration=160\r\n"
            server.ask("INFO", early.target, {**early.headers("INFO"), **RELAY}, body, timeout=0.5)
    opened = {"before the answer": settled(victim.opened)}
    server.reply(invite, 200, {"Content-Type": "application/sdp"}, server.answer(invite))
    server.wait("ACK ")

    for keys in ((770, 1336), (941, 1477)):
        server.play(early, [stream.packet(part) for part in tone(*keys)])
    opened["as sound"] = settled(victim.opened) - sum(opened.values())
    hold = server.answer(invite).replace("a=sendrecv", "a=inactive")
    server.within(early, "INVITE", hold, Content_Type="application/sdp")
    server.send("ACK", early.target, early.headers("ACK"))
    server.play(early, [packet for digit in CODE for packet in stream.press(digit)])
    opened["on hold, by RTP"] = settled(victim.opened) - sum(opened.values())
    server.within(early, "INVITE", server.answer(invite), Content_Type="application/sdp")
    server.send("ACK", early.target, early.headers("ACK"))
    server.play(early, [packet for digit in CODE for packet in stream.press(digit)])
    right = settled(victim.opened) - sum(opened.values())
    server.within(early, "BYE")
    server.play(early, [packet for digit in CODE for packet in stream.press(digit)])
    opened["after hanging up"] = settled(victim.opened) - sum(opened.values()) - right
    return {
        **{f"doors opened {way}": count for way, count in opened.items()},
        "doors not opened by the code in the call": 1 - right,
    }


# What was read on the wire, said again by somebody else (row 24)


def forged_answers(victim: Victim) -> Counts:
    """Answers to a call that rings, with everything in them that was in the call, but from elsewhere."""
    server = victim.server
    with Counterpart(victim.port, FOREIGN) as stranger:
        victim.call()
        invite = server.wait("INVITE ", 10.0)
        for code in (183, 200, 486, 603):
            session = {"Content-Type": "application/sdp"} if code < 300 else None
            stranger.reply(invite, code, session, stranger.answer(invite) if session else "")
        believed = settled(victim.established) + victim.ended()
        with suppress(*GONE):
            server.reply(invite, 200, {"Content-Type": "application/sdp"}, server.answer(invite))
            server.wait("ACK ", 2.0)
        return {
            "forged answers believed": believed,
            "packets of sound diverted by a forged answer": waiting(stranger.sound),
        }


def forged_requests(victim: Victim) -> Counts:
    """Requests within a call, with everything in them that belongs there, but from elsewhere."""
    server = victim.server
    victim.call()
    dialog = server.take()
    session = {"Content-Type": "application/sdp"}
    with Counterpart(victim.port, FOREIGN) as stranger:
        for method, headers, body in (
            ("INFO", RELAY, "Signal=5\r\nDuration=160\r\n"),
            ("INFO", RELAY, "Signal=#\r\nDuration=160\r\n"),
            ("INVITE", session, stranger.offer),
        ):
            stranger.send(method, dialog.target, {**dialog.headers(method), **headers}, body)
        threading.Event().wait(QUIET_SECONDS)
        diverted = waiting(stranger.sound)
        for method in ("UPDATE", "CANCEL", "BYE"):
            stranger.send(method, dialog.target, dialog.headers(method))
        return {
            "packets of sound diverted by a forged INVITE": diverted,
            "calls ended by a forged BYE": settled(victim.ended),
            "doors opened by a forged INFO": victim.opened(),
        }


# Floods (row 1)


class Flood(threading.Thread):
    """INVITEs of strangers at a rate, from one or more addresses in turn."""

    def __init__(self, port: int, sources: int, rate: int) -> None:
        super().__init__(name="flood")
        self.sent = 0
        self._target = ("127.0.0.1", port)
        self._rate = rate
        self._over = threading.Event()
        self._sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(sources)]
        for number, each in enumerate(self._sockets, 1):
            each.bind((f"127.0.1.{number}", 0))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self.join()
        for each in self._sockets:
            each.close()

    def run(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(0.002):
            due = int((time.monotonic() - begun) * self._rate)
            while self.sent < due:
                self._send(self._sockets[self.sent % len(self._sockets)])
                self.sent += 1

    def _send(self, sender: socket.socket) -> None:
        address, port = sender.getsockname()
        token = secrets.token_hex(8)
        body = sdp(address, 4000)
        message = [
            "INVITE sip:door@127.0.0.1 SIP/2.0",
            f"Via: SIP/2.0/UDP {address}:{port};branch=z9hG4bK{token}",
            f"From: <sip:stranger@{address}>;tag={token}",
            "To: <sip:door@127.0.0.1>",
            f"Call-ID: {token}",
            "CSeq: 1 INVITE",
            f"Contact: <sip:stranger@{address}:{port}>",
            "Max-Forwards: 70",
            "Content-Type: application/sdp",
            f"Content-Length: {len(body)}",
            "",
            body,
        ]
        with suppress(OSError):
            sender.sendto("\r\n".join(message).encode(), self._target)


def flooded(folder: Path) -> Iterator[Row]:
    """A resident talks, and later somebody presses the bell, while INVITEs pour in."""
    with ExitStack() as parts:
        site = parts.enter_context(Site(folder / "site", users={"door": "secret", "flat1": "secret"}))
        phone = parts.enter_context(Phone(folder / "phone", site.account("flat1")))
        phone.wait_registered()
        port = free_port()
        text = settings(site.account("door"), [(FRIEND, 30)], more=f"[sip]\nport = {port}\n{SETTINGS}")
        ours = parts.enter_context(Station(folder / "door", "secret", text))
        ours.wait_registered()
        memory = proc.rss_kb(ours.program.pid)
        worst = lost = shortest = 0.0
        for sources in (1, 50):
            for rate in (10, 500, 2000):
                ours.press()
                phone.wait_ringing()
                phone.answer()
                ours.wait_event("CallAnswered")
                with Flood(port, sources, rate) as flood:
                    threading.Event().wait(4.0)
                    call = ours.status()["call"]
                    packets = call["rx"]["packets"]
                    lost = max(lost, 100 * (call["rx"]["lost"] + call["tx"]["lost"]) / max(1, packets))
                    shortest = max(shortest, 4.0 - packets / 50)
                    phone.hang_up()
                    ours.wait_state("Idle")
                    pressed = time.monotonic()
                    ours.press()
                    worst = max(worst, phone.wait_ringing().at - pressed)
                    phone.reject()
                    ours.wait_state("Idle")
                yield Row(f"flood from {sources} at {rate}/s: INVITEs sent", flood.sent, "")
        grown = proc.rss_kb(ours.program.pid) - memory
        offered = ours.program.log.read_text().count("CallOffered(")
        alive = ours.program.running
    yield Row("flood: RTP lost, the worst, both directions", lost, "%", 1)
    yield Row("flood: sound late after 4 s of talking, the worst", shortest, "s", 0.5)
    yield Row("flood: press to the phone's ringing, the worst", worst, "s", 2)
    yield Row("flood: calls of strangers that rang", offered, "", 0)
    yield Row("flood: stations lost", not alive, "", 0)
    yield Row("flood: RSS grown by, without a firewall", grown / 1024, "MB", 20)
    with Script(folder / "script") as script:
        with Flood(script.port, 50, 500):
            died = wait_until(lambda: not script.program.running, 4.0)
        yield Row("flood: scripts lost (50 sources, 500/s)", died, "")


ATTACKS: tuple[tuple[Callable[[Victim], Counts], dict[str, float]], ...] = (
    (injection, {"lines of log for it": 1}),
    (strangers, {}),
    (passwords, {}),
    (odd_digits, {}),
    (wrong_paths, {}),
    (forged_answers, {}),
    (forged_requests, {}),
)


def attacked(victim: Victim, attack: Callable[[Victim], Counts]) -> Counts:
    """What got in; that it died is a count too."""
    counts: Counts = {}
    try:
        counts = attack(victim)
    except GONE:
        if victim.program.running:
            raise
    return {**counts, f"deaths by {attack.__name__}": not victim.program.running}


def measure(folder: Path) -> Iterator[Row]:
    folder.mkdir(parents=True, exist_ok=True)
    for attack, limits in ATTACKS:
        with Ours(folder / f"{attack.__name__}-door") as station:
            ours = attacked(station, attack)
        with Script(folder / f"{attack.__name__}-script") as script:
            theirs = attacked(script, attack)
        for name in {**ours, **theirs}:
            yield Row(name, ours.get(name, 0), "", limits.get(name, 0))
            if name in theirs:
                yield Row(f"    bare pjsua2: {name}", theirs[name], "")
    yield from counted(folder)
    yield from flooded(folder / "flood")


def counted(folder: Path) -> Iterator[Row]:
    for name, presses, loss, disorder, limit in (
        ("0 % loss", PRESSES, 0.0, False, 0),
        ("30 % random loss", PRESSES, 0.3, False, PRESSES // 1000),
        ("10 % loss, duplicates, reordering", PRESSES // 5, 0.1, True, 0),
    ):
        with Ours(folder / f"digits-{loss}-door") as station:
            more = many(station, presses, 1, loss=loss, disorder=disorder)
        yield Row(f"{presses} digits, {name}: missing", max(0, -more), "", limit)
        yield Row(f"{presses} digits, {name}: too many", max(0, more), "", 0)
        with Script(folder / f"digits-{loss}-script") as script:
            more = many(script, PRESSES_OF_SCRIPT, 1, loss=loss, disorder=disorder)
        yield Row(f"    bare pjsua2: of {PRESSES_OF_SCRIPT}, missing or too many", abs(more), "")
