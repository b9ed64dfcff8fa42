"""What registrars, name servers and the network do wrong: when the station tries again, and when it is back.

Each fault has a station and a scripted server of its own; some faults are measured at the same time. What a
real registrar would do for hours is cut to three refusals in a row, a wait of an hour to its announcement.
Changes of the network happen in network namespaces, which need root.
"""

import ctypes
import functools
import itertools
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.demo.account import Account
from deploy.demo.names import Names
from deploy.demo.program import ProgramError, wait_until
from deploy.demo.scripted import Request, Say, Script, ScriptedRegistrar, granted
from deploy.demo.station import Station, settings
from tests.bench.rows import Row

TOGETHER = 4
PLAN_SECONDS = (2.0, 4.0, 8.0)
SPREAD = 0.2
TOLERANCE_SECONDS = 0.4  # of this machine, which does something else as well
ATTEMPT_SECONDS = 1.0  # what comes within it is one attempt: the answer to a 401, the longer time of a 423
SILENCE_SECONDS = 12.0  # until pjsip gives up (config_site.h)
BACK_SECONDS, RETURN_SECONDS, MUTE_SECONDS = 5.0, 10.0, 45.0
STALL_SECONDS = 1.0

_CHALLENGE = 'Digest realm="site.example", nonce="{nonce}", algorithm=MD5, qop="auth"'


def challenged(stale: str = "") -> Script:
    numbers = itertools.count()
    return lambda request: Say(
        "401 Unauthorized",
        {"WWW-Authenticate": _CHALLENGE.format(nonce=next(numbers)) + (f", stale={stale}" if stale else "")},
    )


def too_brief() -> Script:
    minutes = itertools.count(10)
    return lambda request: Say("423 Interval Too Brief", {"Min-Expires": str(60 * next(minutes))})


def refused(status: str, **headers: str) -> Script:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: Say(status, given)


REFUSALS: dict[str, Script] = {
    "401 to every password": challenged(),
    "401 with stale=true each time": challenged("true"),
    "403": refused("403 Forbidden"),
    "404": refused("404 Not Found"),
    "423, wanting more each time": too_brief(),
    "480": refused("480 Temporarily Unavailable"),
    "500": refused("500 Server Internal Error"),
    "503": refused("503 Service Unavailable"),
    "503, Retry-After: 0": refused("503 Service Unavailable", Retry_After="0"),
    "503, Retry-After: garbage": refused("503 Service Unavailable", Retry_After="in a while; -1"),
    "302 to elsewhere": refused("302 Moved Temporarily", Contact="<sip:127.0.0.9:5060>"),
    "200 without Contact": refused("200 OK"),
    "200 that grants 0 s": granted(0),
}


def rest(seconds: float) -> None:
    """What lasts for a while is measured for a while."""
    threading.Event().wait(seconds)


@dataclass
class Door:
    """A station with a server that is told what to say."""

    station: Station
    server: ScriptedRegistrar
    parts: ExitStack = field(repr=False)

    def attempts(self) -> list[float]:
        """When each attempt began."""
        times: list[float] = []
        for request in self.server.registers:
            if not times or request.at - times[-1] > ATTEMPT_SECONDS:
                times.append(request.at)
        return times

    def is_registered(self) -> bool:
        return all(account["state"] == "registered" for account in self.station.status()["accounts"])

    def until_registered(self, timeout: float) -> float:
        """The seconds from now until it is registered; the limit if it never is."""
        begin = time.monotonic()
        wait_until(self.is_registered, timeout, 0.05)
        return time.monotonic() - begin

    def busiest(self) -> float:
        """REGISTERs a second, in the worst ten seconds."""
        times = [request.at for request in self.server.registers]
        return max((sum(0 <= other - at < 10 for other in times) for at in times), default=0) / 10


@contextmanager
def door(
    folder: Path,
    script: Script,
    more: str = "",
    *,
    expires: int = 300,
    host: str = "",
    server: ScriptedRegistrar | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[Door]:
    with ExitStack() as parts:
        server = parts.enter_context(server or ScriptedRegistrar(script))
        account = Account("door", "secret", "site.example", f"{host}:{server.port}" if host else server.place)
        text = settings(
            account,
            [("sip:flat1@site.example", 20)],
            protection=f"expires_seconds = {expires}\n",
            more=more,
        )
        station = parts.enter_context(Station(folder, "secret", text, prefix=prefix))
        yield Door(station, server, parts)


# Registrars (row 9)


def refusing(folder: Path, name: str, fault: Script) -> list[Row]:
    """Three attempts are refused, the fourth is not."""
    well = threading.Event()
    well_said = granted()
    with door(folder, lambda request: well_said(request) if well.is_set() else fault(request)) as it:
        wait_until(lambda: len(it.attempts()) == len(PLAN_SECONDS), 30.0)
        wait_until(lambda: time.monotonic() - it.attempts()[-1] > ATTEMPT_SECONDS, 5.0)
        well.set()
        wait_until(lambda: len(it.attempts()) > len(PLAN_SECONDS), 15.0)
        last = it.attempts()[-1]
        wait_until(it.is_registered, BACK_SECONDS)
        back = time.monotonic() - last
        waits = [later - earlier for earlier, later in itertools.pairwise(it.attempts())]
        off = max(abs(wait - plan) - SPREAD * plan for wait, plan in zip(waits, PLAN_SECONDS, strict=False))
        missing = len(waits) < len(PLAN_SECONDS)
        said = ", ".join(f"{wait:.1f}" for wait in waits)
        return [
            Row(
                f"{name}: again after {said} s; beyond ±20 % of 2, 4, 8",
                99 if missing else max(off, 0),
                "s",
                TOLERANCE_SECONDS,
            ),
            Row(f"{name}: back after the next try", back, "s", BACK_SECONDS),
            Row(f"{name}: REGISTERs a second, worst 10 s", it.busiest(), "1/s", 1.0),
        ]


def wishing(folder: Path, seconds: int, limit: float) -> list[Row]:
    """A wish to be left alone: whether the station follows it, as far as is waited for."""
    name = f"503, Retry-After: {seconds}"
    with door(folder, refused("503 Service Unavailable", Retry_After=str(seconds))) as it:
        said = it.station.program.wait_for(r"next try in (\d+) s", 10.0)
        announced = float(said[1])
        if seconds > 60:
            wait_until(lambda: len(it.attempts()) > 1, 20.0)
            return [
                Row(f"{name}: announces the next try in", announced, "s", limit),
                Row(f"{name}: tries in the 20 s after it", len(it.attempts()) - 1, "", 0),
            ]
        it.server.script = granted()
        wait_until(it.is_registered, limit + BACK_SECONDS)
        waited = it.attempts()[1] - it.attempts()[0] if len(it.attempts()) > 1 else 99.0
        return [
            Row(f"{name}: again after", waited, "s", limit + TOLERANCE_SECONDS),
            Row(f"{name}: sooner than wished", max(seconds - waited, 0), "s", 0),
        ]


def granting(folder: Path, name: str, script: Script) -> list[Row]:
    """An answer that is right in form and strange in content: the station stays registered, and calm."""
    with door(folder, script) as it:
        first = it.until_registered(10.0)
        rest(10.0)
        return [
            Row(f"{name}: registered after", first, "s", BACK_SECONDS),
            Row(f"{name}: not registered 10 s later", float(not it.is_registered()), "", 0),
            Row(f"{name}: REGISTERs a second, worst 10 s", it.busiest(), "1/s", 1.1),
        ]


def mute(folder: Path, seconds: float) -> list[Row]:
    """A frozen registrar: nothing is answered, then everything."""
    with door(folder, granted(), expires=30) as it:
        it.until_registered(10.0)
        it.server.script, it.server.deaf = lambda request: None, True
        wait_until(lambda: not it.is_registered(), 30.0)
        rest(seconds)
        it.server.script, it.server.deaf = granted(), False
        return [Row("silent, then there again: back after", it.until_registered(60.0), "s", MUTE_SECONDS)]


def deaf_to_registers(folder: Path) -> list[Row]:
    """So a FRITZ!Box treats a wrong user name: OPTIONS are answered, REGISTERs are not."""
    with door(folder, lambda request: None) as it:
        wait_until(lambda: len(it.attempts()) == 3, 60.0)
        reason = it.station.status()["accounts"][0]["reason"]
        waits = [later - earlier - SILENCE_SECONDS for earlier, later in itertools.pairwise(it.attempts())]
        said = ", ".join(f"{wait:.1f}" for wait in waits)
        off = max(abs(wait - plan) - SPREAD * plan for wait, plan in zip(waits, PLAN_SECONDS, strict=False))
        name = "REGISTERs unanswered"
        return [
            Row(f"{name}: again {said} s after it gave up; beyond ±20 % of 2, 4", max(off, 0), "s", 1.0),
            Row(f"{name}: a wrong user name is not thought of", float("FRITZ!Box" not in reason), "", 0),
        ]


def killed(folder: Path) -> list[Row]:
    """A registrar that is not there for 15 s: its port refuses."""
    with door(folder, granted()) as it:
        it.until_registered(10.0)
        port = it.server.port
        it.server.stop()
        noticed = time.monotonic()
        wait_until(lambda: not it.is_registered(), 30.0)
        noticed = time.monotonic() - noticed
        rest(15.0)
        with ScriptedRegistrar(granted(), port=port) as server:
            it.server = server
            back = it.until_registered(60.0)
            rows = [
                Row("killed while idle: noticed after", noticed, "s", 20.0),
                Row("killed while idle: back after its return", back, "s", RETURN_SECONDS),
            ]
            it.station.stop()  # before its registrar, which it un-registers at
        return rows


# Name servers (row 10)


class Broken:
    """A name server with one answer to everything: an RCODE (RFC 1035 section 4.1.1), or none."""

    SERVFAIL, NXDOMAIN = 2, 3

    def __init__(self, port: int, code: int | None) -> None:
        self._code = code
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve, name="broken names", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            data, sender = self._socket.recvfrom(2048)
            if not data:
                return
            if self._code is not None:
                self._socket.sendto(data[:2] + bytes((0x81, 0x80 | self._code)) + data[4:], sender)

    def close(self) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()


def unnamed(folder: Path, name: str, code: int | None) -> list[Row]:
    """The name server goes wrong, and the registrar refuses once: the last good address is asked again."""
    names = Names(folder / "names", {}, {"pbx.example": "127.0.0.1"})
    with ExitStack() as parts:
        parts.enter_context(names)
        it = parts.enter_context(door(folder / "door", granted(20), names.settings, host="pbx.example"))
        it.until_registered(10.0)
        names.stop()
        broken = Broken(names.port, code)
        parts.callback(broken.close)
        refusals = iter([Say("500 Server Internal Error")])
        it.server.script = lambda request: next(refusals, None) or granted(20)(request)
        before = len(it.server.registers)
        slowest = 0.0

        def answers() -> bool:
            nonlocal slowest
            answer = it.server.ask(2.0)
            slowest = max(slowest, 2.0 if answer is None else answer)
            return len(it.server.registers) >= before + 2

        wait_until(answers, 30.0, 0.05)
        later = it.server.registers[before:]
        back = later[1].at - later[0].at if len(later) > 1 else 99.0
        held = it.until_registered(5.0)
        return [
            Row(f"DNS {name}: asked again at the last good address after", back + held, "s", 2.4 + 6.0),
            Row(f"DNS {name}: slowest answer of the SIP side meanwhile", slowest, "s", STALL_SECONDS),
        ]


def moved(folder: Path) -> list[Row]:
    """The name leads to another address."""
    names = Names(folder / "names", {}, {"pbx.example": "127.0.0.1"})
    with ExitStack() as parts:
        parts.enter_context(names)
        it = parts.enter_context(door(folder / "door", granted(), names.settings, host="pbx.example"))
        it.until_registered(10.0)
        other = parts.enter_context(ScriptedRegistrar(granted(), "127.0.0.2", it.server.port))
        names.change(hosts={"pbx.example": "127.0.0.2"})
        begin = time.monotonic()
        wait_until(lambda: bool(other.registers), 60.0)
        row = Row("DNS, another address: registered there after", time.monotonic() - begin, "s", 40.0)
        it.station.stop()
        return [row]


def nameless(folder: Path) -> list[Row]:
    """No name server at the start; it comes after 10 s."""
    names = Names(folder / "names", {}, {"pbx.example": "127.0.0.1"})
    with door(folder / "door", granted(), names.settings, host="pbx.example") as it:
        rest(10.0)
        with names:
            return [Row("DNS, none at boot: registered after it came", it.until_registered(30.0), "s", 10.0)]


# The network (row 11)


CLONE_NEWNET = 0x40000000


class House:
    """Two network namespaces with a cable between them: the door's and the registrar's."""

    OURS, ITS = "10.77.0.1", "10.77.0.2"

    def __init__(self, number: int) -> None:
        self.door, self.house = (f"bench-{os.getpid()}-{number}-{part}" for part in ("door", "house"))

    def __enter__(self) -> "House":
        for name in (self.door, self.house):
            self.ip("netns", "add", name)
            self.ip("-n", name, "link", "set", "lo", "up")
        self.ip("-n", self.door, "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", self.house)
        self.ip("-n", self.house, "addr", "add", f"{self.OURS}/24", "dev", "eth0")
        self.ip("-n", self.house, "addr", "add", "fd77::1/64", "dev", "eth0", "nodad")
        for name in (self.house, self.door):
            self.ip("-n", name, "link", "set", "eth0", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in (self.door, self.house):
            self.ip("netns", "del", name)

    @property
    def prefix(self) -> Sequence[str]:
        """What runs a command at the door."""
        return ("ip", "netns", "exec", self.door)

    def address(self, verb: str, address: str) -> None:
        """Add or delete an address of the door."""
        self.ip(
            "-n",
            self.door,
            "addr",
            verb,
            address,
            "dev",
            "eth0",
            *(["nodad"] * (verb == "add" and ":" in address)),
        )

    def cable(self, state: str) -> None:
        """Plug it `up`, or pull it `down`."""
        self.ip("-n", self.house, "link", "set", "eth0", state)

    @staticmethod
    def ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ProgramError(f"ip {' '.join(words)}: {done.stderr.strip()}")

    def registrar(self, script: Script, address: str = OURS) -> ScriptedRegistrar:
        """A scripted registrar in the house: a socket stays in the namespace of the thread that made it."""
        made: list[ScriptedRegistrar] = []

        def make() -> None:
            with Path(f"/run/netns/{self.house}").open() as space:
                if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(ScriptedRegistrar(script, address))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if not made:
            raise ProgramError("no socket in the namespace")
        return made[0]


def networks(folder: Path) -> list[Row]:
    """All that a network may do, one after another."""
    rows: list[Row] = []
    for number, (name, part) in enumerate(NETWORKS.items()):
        try:
            with House(number) as house:
                rows += part(folder / str(number), house)
        except (ProgramError, OSError) as error:
            rows.append(Row(f"{name}: NOT MEASURED, {error}", 1, "", 0))
    return rows


def another_address(folder: Path, house: House) -> list[Row]:
    house.address("add", f"{house.ITS}/24")
    with door(folder, granted(), server=house.registrar(granted()), prefix=house.prefix) as it:
        it.until_registered(10.0)
        house.address("del", f"{house.ITS}/24")
        house.address("add", "10.77.0.3/24")
        begin = time.monotonic()
        wait_until(lambda: "@10.77.0.3" in it.server.registers[-1].header("Contact"), 30.0)
        return [Row("another address: registered with it after", time.monotonic() - begin, "s", 10.0)]


def pulled(seconds: float) -> Callable[[Path, House], list[Row]]:
    def part(folder: Path, house: House) -> list[Row]:
        house.address("add", f"{house.ITS}/24")
        with door(folder, granted(), server=house.registrar(granted()), prefix=house.prefix) as it:
            it.until_registered(10.0)
            house.cable("down")
            rest(seconds)
            house.cable("up")
            begin = time.monotonic()
            wait_until(lambda: it.is_registered() and it.server.ask(0.5) is not None, 60.0)
            took = time.monotonic() - begin
            return [Row(f"cable pulled for {seconds:g} s: registered and there after", took, "s", 10.0)]

    return part


def late_address(folder: Path, house: House) -> list[Row]:
    with door(folder, granted(), server=house.registrar(granted()), prefix=house.prefix) as it:
        rest(10.0)
        house.address("add", f"{house.ITS}/24")
        return [
            Row(
                "address 10 s after the start (DHCP): registered after it",
                it.until_registered(60.0),
                "s",
                10.0,
            )
        ]


def only_six(folder: Path, house: House) -> list[Row]:
    house.address("add", "fd77::2/64")
    with door(folder, granted(), server=house.registrar(granted(), "fd77::1"), prefix=house.prefix) as it:
        return [Row("IPv6 only: registered after", it.until_registered(20.0), "s", 10.0)]


def call_kept(folder: Path, house: House) -> list[Row]:
    """The cable is pulled for a second while somebody talks."""
    house.address("add", f"{house.ITS}/24")
    server = house.registrar(granted())
    ear = house.registrar(granted())  # its socket takes sound as well as it takes SIP
    times: list[float] = []
    body = (
        f"v=0\r\no=- 1 1 IN IP4 {house.OURS}\r\ns=-\r\nc=IN IP4 {house.OURS}\r\nt=0 0\r\n"
        f"m=audio {ear.port} RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n"
    )
    headers = {"Contact": f"<sip:flat1@{server.place}>", "Content-Type": "application/sdp"}
    server.calls = lambda request: Say("200 OK", headers, body)
    ear.other = lambda data: times.append(time.monotonic())
    with ear, door(folder, granted(), server=server, prefix=house.prefix) as it:
        it.until_registered(10.0)
        it.station.press()
        it.station.wait_event("CallAnswered")
        wait_until(lambda: len(times) > 50, 5.0)
        house.cable("down")
        rest(1.0)
        house.cable("up")
        rest(4.0)
        gap = max(later - earlier for earlier, later in itertools.pairwise([*times, time.monotonic()]))
        talking = it.station.status()["state"] == "talking"
        return [
            Row("cable pulled for 1 s in a call: gap in the sound", gap, "s", 3.0),
            Row("cable pulled for 1 s in a call: the call is lost", float(not talking), "", 0),
        ]


NETWORKS: dict[str, Callable[[Path, House], list[Row]]] = {
    "another address": another_address,
    "cable pulled for 1 s": pulled(1),
    "cable pulled for 30 s": pulled(30),
    "late address": late_address,
    "IPv6 only": only_six,
    "a call through a short break": call_kept,
}


def measure(folder: Path) -> Iterator[Row]:
    """All faults, some at the same time; the rows come in the order of the threats' table."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = itertools.count()

    def part(work: Callable[..., list[Row]], *arguments: object) -> Callable[[], list[Row]]:
        return functools.partial(_tried, work, folder / str(next(numbers)), *arguments)

    parts = [part(refusing, name, fault) for name, fault in REFUSALS.items()]
    parts += [
        part(wishing, 5, 6.0),
        part(wishing, 3600, 360.0),
        part(granting, "200 that grants 1 s", granted(1)),
        part(granting, "200 that grants 2^32 s", granted(2**32)),
        part(granting, "200 that is a second late", _late),
        part(granting, "200 three times", _thrice),
        part(deaf_to_registers),
        part(mute, 10.0),
        part(killed),
        part(unnamed, "NXDOMAIN", Broken.NXDOMAIN),
        part(unnamed, "SERVFAIL", Broken.SERVFAIL),
        part(unnamed, "silent", None),
        part(moved),
        part(nameless),
        part(networks),
    ]
    with ThreadPoolExecutor(TOGETHER) as pool:
        last = pool.submit(parts.pop())  # the longest first
        for rows in pool.map(lambda work: work(), parts):
            yield from rows
        yield from last.result()


def _tried(work: Callable[..., list[Row]], folder: Path, *arguments: object) -> list[Row]:
    """What cannot be measured is a row that fails, and no reason not to measure the rest."""
    try:
        return work(folder, *arguments)
    except (ProgramError, OSError) as error:
        named = " ".join(str(each) for each in arguments if isinstance(each, str))
        what = f"{work.__name__} {named}".strip()
        return [Row(f"{what}: NOT MEASURED, {str(error).splitlines()[0]}", 1, "", 0)]


def _late(request: Request) -> Say:
    return Say("200 OK", granted()(request).headers, late_seconds=1.0)


def _thrice(request: Request) -> Say:
    return Say("200 OK", granted()(request).headers, times=3)
