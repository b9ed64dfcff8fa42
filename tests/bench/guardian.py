"""The guardian of the doors: how exactly it locks, and how soon when the service or it dies or hangs.

Rule: a time lies between two readings of the monotonic clock: of what was done to a process, and of the line,
which writes each level with its time. Priorities are those of the units.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import product
from pathlib import Path

from deploy.demo.account import Account
from deploy.demo.program import free_port, wait_until
from deploy.demo.station import Station, settings
from intercom.control.client import Denied
from tests.bench import proc
from tests.bench.rows import Row, percentile
from tests.guarding import FRONT, Guardian, doors
from tests.system.test_watchdog import frozen

GUARDIAN_NICE, SERVICE_NICE = -15, -10
RELEASES, TURNS, STARTS = 20, 10, 5
SHORT, LONG = 0.5, 30.0
LATE_MS, FED_MS, KILLED_MS = 50, 1000, 100
TOGETHER = 100


def measure(folder: Path) -> Iterator[Row]:
    folder.mkdir()
    yield from _made_of(folder)
    yield from _boots(folder)
    yield from _exact(folder)
    yield from _together(folder)
    yield from _deaths(folder)
    yield from _own_death(folder)


@contextmanager
def _guarded(folder: Path, release_seconds: float) -> Iterator[tuple[Station, Guardian]]:
    """The service and its guardian, each a process of its own as on the device."""
    door = {"name": "front", "pin": FRONT, "release_seconds": release_seconds, "duty_percent": 100}
    folder.mkdir()
    nobody = Account("door", "a password", "site.example", f"127.0.0.1:{free_port()}", "udp")
    text = settings(nobody, [("sip:flat1@site.example", 20)], release_seconds=release_seconds)
    with Guardian(folder, doors(door)) as guardian:
        _priority(guardian.program.pid, GUARDIAN_NICE)
        environment = {"INTERCOM_GUARDIAN": str(guardian.path)}
        with Station(folder / "door", "a password", text, environment) as station:
            _priority(station.program.pid, SERVICE_NICE)
            assert wait_until(lambda: "front" in station.status()["panel"]["doors"], 10)
            yield station, guardian


def _priority(pid: int, nice: int) -> None:
    with suppress(PermissionError):  # only root may; the figures are then those of an ordinary process
        os.setpriority(os.PRIO_PROCESS, pid, nice)


def _made_of(folder: Path) -> Iterator[Row]:
    count = "import sys, hardware.guardian; print(len(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True, check=True)
    yield Row("guardian: modules, Python's own counted", int(ran.stdout), "", 120)
    took = []
    for turn in range(STARTS):
        (folder / f"start{turn}").mkdir()
        with Guardian(folder / f"start{turn}", doors({"name": "front", "pin": FRONT})) as guardian:
            took.append(guardian.trace.levels()[0].at - guardian.began)
            pss = proc.pss_mb(guardian.program.pid)
    yield Row("guardian: start to locked, median", percentile(took, 50) * 1000, "ms", 200)
    yield Row("guardian: PSS", pss, "MB", 12)


def _boots(folder: Path) -> Iterator[Row]:
    """In each way of wiring: start, stop, start; a pulse is a level that lets people in."""
    pulses = 0
    for turn, (active_high, to) in enumerate(product((True, False), ("open", "lock"))):
        door = {"name": "front", "pin": FRONT, "active_high": active_high, "energise_to": to}
        (folder / f"boot{turn}").mkdir()
        with Guardian(folder / f"boot{turn}", doors(door)) as guardian:
            for _ in range(2):
                guardian.program.signal(signal.SIGTERM)
                guardian.program.wait(5)
                guardian.start()
        opens = active_high == (to == "open")
        pulses += sum(change.level == opens for change in guardian.trace.levels())
    yield Row("3 starts and ends in 4 wirings: pulses", pulses, "", 0)


def _exact(folder: Path) -> Iterator[Row]:
    with _guarded(folder / "exact", SHORT) as (station, guardian):
        waits, energised = [], []
        for turn in range(RELEASES):
            asked = time.monotonic()
            station.ask("POST", "/open", {})
            *_, opened, locked = guardian.trace.wait(3 + 2 * turn)
            waits.append((opened.at - asked) * 1000)
            energised.append((locked.at - opened.at) * 1000)
            station.wait_event("StrikeMoved", released=False)
    yield Row("control socket to strike: median", percentile(waits, 50), "ms")
    yield Row("control socket to strike: p99", percentile(waits, 99), "ms", 300)
    yield Row(f"{RELEASES} releases of {SHORT} s: most off", _most_off(energised), "ms", LATE_MS)
    yield Row(f"{RELEASES} releases of {SHORT} s: most past", _most_past(energised), "ms", 0)


def _together(folder: Path) -> Iterator[Row]:
    def ask(_: int) -> None:
        with suppress(Denied):  # "already released" to all but the first
            station.ask("POST", "/open", {})

    with _guarded(folder / "together", LONG / 10) as (station, guardian):
        with ThreadPoolExecutor(20) as people:
            list(people.map(ask, range(TOGETHER)))
        levels = guardian.trace.wait(3)
        station.wait_event("StrikeMoved", released=False)
    yield Row(f"{TOGETHER} requests at once: energised", sum(change.level for change in levels), "times", 1)
    yield Row("the same: off", _most_off([(levels[2].at - levels[1].at) * 1000], LONG / 10), "ms", LATE_MS)

    (folder / "orders").mkdir()
    door = {"name": "front", "pin": FRONT, "release_seconds": SHORT}
    with Guardian(folder / "orders", doors(door)) as guardian:
        _priority(guardian.program.pid, GUARDIAN_NICE)
        services = [guardian.ordered() for _ in range(4)]
        for number in range(TOGETHER):
            services[number % 4].say("release", "front", number, 3600)
        levels = guardian.trace.wait(3)
    energised = [(levels[2].at - levels[1].at) * 1000]
    yield Row(f"{TOGETHER} orders of 3600 s to the guardian: past the limit", _most_past(energised), "ms", 0)


def _deaths(folder: Path) -> Iterator[Row]:
    """Time to lock with a long release, and whether a short one is ever exceeded."""
    ways: dict[str, tuple[Callable[[Station], object], int]] = {
        "killed (SIGKILL)": (lambda station: station.program.signal(signal.SIGKILL), KILLED_MS),
        "stopped (SIGSTOP)": (lambda station: os.kill(station.program.pid, signal.SIGSTOP), FED_MS + LATE_MS),
        "its loop blocked": (lambda station: frozen(station.program.pid), FED_MS + LATE_MS),
    }
    for way, (harm, limit) in ways.items():
        turns = TURNS if limit == KILLED_MS else STARTS
        taken, energised = [], []
        for turn in range(turns):
            with _guarded(folder / f"{way} {turn}", LONG) as (station, guardian):
                taken.append(_harmed(station, guardian, harm))
        for turn in range(3):
            with _guarded(folder / f"{way} short {turn}", SHORT) as (station, guardian):
                _harmed(station, guardian, harm)
                _, opened, locked = guardian.trace.levels()
                energised.append((locked.at - opened.at) * 1000)
        yield Row(f"the service {way}: worst of {turns} to locked", max(taken), "ms", limit)
        yield Row(f"the service {way}: most past the limit", _most_past(energised), "ms", 0)


def _harmed(station: Station, guardian: Guardian, harm: Callable[[Station], object]) -> float:
    station.ask("POST", "/open", {})
    station.wait_event("StrikeMoved", released=True)
    harmed = time.monotonic()
    done = harm(station)
    if isinstance(done, AbstractContextManager):
        with done:
            guardian.trace.wait(3)
    else:
        guardian.trace.wait(3)
    with suppress(ProcessLookupError):
        os.kill(station.program.pid, signal.SIGCONT)
    return (guardian.trace.levels()[-1].at - harmed) * 1000


def _own_death(folder: Path) -> Iterator[Row]:
    """Killed, and its stop hook run at once, as systemd does."""
    taken = []
    for turn in range(STARTS):
        (folder / f"own{turn}").mkdir()
        with Guardian(folder / f"own{turn}", doors({"name": "front", "pin": FRONT})) as guardian:
            service = guardian.ordered()
            service.say("release", "front", 1, 5)
            service.hear()
            killed = time.monotonic()
            guardian.program.signal(signal.SIGKILL)
            guardian.program.wait(5)
            subprocess.run(guardian.stop_hook, env={**os.environ, **guardian.environment}, check=True)
            taken.append((guardian.trace.levels()[-1].at - killed) * 1000)
    yield Row(f"the guardian killed, its stop hook: worst of {STARTS} to locked", max(taken), "ms", 500)


def _most_off(energised: list[float], seconds: float = SHORT) -> float:
    return max(abs(each - seconds * 1000) for each in energised)


def _most_past(energised: list[float]) -> float:
    return max(0.0, max(energised) - SHORT * 1000)
