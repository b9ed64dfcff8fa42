"""Small real things that stand for the world: a story of events, a clock, a SIP engine, a registrar, a site.

Rule: no test waits for time to pass. It passes `now`, runs on a clock that jumps, or waits for an event.
"""

import asyncio
import functools
import itertools
import queue
import select
import selectors
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast

from intercom.control.handlers import Controls
from intercom.control.server import ControlServer
from intercom.core.actions import Action
from intercom.core.events import (
    ButtonDown,
    ButtonPressed,
    ButtonUp,
    CallEnded,
    DigitReceived,
    Event,
    TimePassed,
)
from intercom.core.guide import Lamp, Tone, lamp_of, tone_of
from intercom.core.policy import Caller, Door, Plan, Policy, Target
from intercom.core.state import Phase, State, next_deadline
from intercom.core.station import step
from intercom.journal.store import Journal
from intercom.runtime import Runtime
from intercom.settings.schema import Settings
from intercom.sip.line import Line
from intercom.sip.outbox import Outbox
from intercom.sip.registration import AccountStatus, News, RegistrationChanged
from intercom.sip.targets import NotFound, Server

TIME_LIMIT = 20.0
"""Seconds after which a test stops waiting for the real world; nothing takes a tenth of that."""

FLAT, OFFICE, GUARD = "sip:flat1@site.example", "sip:office@site.example", "sip:guard@site.example"
FRONT_CODE, GATE_CODE = "4711#", "0*0#"

POLICY = Policy(
    buttons={"bell": Plan((Target(FLAT, 25),)), "office": Plan((Target(OFFICE, 20), Target(GUARD, 15)))},
    doors={"front": Door(5, frozenset({FRONT_CODE})), "gate": Door(3, frozenset({GATE_CODE}))},
    callers={FLAT: Caller(), "sip:*@home.example": Caller()},
)


class Story:
    """The station as a story: what happens, when, and what it does about it."""

    def __init__(self, policy: Policy = POLICY, state: State | None = None, now: float = 1000.0) -> None:
        self.policy = policy
        self.state = state or State()
        self.now = now

    @property
    def phase(self) -> Phase:
        return self.state.phase

    @property
    def lamp(self) -> Lamp:
        return lamp_of(self.state)

    @property
    def tone(self) -> Tone:
        return tone_of(self.state)

    def tell(self, *events: Event) -> list[Action]:
        """These events happen now; returns what is done about them."""
        done: list[Action] = []
        for event in events:
            self.state, actions = step(self.state, event, self.now, self.policy)
            done += actions
        return done

    def wait(self, seconds: float) -> list[Action]:
        """Time passes, and each deadline is met when it is due; returns what is done."""
        end = self.now + seconds
        done: list[Action] = []
        while (due := next_deadline(self.state, self.policy.settle_seconds)) is not None and due <= end:
            self.now = max(self.now, due)
            done += self.tell(TimePassed())
        self.now = end
        return done

    def press(self, button: str = "bell") -> list[Action]:
        """A whole press."""
        return self.tell(ButtonPressed(button))

    def contact(self, button: str, *seconds: float) -> list[Action]:
        """A contact closes now for the first of these times, opens for the second …; it ends open."""
        done: list[Action] = []
        for number, period in enumerate(seconds):
            done += self.tell(ButtonUp(button) if number % 2 else ButtonDown(button))
            done += self.wait(period)
        return done + self.tell(ButtonUp(button))

    def type(self, call: int, digits: str) -> list[Action]:
        """Digits arrive in a call, all at this moment."""
        return self.tell(*(DigitReceived(call, digit) for digit in digits))

    def end(self, call: int, status: int = 200, reason: str = "OK") -> list[Action]:
        """The SIP side says that a call is over."""
        return self.tell(CallEnded(call, status, reason))


# Time


class _JumpingSelector(selectors.SelectSelector):
    """Looks at the sockets; where asyncio would wait for time to pass, time passes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(TIME_LIMIT if timeout is None else 0)
        if timeout is None and not ready:
            raise TimeoutError("the test waits for something that never happens")
        if timeout is not None and timeout > 0 and not ready:
            self.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing else is left to do."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def oversleep(self, seconds: float) -> None:
        """Time passes while the loop is kept from looking at its timers."""
        self._jumping.now += seconds


P = ParamSpec("P")
AsyncTest = Callable[P, Coroutine[Any, Any, None]]


def timeless(test: AsyncTest[P]) -> Callable[P, None]:
    """Run a test on a loop whose clock jumps: hours take no time. Not for tests that wait for threads."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def live(test: AsyncTest[P]) -> Callable[P, None]:
    """Run a test on an ordinary event loop, with a time limit."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def limited() -> None:
            async with asyncio.timeout(TIME_LIMIT):
                await test(*args, **kwargs)

        asyncio.run(limited())

    return run


async def turns(count: int = 20) -> None:
    """Let the loop do what is ready, without letting time pass."""
    for _ in range(count):
        await asyncio.sleep(0)


# What is told on other threads


T = TypeVar("T")


class Ear(Generic[T]):
    """A callback that keeps what it is told, so that a test can wait for it."""

    def __init__(self) -> None:
        self._heard: queue.SimpleQueue[T] = queue.SimpleQueue()

    def __call__(self, said: T) -> None:
        self._heard.put(said)

    def next(self) -> T:
        """The next thing said, waiting for it."""
        return self._heard.get(timeout=TIME_LIMIT)

    def rest(self) -> list[T]:
        """What else was said so far, without waiting."""
        heard = []
        while not self._heard.empty():
            heard.append(self._heard.get())
        return heard


# SIP


class FakeEngine:
    """A SIP engine that speaks to nobody: it sleeps in its poll on a real UDP socket, as pjsip does.

    A patient one ignores how long it may wait: only a datagram ends its poll, and none is an error.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._patient = patient
        self._fault: Exception | None = None
        self.waits: list[float] = []
        self.datagrams: list[bytes] = []
        self.polling: Ear[int] = Ear()
        self.on_wake: Callable[[], None] = lambda: None
        self.closed = False

    @property
    def wake_address(self) -> tuple[str, int]:
        host, port = self._socket.getsockname()
        return str(host), int(port)

    def poll(self, seconds: float) -> None:
        if self._fault is not None:
            raise self._fault
        self.waits.append(seconds)
        self.polling(len(self.waits))
        ready, _, _ = select.select([self._socket], [], [], TIME_LIMIT if self._patient else seconds)
        if ready:
            self.datagrams.append(self._socket.recv(64))
            self.on_wake()
        elif self._patient:
            raise TimeoutError("nothing woke the engine")

    def close(self) -> None:
        self._socket.close()
        self.closed = True

    def break_down(self, fault: Exception) -> None:
        """The next poll fails."""
        self._fault = fault


PBX, SPARE = (
    Server("192.0.2.10", 5060, "udp", "pbx.example", 10),
    Server("192.0.2.20", 5060, "udp", "spare.example", 20),
)


Said = tuple[int, str, int] | tuple[int, str, int, int]
"""A status, its reason, the seconds granted and, if there is a wish, the seconds to wait."""


class FakeRegistrar:
    """Registrars with a name server: what they are asked, when, and what they answer."""

    def __init__(self, *servers: Server) -> None:
        self.status = AccountStatus(
            "door@site.example", "sip:door@site.example", "sip:pbx.example", "", "registering", "", 0
        )
        self.hear: Callable[[News], None] = lambda _: None
        self.scripts: dict[Server, list[Said]] = {}
        self.servers: Sequence[Server] | NotFound = servers or (PBX,)
        self.there: dict[Server, bool | None] = {}
        self.quiet = True
        self.attempts: list[tuple[float, Server]] = []
        self.lookups: list[bool] = []
        self.probes: list[Server] = []
        self.admitted: list[Sequence[Server]] = []
        self.health: list[str | None] = []

    @property
    def script(self) -> list[Said]:
        """What the only server, or the best, answers."""
        return self.scripts.setdefault(PBX, [])

    @script.setter
    def script(self, answers: list[Said]) -> None:
        self.scripts[PBX] = answers

    async def find(self, known: bool) -> Sequence[Server]:
        self.lookups.append(known)
        if isinstance(self.servers, NotFound):
            raise self.servers
        return self.servers

    async def answers(self, server: Server) -> bool | None:
        """Answers OPTIONS if it is there; those not spoken of are."""
        self.probes.append(server)
        return self.there.get(server, True)

    def register(self, server: Server) -> None:
        """Takes an attempt; answers with the next word of the script, and is silent after the last."""
        self.attempts.append((asyncio.get_running_loop().time(), server))
        if script := self.scripts.get(server):
            asyncio.get_running_loop().call_soon(self.say, script.pop(0), server)

    def say(self, answer: Said, server: Server = PBX) -> None:
        """Answers, asked or not."""
        self.hear(RegistrationChanged(server, *answer))

    def accepts(self, expires_seconds: int = 300) -> Said:
        return (200, "OK", expires_seconds)

    def refuses(self, status: int, reason: str, retry_after: int = 0) -> Said:
        return (status, reason, 0, retry_after)

    def asked(self) -> list[Server]:
        """Which server each attempt went to."""
        return [server for _, server in self.attempts]

    def gaps(self) -> list[float]:
        """The seconds between one attempt and the next."""
        times = [at for at, _ in self.attempts]
        return [round(later - earlier, 3) for earlier, later in itertools.pairwise(times)]


class FakeLine:
    """The telephone line as the control interface sees it."""

    def __init__(self) -> None:
        self.accounts = [FakeRegistrar().status]
        self.flow: dict[str, Any] | None = None
        self.silent = False

    async def statistics(self, call: int) -> dict[str, Any] | None:
        if self.silent:
            await asyncio.get_running_loop().create_future()
        return self.flow


# Control


SETTINGS = Settings.model_validate(
    {
        "station": {"name": "Side door", "board": "simulated"},
        "account": [
            {
                "uri": "sip:door@site.example",
                "registrar": "sip:pbx.example",
                "username": "door",
                "password_file": "door.secret",
            }
        ],
        "button": [
            {"name": "bell", "pin": 17, "ring": [{"to": FLAT}]},
            {"name": "office", "pin": 18, "ring": [{"to": OFFICE}]},
        ],
        "door": [{"name": "front", "pin": 27}, {"name": "gate", "pin": 22}],
    }
)


class FakePanel:
    """A panel that always looks the same."""

    def snapshot(self) -> dict[str, Any]:
        return {
            "buttons": {"bell": True},
            "lamps": {},
            "doors": {"front": {"released": False, "contact": None}},
        }


@dataclass
class Site:
    """Everything behind the socket."""

    path: Path
    runtime: Runtime
    journal: Journal
    line: FakeLine = field(default_factory=FakeLine)
    counters: Counter[str] = field(default_factory=Counter)
    pressed: list[str] = field(default_factory=list)
    done: list[Action] = field(default_factory=list)


async def nobody_reads(to: str, text: str) -> tuple[int, str]:
    """Every message is refused for good."""
    return 404, "Not Found"


@asynccontextmanager
async def open_site(
    folder: Path, settings: Settings = SETTINGS, *, panel: bool = True
) -> AsyncIterator[Site]:
    """A control interface on a real socket, in front of a real step loop and a real journal."""
    done: list[Action] = []
    pressed: list[str] = []
    runtime = Runtime(POLICY, done.append)
    journal = Journal(folder / "journal.db", lambda fault: None)
    site = Site(folder / "run" / "control.sock", runtime, journal, done=done, pressed=pressed)

    async def press(button: str) -> None:
        pressed.append(button)

    controls = Controls(
        settings,
        runtime,
        cast("Line", site.line),
        journal,
        FakePanel() if panel else None,
        Outbox("Side door", nobody_reads),
        site.counters,
        press,
    )
    server = ControlServer(site.path, controls.handlers())
    await server.start()
    try:
        yield site
    finally:
        await server.stop()
        journal.close()
        runtime.close()


async def http(path: Path, raw: bytes) -> tuple[int, bytes]:
    """Send bytes to a Unix socket and read until it closes; returns the HTTP status and the body."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(raw)
    try:
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return (int(head.split()[1]) if head else 0), body


def post(target: str, body: bytes) -> bytes:
    """A POST request, byte for byte."""
    return f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def get(target: str) -> bytes:
    """A GET request, byte for byte."""
    return f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
