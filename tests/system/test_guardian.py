"""The real service and its guardian: whatever becomes of the one, the other locks, and says what is open."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.demo.account import Account
from deploy.demo.program import free_port, wait_until
from deploy.demo.station import Station, settings
from intercom.control import client
from tests.guarding import FRONT, Guardian, Trace, doors
from tests.system.test_watchdog import COMMAND, frozen

NOBODY = Account("door", "a password", "site.example", f"127.0.0.1:{free_port()}", "udp")
FED_SECONDS = 1.0
LATE = 0.3
"""How late it may be here, in seconds, beside other tests."""


@contextmanager
def serving(folder: Path, release_seconds: float = 30, guardian: Path | None = None) -> Iterator[Station]:
    """A service without a telephone system, and with the guardian at that path or one of its own."""
    text = settings(NOBODY, [("sip:flat1@site.example", 20)], release_seconds=release_seconds)
    trace = Trace(folder / "lines")
    environment = trace.environment | ({} if guardian is None else {"INTERCOM_GUARDIAN": str(guardian)})
    with Station(folder / "door", "a password", text, environment) as station:
        yield station


def open_door(station: Station) -> None:
    assert wait_until(lambda: "front" in station.status()["panel"]["doors"], 5), station.status()
    station.ask("POST", "/open", {})
    station.wait_event("StrikeMoved", released=True)


def faults(station: Station) -> list[str]:
    """What is wrong with the doors; that nobody answers SIP is no matter here."""
    return [why for part, why in station.status()["faults"].items() if part.startswith("door")]


def test_killed(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "lines")
    with serving(tmp_path) as station:
        open_door(station)
        killed = time.monotonic()
        station.program.signal(signal.SIGKILL)
        assert [change.level for change in trace.wait(3)] == [False, True, False]
        assert trace.levels()[-1].at - killed <= LATE
        assert wait_until(lambda: not guardians(tmp_path), 5), "it ends with the service"


def test_stopped_and_then_going_on(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "lines")
    with serving(tmp_path) as station:
        open_door(station)
        os.kill(station.program.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        locked = trace.wait(3)[-1].at
        os.kill(station.program.pid, signal.SIGCONT)
        assert FED_SECONDS / 2 <= locked - stopped <= FED_SECONDS + LATE
        station.wait_event("StrikeMoved", released=False)
        assert station.status()["panel"]["lamps"]["status"]["pattern"] != "door_open"
        open_door(station)


def test_its_loop_blocked(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "lines")
    with serving(tmp_path) as station:
        open_door(station)
        with frozen(station.program.pid):
            blocked = time.monotonic()
            assert trace.wait(3)[-1].at - blocked <= FED_SECONDS + LATE
        station.wait_event("StrikeMoved", released=False)


def test_held_for_as_long_as_the_service_lives(tmp_path: Path) -> None:
    """Longer than the guardian waits without being fed."""
    trace = Trace(tmp_path / "lines")
    with serving(tmp_path, release_seconds=2.5) as station:
        open_door(station)
        _, opened, locked = trace.wait(3)
        assert -0.05 <= locked.at - opened.at - 2.5 <= LATE


def test_the_guardian_killed(tmp_path: Path) -> None:
    """The child of the simulated board comes back by itself, and drives the strike to locked."""
    trace = Trace(tmp_path / "lines")
    with serving(tmp_path) as station:
        open_door(station)
        (guardian,) = guardians(tmp_path)
        os.kill(guardian, signal.SIGKILL)
        station.wait_event("HealthChanged", part="door 'front'", fault="its guardian is gone")
        station.wait_event("StrikeMoved", released=False)
        station.wait_event("HealthChanged", part="door 'front'", fault=None)
        assert trace.levels()[-1].level is False
        open_door(station)


def test_without_a_guardian_the_bell_rings_and_when_it_is_there_the_door_opens(tmp_path: Path) -> None:
    guardian = Guardian(tmp_path, doors({"name": "front", "pin": FRONT, "release_seconds": 30}))
    with serving(tmp_path, guardian=guardian.path) as station:
        why = "its guardian is not there: No such file or directory"
        assert wait_until(lambda: faults(station) == [why], 5), faults(station)
        with pytest.raises(client.Denied, match="cannot be driven: its guardian is not there"):
            station.ask("POST", "/open", {})
        station.press()
        station.wait_action("Dial")
        with guardian:
            station.wait_event("HealthChanged", part="door 'front'", fault=None)
            open_door(station)
            guardian.program.signal(signal.SIGTERM)
            station.wait_event("HealthChanged", part="door 'front'", fault="its guardian is gone")
            station.wait_event("StrikeMoved", released=False)
            assert guardian.trace.levels()[-1].level is False


def test_intercom_lock_ends_a_release(tmp_path: Path) -> None:
    """The door is shown as locked, and can be opened anew."""
    with (
        Guardian(tmp_path, doors({"name": "front", "pin": FRONT, "release_seconds": 30})) as guardian,
        serving(tmp_path, guardian=guardian.path) as station,
    ):
        open_door(station)
        environment = {**os.environ, **station.environment}
        done = subprocess.run([COMMAND, "lock"], env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert guardian.trace.levels()[-1].level is False
        station.wait_event("StrikeMoved", released=False)
        open_door(station)


def test_intercom_lock_says_when_the_guardian_does_not_answer(tmp_path: Path) -> None:
    with (
        Guardian(tmp_path, doors({"name": "front", "pin": FRONT, "release_seconds": 30})) as guardian,
        serving(tmp_path, guardian=guardian.path) as station,
    ):
        open_door(station)
        os.kill(guardian.program.pid, signal.SIGSTOP)
        environment = {**os.environ, **station.environment}
        done = subprocess.run([COMMAND, "lock"], env=environment, capture_output=True, text=True, check=False)
        os.kill(guardian.program.pid, signal.SIGCONT)
        assert done.returncode == 1
        assert "the guardian of the doors does not take the order: timed out; try with sudo" in done.stderr


def guardians(folder: Path) -> list[int]:
    """The guardians that read settings in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"hardware.guardian" in command and str(folder).encode() in b" ".join(command):
            found.append(int(process.name))
    return found
