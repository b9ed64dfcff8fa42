"""The door station as a process of its own, driven through its outside contract: settings, socket, signals.

Rule: what it does is read from its `/watch` stream, each step once, so a test waits for "the next release"
without looking at the clock.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploy.demo.account import Account
from deploy.demo.program import Program, ProgramError, wait_until
from intercom.control import client

Step = dict[str, Any]

BUTTON_PIN, LAMP_PIN, DOOR_PIN = 17, 22, 27
_COMMAND = Path(sys.executable).parent / "intercom"


def settings(
    account: Account,
    ring: Sequence[tuple[str, float]],
    *,
    device: str = "none",
    codes: Sequence[str] = ("5#",),
    release_seconds: float = 2.0,
    protection: str = "",
    plan: str = "",
    more: str = "",
) -> str:
    """The text of a settings file for the simulated board.

    Args:
        account: who the station is; its password is expected in `door.secret` beside the file.
        ring: what the button `bell` rings, one after another: addresses and seconds.
        device: of the sound.
        codes: DTMF codes of the door `front`.
        release_seconds: how long they open it.
        protection: further keys of the account, as TOML: whom to believe over TLS, and what becomes of sound.
        plan: further keys of the button, as TOML; if it has `ring` it takes the place of ours.
        more: further tables, as TOML.
    """
    targets = ", ".join(f"{{ to = {json.dumps(to)}, seconds = {seconds} }}" for to, seconds in ring)
    own = "" if "ring = " in plan.partition("[[")[0] else f"ring = [{targets}]\n"
    known = ", ".join(f"{{ dtmf = {json.dumps(code)} }}" for code in codes)
    return f"""\
[station]
name = "Front door"
board = "simulated"

[[account]]
uri = "{account.uri}"
registrar = "sip:{account.proxy};transport={account.transport}"
username = "{account.user}"
password_file = "door.secret"
{protection}
[[button]]
name = "bell"
pin = {BUTTON_PIN}
{own}{plan}
[[lamp]]
name = "status"
pin = {LAMP_PIN}

[[door]]
name = "front"
pin = {DOOR_PIN}
release_seconds = {release_seconds}
codes = [{known}]

[sound]
device = "{device}"
{more}"""


class Station:
    """`intercom run` in a folder.

    Args:
        folder: for its settings, socket, journal and log; created when missing. Its path must be short
            enough for a Unix socket (90 characters).
        password: of its account.
        text: its settings file.
        environment: variables added to our own, such as those of a `VirtualCard`.
        prefix: a command that runs it, such as `nsenter`.
    """

    def __init__(
        self,
        folder: Path,
        password: str,
        text: str,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.folder = folder.resolve()
        self.config = self.folder / "intercom.toml"
        self.socket = self.folder / "control.sock"
        self._password = password
        self._text = text
        self._environment = dict(environment or {})
        self._prefix = prefix
        self._program: Program | None = None
        self._reader: threading.Thread | None = None
        self._news = threading.Condition()
        self._steps: list[Step] = []
        self._next = 0
        self._ended = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def program(self) -> Program:
        """The station's process.

        Raises:
            ProgramError: it is not started.
        """
        if self._program is None:
            raise ProgramError(f"the station in {self.folder} is not started")
        return self._program

    @property
    def environment(self) -> dict[str, str]:
        """What the `intercom` command needs in its environment to find this station."""
        return {
            **self._environment,
            "INTERCOM_CONFIG": str(self.config),
            "RUNTIME_DIRECTORY": str(self.folder),
            "STATE_DIRECTORY": str(self.folder),
        }

    def write_settings(self) -> None:
        """Write the settings file and the password beside it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(self._text)
        secret = self.folder / "door.secret"
        secret.touch(mode=0o600)
        secret.write_text(self._password + "\n")

    def start(self) -> None:
        """Start the station; blocks until its control socket answers, at most 10 s.

        Raises:
            ProgramError: it does not start.
        """
        self.write_settings()
        self._steps, self._next, self._ended = [], 0, False
        self._program = Program(
            [*self._prefix, _COMMAND, "run"], self.folder / "station.log", self.environment
        )
        self._reader = threading.Thread(target=self._read, name="station steps", daemon=True)
        self._reader.start()
        with self._news:
            self._news.wait_for(lambda: self._steps or self._ended, 10.0)
        if not self._steps:
            self.stop()
            raise ProgramError(
                f"the station does not start; the end of {self.folder}/station.log:\n{self._tail}"
            )

    def stop(self) -> int | None:
        """End the station as systemd does; its exit code, or None when it did not run."""
        if self._program is None:
            return None
        program, self._program = self._program, None
        self._tail = program.tail()
        with suppress(ProcessLookupError):
            program.signal(signal.SIGTERM)
        code = None
        with suppress(ProgramError):
            code = program.wait(5.0)
        program.stop()
        if self._reader is not None:
            self._reader.join()
            self._reader = None
        return code

    def ask(self, method: str, target: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request of the control interface; raises as `client.ask` does."""
        return client.ask(self.socket, method, target, body)

    def status(self) -> dict[str, Any]:
        """What `intercom status --json` shows."""
        return self.ask("GET", "/status")

    def press(self, button: str = "bell") -> None:
        """Press a button; the simulated contact closes for a tenth of a second."""
        self.ask("POST", "/press", {"button": button})

    def wait_step(self, wanted: Callable[[Step], bool], timeout: float = 10.0, what: str = "") -> Step:
        """Block for the next step that is wanted; steps before it are skipped for good.

        Raises:
            ProgramError: none came within the time, or the station has ended.
        """
        deadline = time.monotonic() + timeout
        with self._news:
            first = self._next
            while True:
                while self._next < len(self._steps):
                    self._next += 1
                    if wanted(self._steps[self._next - 1]):
                        return self._steps[self._next - 1]
                left = deadline - time.monotonic()
                if self._ended or left <= 0 or not self._news.wait(left):
                    break
            seen = "; ".join(f"{step['event']['type']} -> {step['after']}" for step in self._steps[first:])
        raise ProgramError(
            f"the station took no step {what} within {timeout:g} s, but: {seen or 'none'}; "
            f"the end of its log:\n{self.program.tail()}"
        )

    def wait_event(self, kind: str, timeout: float = 10.0, **fields: Any) -> Step:
        """Block for the next step that an event of this kind caused, with these fields."""

        def wanted(step: Step) -> bool:
            event = step["event"]
            return event["type"] == kind and all(event[name] == value for name, value in fields.items())

        return self.wait_step(wanted, timeout, f"for {kind} {fields or ''}")

    def wait_action(self, kind: str, timeout: float = 10.0) -> dict[str, Any]:
        """Block for the next step with an action of this kind; the action, with the step's time as `at`."""
        step = self.wait_step(
            lambda step: any(action["type"] == kind for action in step["actions"]), timeout, f"with {kind}"
        )
        action = next(action for action in step["actions"] if action["type"] == kind)
        return {**action, "at": step["at"]}

    def wait_state(self, state: str, timeout: float = 10.0) -> Step:
        """Block for the next step that leaves the station in this state, such as "Talking"."""
        return self.wait_step(lambda step: step["after"] == state, timeout, f"into {state}")

    def wait_registered(self, timeout: float = 10.0) -> None:
        """Block until the registrar has accepted the station, and its own guardian has the doors."""
        self.program.wait_for("registered for", timeout)
        if "INTERCOM_GUARDIAN" not in self._environment:
            wait_until(lambda: not any(part.startswith("door ") for part in self.status()["faults"]), timeout)

    _tail = ""

    def _read(self) -> None:
        """Follow the steps from the moment the socket answers until the station ends."""
        program = self.program
        while program.running:
            try:
                for step in client.follow(self.socket, "/watch"):
                    with self._news:
                        if "event" in step:
                            self._steps.append(step)
                        else:
                            self._steps.append(
                                {"event": {"type": "Watching"}, "after": "Idle", "actions": [], "at": 0}
                            )
                        self._news.notify_all()
                break
            except client.NotRunning:
                threading.Event().wait(0.02)  # nothing tells that a socket has come to be
            except OSError:
                break
        with self._news:
            self._ended = True
            self._news.notify_all()
