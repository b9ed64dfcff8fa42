"""The real service under a supervisor's eyes: what it tells, and when it stops telling.

A single thread is stopped with ptrace(2), from outside: the service has no part in it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.demo.phone import Phone
from deploy.demo.program import wait_until
from deploy.demo.site import Site
from deploy.demo.station import Station, settings

WATCHDOG_SECONDS = 0.4
STOP_SECONDS = 3.0
COMMAND = Path(sys.executable).parent / "intercom"
USERS = {"door": "door-secret", "flat1": "flat1-secret"}

_EPOLL_WAITS = {"x86_64": {232, 281, 441}, "aarch64": {22, 441}}
_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_WAIT_FOR_THREAD = 0x40000000  # __WALL


class Supervisor:
    """systemd's end of the notification socket (sd_notify(3))."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    @property
    def environment(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": str(self.path), "WATCHDOG_USEC": str(round(WATCHDOG_SECONDS * 1e6))}

    def hear(self, seconds: float) -> str | None:
        """The next message, or None if none comes in that time."""
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(4096).decode()
        except TimeoutError:
            return None

    def wait_for(self, message: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        heard = []
        while (left := deadline - time.monotonic()) > 0:
            heard.append(self.hear(left))
            if heard[-1] == message:
                return
        pytest.fail(f"no {message} within {seconds:g} s, but {heard}")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path / "notify")
    yield supervisor
    supervisor.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "site", users=USERS) as site:
        yield site


@pytest.fixture
def station(tmp_path: Path, site: Site, supervisor: Supervisor) -> Iterator[Station]:
    text = settings(site.account("door"), [(site.uri("flat1"), 20)])
    with Station(tmp_path / "door", USERS["door"], text, supervisor.environment) as station:
        station.wait_registered()
        yield station


def sip_thread(pid: int) -> int:
    """The one thread that waits in epoll: pjsip's. The event loop waits in select."""
    waits = _EPOLL_WAITS[os.uname().machine]

    def waiting() -> list[int]:
        found = []
        for task in Path(f"/proc/{pid}/task").iterdir():
            call = (task / "syscall").read_text().split()[0]
            if call.isdigit() and int(call) in waits:
                found.append(int(task.name))
        return found

    assert wait_until(lambda: len(waiting()) == 1, 5.0), waiting()
    return waiting()[0]


@contextmanager
def frozen(thread: int) -> Iterator[None]:
    """Stop one thread of a child process, and let it go on."""
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    ptrace.restype = ctypes.c_long

    def ask(request: int) -> None:
        if ptrace(request, thread, None, None) == -1:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    ask(_SEIZE)
    ask(_INTERRUPT)
    os.waitpid(thread, _WAIT_FOR_THREAD)
    try:
        yield
    finally:
        ask(_DETACH)


def test_feeds(station: Station, supervisor: Supervisor) -> None:
    assert supervisor.hear(5.0) == "READY=1"
    for _ in range(10):
        assert supervisor.hear(WATCHDOG_SECONDS) == "WATCHDOG=1"


def test_sip_blocked(station: Station, supervisor: Supervisor) -> None:
    supervisor.wait_for("WATCHDOG=1", 5.0)
    with frozen(sip_thread(station.program.pid)):
        while supervisor.hear(WATCHDOG_SECONDS) is not None:  # said before it froze
            pass
        assert supervisor.hear(5 * WATCHDOG_SECONDS) is None
        assert station.status()["state"] == "idle", "the event loop was to be alive"
    supervisor.wait_for("WATCHDOG=1", 2.0)


def test_sip_unblocked_by_then(station: Station, supervisor: Supervisor) -> None:
    """A short stall is no reason for a restart: the feed goes on, once."""
    supervisor.wait_for("WATCHDOG=1", 5.0)
    with frozen(sip_thread(station.program.pid)):
        while supervisor.hear(WATCHDOG_SECONDS) is not None:
            pass
    for _ in range(3):
        assert supervisor.hear(WATCHDOG_SECONDS) == "WATCHDOG=1"


def test_loop_blocked(station: Station, supervisor: Supervisor) -> None:
    supervisor.wait_for("WATCHDOG=1", 5.0)
    with frozen(station.program.pid):
        while supervisor.hear(WATCHDOG_SECONDS) is not None:
            pass
        assert supervisor.hear(3 * WATCHDOG_SECONDS) is None
    supervisor.wait_for("WATCHDOG=1", 2.0)


def test_stops_in_a_call(station: Station, site: Site, supervisor: Supervisor, tmp_path: Path) -> None:
    with Phone(tmp_path / "flat1", site.account("flat1"), answer="auto") as phone:
        phone.wait_registered()
        station.press()
        phone.wait_established()
        station.wait_state("Talking")
        began = time.monotonic()
        station.program.signal(signal.SIGTERM)
        assert station.program.wait(STOP_SECONDS) == 0
        assert time.monotonic() - began < STOP_SECONDS
        supervisor.wait_for("STOPPING=1", 1.0)
        phone.wait_closed(1.0)
    assert site.registered("door") == []


def test_stops_with_a_dead_registrar(station: Station, site: Site, supervisor: Supervisor) -> None:
    site.freeze()
    station.program.signal(signal.SIGTERM)
    assert station.program.wait(STOP_SECONDS) == 0
    supervisor.wait_for("STOPPING=1", 1.0)


def _lock(station: Station) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **station.environment}
    return subprocess.run([COMMAND, "lock"], env=environment, capture_output=True, text=True, check=False)


def test_lock_after_kill(station: Station) -> None:
    station.ask("POST", "/open", {})
    station.program.kill()
    done = _lock(station)
    assert (done.returncode, done.stderr) == (0, "")


def test_lock_without_the_password(station: Station, tmp_path: Path) -> None:
    """systemd hides the credentials of a service from its stop hook, and the file is root's."""
    station.program.kill()
    (tmp_path / "door" / "door.secret").unlink()
    done = _lock(station)
    assert (done.returncode, done.stderr) == (0, "")


def test_wrong_settings(tmp_path: Path, supervisor: Supervisor) -> None:
    """Exit code 2, which the unit does not restart, and nothing that looks like a start."""
    file = tmp_path / "intercom.toml"
    file.write_text("[station]\nnam = 'x'\n")
    environment = {**os.environ, **supervisor.environment}
    done = subprocess.run(
        [COMMAND, "run", "--config", file], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert supervisor.hear(0.1) is None
