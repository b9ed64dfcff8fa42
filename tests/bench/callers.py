"""The programs that are compared: each registers, calls when it is told to, and tells when."""

import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from deploy.demo.account import Account
from deploy.demo.phone import Phone
from deploy.demo.program import Program
from deploy.demo.station import BUTTON_PIN, LAMP_PIN, Station, settings

COMMAND = Path(sys.executable).parent / "intercom"
START_SECONDS = 10.0
FLAT = "sip:flat1@site.example"
SETTLE_SECONDS = 0.03  # the settings' own value


class Caller(Protocol):
    """Something that can be told to call."""

    def press(self) -> int:
        """Tell it, and return when, in ns of CLOCK_REALTIME; a contact's settle time is included."""

    def rest(self) -> None:
        """Make it ready for the next `press`."""


class Ordered:
    """A Python process that takes its orders as datagrams."""

    def __init__(
        self, folder: Path, command: list[str], orders: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._orders = str(orders)
        self.begun = time.time_ns()
        self.program = Program([sys.executable, *command], folder / "program.log", environment)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.program.stop()
        self._socket.close()

    def order(self, text: str) -> None:
        self._socket.sendto(text.encode(), self._orders)


class Bare(Ordered):
    """The least script. It polls every 10 ms, as such scripts do, or faster to be harder to compare with."""

    def __init__(self, folder: Path, account: Account, poll_ms: int = 10) -> None:
        folder = folder.resolve()
        orders = folder / "orders"
        script = Path(__file__).parent / "bare.py"
        who = [account.uri, account.proxy, account.user, account.password]
        super().__init__(folder, [str(script), str(orders), str(poll_ms), *who, FLAT], orders)

    def wait_registered(self) -> None:
        self.program.wait_for("^registered", START_SECONDS)

    def press(self) -> int:
        now = time.time_ns()
        self.order("call")
        return now

    def rest(self) -> None:
        pass


def station(
    folder: Path,
    account: Account,
    *,
    device: str = "none",
    settle_seconds: float = SETTLE_SECONDS,
    more: str = "",
    environment: Mapping[str, str] | None = None,
) -> Station:
    """`intercom run`, which rings again at each press."""
    timing = f"[timing]\nrepeat_seconds = 0\nsettle_seconds = {settle_seconds}\n"
    text = settings(account, [(FLAT, 30)], device=device, more=timing + more)
    return Station(folder, account.password, text, environment)


class Held(Ordered):
    """The station, with its contact in our hands."""

    def __init__(self, ours: Station, outcome_seconds: float | None = None) -> None:
        ours.write_settings()
        self.socket = ours.socket
        orders = ours.folder / "orders"
        command = ["-m", "tests.bench.held", str(orders), str(BUTTON_PIN), str(LAMP_PIN)]
        if outcome_seconds is not None:
            command.append(str(outcome_seconds))
        super().__init__(ours.folder, command, orders, ours.environment)

    def wait_registered(self) -> None:
        self.program.wait_for("registered for", START_SECONDS)

    def wait_lit(self) -> int:
        """Block until the lamp is lit, and return when, in ns of CLOCK_REALTIME."""
        return int(self.program.wait_for(r"^lit (\d+)", START_SECONDS)[1])

    def press(self) -> int:
        before = self.program.mark
        self.order("down")
        edge = int(self.program.wait_for(r"^edge (\d+)", START_SECONDS, before)[1])
        return edge + int(SETTLE_SECONDS * 1e9)

    def rest(self) -> None:
        self.order("up")


class Baresip(Phone):
    """A telephone that is told to dial over its control port."""

    def press(self) -> int:
        now = time.time_ns()
        self.dial(FLAT)
        return now

    def rest(self) -> None:
        pass


class LoneBaresip(Phone):
    """The same, as a person starts it: with its account in a file."""

    def start(self) -> None:
        self.begun = time.time_ns()
        self._program = Program(["baresip", "-4", "-f", self.folder], self.log)

    def write_configuration(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        with (self.folder / "config").open("a") as config:
            config.write("module_app account.so\n")
        (self.folder / "accounts").write_text(self._account_line() + "\n")
