"""A child process whose output can be waited for, and free ports for it to listen on.

Rule: a process started here is ended here, by its pid, with everything it has started. It also ends
when the Python process dies without a word.
"""

from __future__ import annotations

import os
import re
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

LINES_KEPT = 5000
LINES_SHOWN = 20


class ProgramError(RuntimeError):
    """A program died, or did not say in time what was waited for; the text holds its last lines."""


class Program:
    """A running child process, in a process group of its own, with its output in a file.

    It runs from construction to `stop()`. It gets SIGTERM when the *thread* that constructed it ends, so
    construct it in a thread that lives as long as the program shall.

    Args:
        command: program and arguments.
        log: file that takes standard output and standard error, appended to.
        environment: variables added to our own environment.
        folder: working directory.
        listener: called with each line, and with None after the last; in the thread that reads them.
        takes_input: whether `say()` can be used; otherwise the program reads nothing.

    Raises:
        FileNotFoundError: the program is not installed.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        listener: Callable[[str | None], None] | None = None,
        takes_input: bool = False,
    ) -> None:
        # Servers lie in /usr/sbin, which an ordinary user's PATH leaves out.
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
        program = shutil.which(command[0], path=path)
        if program is None:
            raise FileNotFoundError(f"{command[0]} is not installed")
        self.name = Path(program).name
        self.log = log
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._count = 0
        self._listener = listener
        self._ended = False
        self._swept = False
        self._news = threading.Condition()
        # setpriv executes the program in its own place, so the pid stays the same. The shell-free way to
        # PR_SET_PDEATHSIG: a preexec_fn is not safe in a process with threads.
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", program, *map(str, command[1:])],
            stdin=subprocess.PIPE if takes_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=folder,
            process_group=0,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), name=f"{self.name} output", daemon=True
        )
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id, which is also the id of the process group."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        if self._process.poll() is None:
            return True
        self._sweep()
        return False

    @property
    def mark(self) -> int:
        """How many lines were read so far; hand it to `wait_for` to look only at later lines."""
        with self._news:
            return self._count

    def tail(self, lines: int = LINES_SHOWN) -> str:
        """The last lines of the output."""
        with self._news:
            return "\n".join(list(self._lines)[-lines:])

    def wait_for(self, pattern: str, timeout: float, since: int = 0) -> re.Match[str]:
        """Block until a line of the output matches, and return the match.

        Args:
            pattern: regular expression, searched in each line.
            timeout: seconds.
            since: a `mark`; earlier lines do not count.

        Raises:
            ProgramError: no such line within the time, or the process has ended without one.
        """
        expression = re.compile(pattern)
        deadline = time.monotonic() + timeout
        seen = since
        with self._news:
            while True:
                oldest = self._count - len(self._lines)
                for line in list(self._lines)[max(seen - oldest, 0) :]:
                    if match := expression.search(line):
                        return match
                seen = self._count
                if self._ended:
                    raise ProgramError(self._explain(f"ended before it said {pattern!r}"))
                left = deadline - time.monotonic()
                if left <= 0 or not self._news.wait(left):
                    raise ProgramError(self._explain(f"did not say {pattern!r} within {timeout:g} s"))

    def say(self, line: str) -> None:
        """Write a line to its standard input.

        Raises:
            ProgramError: it has ended.
        """
        assert self._process.stdin is not None, "it takes no input"
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ProgramError(self._explain(f"ended before it was told {line!r}")) from None

    def wait(self, timeout: float) -> int:
        """Block until the process ends by itself and return its exit code.

        Raises:
            ProgramError: it still runs after `timeout` seconds.
        """
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ProgramError(self._explain(f"still runs after {timeout:g} s")) from None
        self._sweep()
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole process group; nothing happens when it is gone."""
        if not self._swept:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def stop(self, patience: float = 5.0) -> None:
        """SIGTERM to the program, after `patience` seconds SIGKILL to its group. Blocks until all is gone."""
        if self.running:
            # Only the program itself: a server ends its own workers in order.
            self._process.terminate()
            self.signal(signal.SIGCONT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        self.kill()

    def kill(self) -> None:
        """End the whole group with SIGKILL, frozen or not. Blocks until it is gone."""
        self.signal(signal.SIGKILL)
        self._process.wait()
        self._sweep()

    def _sweep(self) -> None:
        """After the process itself: what it left running in its group, and our reader.

        Once and at once: later the same number may be somebody else's process group.
        """
        self.signal(signal.SIGKILL)
        self._swept = True
        self._reader.join()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def _read(self, output: IO[bytes]) -> None:
        with output, self.log.open("ab") as log:
            for raw in output:
                log.write(raw)
                log.flush()
                line = raw.decode("utf-8", "replace").rstrip()
                with self._news:
                    self._lines.append(line)
                    self._count += 1
                    self._news.notify_all()
                if self._listener is not None:
                    self._listener(line)
        with self._news:
            self._ended = True
            self._news.notify_all()
        if self._listener is not None:
            self._listener(None)

    def _explain(self, what: str) -> str:
        last = "\n".join(list(self._lines)[-LINES_SHOWN:])
        return f"{self.name} {what}; the end of {self.log}:\n{last}"


def wait_until(condition: Callable[[], bool], timeout: float, pause: float = 0.02) -> bool:
    """Ask again every `pause` seconds until it is so, at most `timeout` seconds; returns whether it was.

    Only for what cannot tell us by itself that something has changed.
    """
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as clock:
        while not condition():
            if time.monotonic() > deadline:
                return False
            clock.select(pause)
    return True


def udp_port_open(port: int) -> bool:
    """Whether somebody holds this UDP port, seen without touching it."""
    rows = Path("/proc/net/udp").read_text().splitlines()[1:]
    return any(int(row.split()[1].rpartition(":")[2], 16) == port for row in rows)


# Below the kernel's range for outgoing connections (32768 and up), which would take a port away again.
_PORTS = range(10_000, 32_000)
_reserved: list[socket.socket] = []


def free_ports(count: int, address: str = "127.0.0.1") -> int:
    """The first of `count` consecutive ports, each free for UDP and for TCP on `address`.

    They stay reserved for this process until it ends or `ports_given_back` does, against every other process
    that asks here: one abstract Unix socket per port, in the same network namespace, is the mark.

    Raises:
        OSError: no such row of ports was found.
    """
    for _ in range(1000):
        first = _PORTS.start + secrets.randbelow(len(_PORTS) - count)
        if marks := _reserve(range(first, first + count), address):
            _reserved.extend(marks)
            return first
    raise OSError(f"no {count} consecutive free ports on {address}")


def free_port(address: str = "127.0.0.1") -> int:
    """One port, free for UDP and for TCP on `address`; reserved as in `free_ports`."""
    return free_ports(1, address)


@contextmanager
def ports_given_back() -> Iterator[None]:
    """Free again the ports that are reserved within the context: each costs a file descriptor."""
    before = len(_reserved)
    try:
        yield
    finally:
        for mark in _reserved[before:]:
            mark.close()
        del _reserved[before:]


def _reserve(ports: range, address: str) -> list[socket.socket]:
    marks: list[socket.socket] = []
    try:
        for port in ports:
            mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            marks.append(mark)
            mark.bind(f"\0door-demo-port-{port}")
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind((address, port))
    except OSError:
        for mark in marks:
            mark.close()
        return []
    return marks
