"""What systemd is told, over a real socket."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from intercom.system.notify import notify, watchdog_seconds
from tests.fakes import TIME_LIMIT


@pytest.fixture
def supervisor() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(TIME_LIMIT)
        yield listening


def test_a_message_arrives(
    supervisor: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    notify("READY=1")
    assert supervisor.recv(100) == b"READY=1"


def test_a_message_arrives_on_an_abstract_socket(
    supervisor: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"intercom-test-{os.getpid()}"
    supervisor.bind(f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    notify("WATCHDOG=1")
    assert supervisor.recv(100) == b"WATCHDOG=1"


def test_nobody_is_told_without_a_supervisor(
    supervisor: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor.bind(str(tmp_path / "notify"))
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    supervisor.setblocking(False)
    with pytest.raises(BlockingIOError):
        supervisor.recv(100)


@pytest.mark.parametrize("address", ["/nowhere/notify", "/", "x" * 300, "@" + "x" * 300, "relative"])
def test_a_supervisor_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


def test_a_supervisor_that_does_not_listen_does_not_block(
    supervisor: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    for _ in range(5000):
        notify("WATCHDOG=1")
    supervisor.setblocking(False)
    arrived = 0
    with contextlib.suppress(BlockingIOError):
        while supervisor.recv(100) == b"WATCHDOG=1":
            arrived += 1
    assert 0 < arrived < 5000


@pytest.mark.parametrize(
    ("microseconds", "process", "seconds"),
    [
        ("20000000", None, 20.0),
        ("500000", "own", 0.5),
        ("20000000", "another", None),
        ("20000000", "", None),
        ("0", None, None),
        ("", None, None),
        ("-5", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_how_often_systemd_wants_to_hear_that_we_live(
    monkeypatch: pytest.MonkeyPatch, microseconds: str | None, process: str | None, seconds: float | None
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if microseconds is not None:
        monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    if process is not None:
        own = str(os.getpid())
        monkeypatch.setenv("WATCHDOG_PID", {"own": own, "another": f"{own}0"}.get(process, process))
    assert watchdog_seconds() == seconds
