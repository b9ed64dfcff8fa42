"""A child process is watched closely and always ended."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from deploy.demo.program import Program, ProgramError, free_port, free_ports, wait_until
from deploy.demo.sipp import Sipp

ROOT = Path(__file__).parents[3]


def shell(tmp_path: Path, script: str) -> Program:
    return Program(["sh", "-c", script], tmp_path / "log")


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_wait_for_a_line(tmp_path: Path) -> None:
    with shell(tmp_path, "echo port 17; echo port 18; read forever < /dev/zero") as program:
        assert program.wait_for(r"port (\d+)", 5)[1] == "17"
        program.wait_for("port 18", 5)
        with pytest.raises(ProgramError, match=r"within 0\.1 s"):
            program.wait_for("port", 0.1, since=program.mark)


def test_a_death_is_told_at_once_with_the_last_lines(tmp_path: Path) -> None:
    with shell(tmp_path, "echo no such card >&2; exit 3") as program:
        with pytest.raises(ProgramError, match=r"ended before it said 'ready'(?s:.*)no such card"):
            program.wait_for("ready", 60)
        assert program.wait(1) == 3
    assert (tmp_path / "log").read_text() == "no such card\n"


def test_a_program_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program is not installed"):
        Program(["no-such-program"], tmp_path / "log")


def test_a_mistake_in_a_scenario_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="sipp did not start"):
        Sipp(tmp_path / "sipp", "<scenario><send></scenario>").start()


def test_stop_ends_what_does_not_want_to_and_its_children(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 1000 & echo child $!; while :; do wait; done"
    program = shell(tmp_path, script)
    child = int(program.wait_for(r"child (\d+)", 5)[1])
    program.stop(patience=0.1)
    assert not program.running
    assert wait_until(lambda: not alive(child), 2)


def test_a_frozen_program_is_stopped(tmp_path: Path) -> None:
    program = shell(tmp_path, "echo up; sleep 1000")
    program.wait_for("up", 5)
    program.signal(signal.SIGSTOP)
    program.stop()
    assert not program.running


def test_the_program_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from deploy.demo.site import Site\n"
        f"site = Site(Path({str(tmp_path / 'site')!r})); site.start(); print('site', site.program.pid)\n"
        "import signal; signal.pause()"
    )
    with Program([sys.executable, "-uc", script], tmp_path / "log", {"PYTHONPATH": str(ROOT)}) as parent:
        pid = int(parent.wait_for(r"site (\d+)", 10)[1])
        assert alive(pid)
        os.kill(parent.pid, signal.SIGKILL)
        assert wait_until(lambda: not alive(pid), 5)


def test_ports_are_free_and_given_once() -> None:
    first = free_ports(3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        udp.bind(("127.0.0.1", first + 2))
        tcp.bind(("127.0.0.1", first + 2))
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
    assert not set(ports) & {first, first + 1, first + 2}
