"""2,000 phones at our site and at the configuration that Kamailio's package brings, turn by turn.

The load is SIPp's, which takes as much of this machine as the server does. So beside how many go in a second
there is what one costs: milliseconds on a core, of all processes of the server. Both servers have the same
number of processes and the same memory.

Our site has written a location before it says 200, so it knows it after SIGKILL; the package's (sample.cfg)
writes it within a minute. `sample` is told to write at once as well, and the limits are for it; `as packaged`
is the same without that.
"""

import random
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Protocol, Self

from deploy.demo.account import Account
from deploy.demo.program import Program, ProgramError, free_port, wait_until
from deploy.demo.scenarios import answers, authentication, caller, pause, registers
from deploy.demo.sipp import Counts, Sipp
from deploy.demo.site import Site
from intercom.site.control import NotRunning, request
from tests.bench import proc
from tests.bench.rows import Row

PHONES = 2000
ROUNDS = 8
FIRST_RATE = 400  # a second; what our site takes from phones that it does not know yet
STEADY_RATE, STEADY_CALLS = 100, 600  # a second, and in each round
FAST_CALLS = 400  # as fast as they go; the server remembers each for 5 s, in the memory that it has
RINGS_MS = TALKS_MS = (
    40  # what is closer together may change its order on its way through the server's workers
)
REGISTERING, CALLING = 40, 160  # at one time; more only wait in a socket, or are lost there
FASTEST = 10_000  # a second; more than a server takes here
LIMIT = 1.1

REALM = "site.example"
USERS = {f"phone{number:04}": f"secret{number:04}" for number in range(PHONES)}
SOMEBODY, OTHER = Account("[field0]", "[field1]", REALM, ""), f"sip:[field2]@{REALM}"
CALLERS, PHONE = "127.0.0.2", "127.0.0.3"

PACKAGED = Path("/etc/kamailio/kamailio.cfg")
_SAMPLE = Path(__file__).with_name("sample.cfg")
_TABLES = Path("/usr/share/kamailio/db_sqlite")
_OF_SWITCHES = ("permissions", "alias_db", "uac", "msilo", "dialog")
_START_SECONDS = 10.0
_LOAD_SECONDS = 2.0  # a server answers before it has read all locations
_RUN_SECONDS = 60.0


class Server(Protocol):
    """Killed and started again, it has the same folder and port."""

    @property
    def proxy(self) -> str: ...

    @property
    def program(self) -> Program: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def ask(self, method: str, *parameters: str | int) -> dict[str, Any]: ...


class Sample:
    """The package's configuration.

    Args:
        folder: for its database and log.
        options: of Kamailio: how much memory.
        children: how many processes take requests from one socket.
        tls: Kamailio's settings of TLS.
        at_once: whether a location is written before the 200.
    """

    def __init__(self, folder: Path, options: list[str], children: int, tls: Path, *, at_once: bool) -> None:
        if not PACKAGED.exists():
            raise ProgramError(f"{PACKAGED} is missing, with which Debian's kamailio comes")
        folder.mkdir(parents=True)
        database = folder / "state.db"
        _fill(database)
        self.proxy = f"127.0.0.1:{free_port()}"
        values = {
            "DOMAIN": f'"{REALM}"',
            "DBURL": f'"sqlite:///{database}"',
            "CONNECTION": f'"state=>sqlite:///{database}"',
            "CONTROL": f'"{folder / "control.sock"}"',
            "CHILDREN": str(children),
            "CONTACT": f'"{self.proxy}"',
            "TLS_CONFIG": f'"{tls}"',
        }
        defines = [f"{name}={value}" for name, value in values.items()] + ["AT_ONCE"] * at_once
        self._folder = folder
        self._command: list[str | Path] = ["kamailio", "-f", _SAMPLE, "-Y", folder, "-DD", "-E", *options]
        self._command += [word for define in defines for word in ("-A", define)]
        sockets = [f"udp:{self.proxy}", f"tcp:{self.proxy}", f"tls:127.0.0.1:{free_port()}"]
        self._command += [word for socket in sockets for word in ("-l", socket)]
        self._program: Program | None = None

    @property
    def program(self) -> Program:
        assert self._program is not None, "it is not started"
        return self._program

    def start(self) -> None:
        self._program = Program(self._command, self._folder / "sample.log", folder=self._folder)
        if not wait_until(lambda: not self.program.running or self._answers(), _START_SECONDS):
            raise ProgramError(f"the sample does not answer; the end of its log:\n{self.program.tail()}")
        if not self.program.running:
            raise ProgramError(f"the sample ended at its start; the end of its log:\n{self.program.tail()}")

    def stop(self) -> None:
        if self._program is not None:
            self._program.stop()
            self._program = None

    def kill(self) -> None:
        self.program.kill()
        self._program = None

    def ask(self, method: str, *parameters: str | int) -> dict[str, Any]:
        try:
            return request(self._folder, method, *parameters)
        except NotRunning as error:
            raise ProgramError(str(error)) from error

    def _answers(self) -> bool:
        try:
            return "result" in self.ask("core.uptime")
        except ProgramError:
            return False


def _fill(database: Path) -> None:
    """The package's tables, with our users."""
    with closing(sqlite3.connect(database)) as tables:
        for name in ("standard", "usrloc", "presence", "auth_db", "dispatcher", *_OF_SWITCHES):
            tables.executescript((_TABLES / f"{name}-create.sql").read_text())
        tables.execute("PRAGMA journal_mode = WAL")  # as in our site's
        with tables:
            tables.executemany(
                "INSERT INTO subscriber (username, domain, password) VALUES (?, ?, ?)",
                ((user, REALM, password) for user, password in USERS.items()),
            )


@dataclass(frozen=True)
class Run:
    """What came of one run of SIPp against a server."""

    counts: Counts
    cost_ms: float  # on a core, for each


class Load:
    """The phones. Each is a caller in its turn; all of them answer at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._answers = Sipp(folder / "answers", answers(rings_ms=RINGS_MS), calls=10**6, source=PHONE)
        # Always the same port: where a phone has proved who it is, it is no stranger the next time.
        self._port = free_port(CALLERS)
        self._runs = 0
        names = list(USERS)
        self._lines = [
            f"{name};{authentication(name, USERS[name])};{names[number - PHONES // 2]}"
            for number, name in enumerate(names)
        ]

    def __enter__(self) -> Self:
        self._answers.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answers.stop()

    def register(self, server: Server, rate: float = FASTEST) -> Run:
        """Every phone once."""
        contact = self._answers.contact.replace("phone", SOMEBODY.user, 1)
        return self._run(server, registers(SOMEBODY, contact), PHONES, rate, REGISTERING)

    def call(self, server: Server, calls: int, rate: float = FASTEST) -> Run:
        """One phone calls another: 407, 100, 180, 200, ACK, BYE."""
        return self._run(server, caller(SOMEBODY, OTHER, pause(TALKS_MS)), calls, rate, CALLING)

    def _run(self, server: Server, script: str, calls: int, rate: float, together: int) -> Run:
        self._runs += 1
        before = _cpu_s(server)
        with Sipp(
            self._folder / f"run{self._runs}",
            script,
            server.proxy,
            calls=calls,
            rate=rate,
            source=CALLERS,
            port=self._port,
            together=together,
            lines=self._lines,
        ) as sipp:
            counts = sipp.wait(_RUN_SECONDS)
        return Run(counts, (_cpu_s(server) - before) / calls * 1000)


def measure(folder: Path) -> Iterator[Row]:
    with ExitStack() as parts:
        load = parts.enter_context(Load(folder))
        listen = {"transports": ["udp", "tcp", "tls", "ws"], "tls_port": free_port(), "ws_port": free_port()}
        site = Site(folder / "site", REALM, USERS, listen=listen, limits={"requests_per_second": 100_000})
        parts.callback(site.stop)
        site.start()
        options, children = _memory_options(site), _children(site)
        site.stop()
        servers: dict[str, Server] = {"site": site}
        for name in ("sample", "as packaged"):
            server = Sample(
                folder / name.replace(" ", "-"),
                options,
                children,
                site.folder / "current" / "tls.cfg",
                at_once=name == "sample",
            )
            parts.callback(server.stop)
            servers[name] = server
        yield from _alone(servers, load)
        yield from _by_turns(servers, load)


def _alone(servers: Mapping[str, Server], load: Load) -> Iterator[Row]:
    """One after another, for the memory: what two servers share would be counted by half."""
    memory: dict[str, float] = {}
    for name, server in servers.items():
        server.start()
        failed = load.register(server, FIRST_RATE).counts.failed
        memory[name] = _pss_mb(server)
        used = server.ask("core.shmmem", "k")["result"]["real_used"] / 1024
        server.kill()
        server.start()
        lost = _lost(server)
        server.stop()
        limit = 0 if name == "site" else None
        yield Row(f"{PHONES:,} phones register, {name}: failed", failed, "", limit)
        yield Row(f"{PHONES:,} phones, {name}: lost by SIGKILL", lost, "", limit)
        yield Row(f"memory, {name}: PSS of all processes", memory[name], "MB")
        yield Row(f"memory, {name}: of it shared and used", used, "MB")
    yield Row("memory: site / sample", memory["site"] / memory["sample"], "", LIMIT)


def _by_turns(servers: Mapping[str, Server], load: Load) -> Iterator[Row]:
    for server in servers.values():
        server.start()
        load.register(server, FIRST_RATE)
    runs: dict[str, dict[str, list[Run]]] = {
        kind: {name: [] for name in servers} for kind in ("registration", "call", "steady call")
    }
    for _ in range(ROUNDS):
        for name in random.sample(list(servers), len(servers)):
            server = servers[name]
            runs["registration"][name].append(load.register(server))
            runs["call"][name].append(load.call(server, FAST_CALLS))
            runs["steady call"][name].append(load.call(server, STEADY_CALLS, STEADY_RATE))
    for kind, rate in (("registration", None), ("steady call", STEADY_RATE), ("call", None)):
        what = f"{kind}s" if rate is None else f"calls, {rate} a second"
        for name, done in runs[kind].items():
            if rate is None:
                yield Row(f"{what}, {name}", median(run.counts.rate for run in done), "/s")
            limit = 0 if name == "site" and rate is not None else None
            yield Row(f"{what}, {name}: failed", sum(run.counts.failed for run in done), "", limit)
            yield Row(f"{what}, {name}: CPU", median(run.cost_ms for run in done), "ms each")
        pairs = list(zip(runs[kind]["site"], runs[kind]["sample"], strict=True))
        if rate is None:
            speed = median(sample.counts.rate / site.counts.rate for site, sample in pairs)
            yield Row(f"{what} a second: sample / site", speed, "", LIMIT)
        cost = median(site.cost_ms / sample.cost_ms for site, sample in pairs)
        yield Row(f"{what}, CPU: site / sample", cost, "", LIMIT)


def _lost(server: Server) -> int:
    """How many of the phones cannot be reached."""

    def reached() -> int:
        return sum("result" in server.ask("ul.lookup", "location", user) for user in USERS)

    wait_until(lambda: reached() == PHONES, _LOAD_SECONDS)
    return PHONES - reached()


def _memory_options(site: Site) -> list[str]:
    """-m and -M, as the site was started."""
    words = Path(f"/proc/{site.program.pid}/cmdline").read_text().split("\0")
    return [word for flag in ("-m", "-M") for word in (flag, words[words.index(flag) + 1])]


def _children(site: Site) -> int:
    """How many processes take requests from one socket."""
    return sum("udp receiver" in str(process) for process in site.ask("core.ps")["result"])


def _cpu_s(server: Server) -> float:
    return sum(proc.effort(pid).cpu_s for pid in proc.group(server.program.pid))


def _pss_mb(server: Server) -> float:
    return sum(proc.pss_mb(pid) for pid in proc.group(server.program.pid))
