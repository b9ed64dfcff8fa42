"""SIPp: phones and callers that follow a script, and floods.

Rule: the script decides; what came of it is counted by SIPp and read from its own statistics file.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.demo.program import Program, ProgramError, free_port, free_ports, udp_port_open, wait_until

_MEDIA_PORTS = 4  # sound and video, RTP and RTCP
_BUFFER = "1000000"  # bytes of its socket; SIPp's own choice overflows when 30 messages come at once


@dataclass(frozen=True)
class Counts:
    """How many calls were begun, went as the script says, and did not; and how many a second were begun."""

    begun: int
    successful: int
    failed: int
    rate: float


class Sipp:
    """One SIPp process with one scenario.

    Args:
        folder: for its scenario, log and statistics; one per process, created when missing.
        scenario: XML text (see `scenarios`), or the path of a file.
        target: `address:port` that a caller sends to; None for a scenario that begins with receiving.
        calls: after so many it ends by itself.
        rate: new calls a second.
        source: IPv4 address to send from and listen on.
        port: its SIP port; a free one when None.
        echoes: send back every sound that arrives, so that the other side hears something.
        keeps_messages: write every message to `messages.log` (not for floods).
        together: the most calls at one time; SIPp's own guess from the rate when None.
        lines: what fills `[field0]`, `[field1]` … of the script, with semicolons between them: a line for
            each call in turn, over and over.
    """

    def __init__(
        self,
        folder: Path,
        scenario: str | Path,
        target: str | None = None,
        *,
        calls: int = 1,
        rate: float = 10.0,
        source: str = "127.0.0.1",
        port: int | None = None,
        echoes: bool = False,
        keeps_messages: bool = False,
        together: int | None = None,
        lines: Sequence[str] = (),
    ) -> None:
        self.folder = folder.resolve()
        self.log = self.folder / "sipp.log"
        self.source = source
        self.port = port or free_port(source)
        self._scenario = scenario
        self._target = target
        self._calls = calls
        self._rate = rate
        self._echoes = echoes
        self._keeps_messages = keeps_messages
        self._together = together
        self._lines = lines
        self._program: Program | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def contact(self) -> str:
        """The URI that reaches it."""
        return f"sip:phone@{self.source}:{self.port}"

    @property
    def program(self) -> Program:
        """The SIPp process.

        Raises:
            ProgramError: it is not started.
        """
        if self._program is None:
            raise ProgramError(f"the SIPp in {self.folder} is not started")
        return self._program

    def start(self) -> None:
        """Start the scenario; a phone can take calls when this returns.

        Raises:
            ProgramError: SIPp does not start, as with a mistake in the scenario.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        scenario = self._scenario
        if isinstance(scenario, str):
            text, scenario = scenario, self.folder / "scenario.xml"
            scenario.write_text(text)
        options: list[str | Path] = ["sipp", "-sf", scenario, "-m", str(self._calls), "-r", str(self._rate)]
        options += ["-i", self.source, "-p", str(self.port), "-mi", self.source]
        options += ["-mp", str(free_ports(_MEDIA_PORTS, self.source))]
        options += ["-trace_stat", "-stf", self._statistics, "-fd", "1"]
        options += ["-trace_err", "-error_file", self.folder / "errors.log"]
        options += ["-nostdin", "-skip_rlimit", "-aa", "-buff_size", _BUFFER]
        if self._echoes:
            options.append("-rtp_echo")
        if self._keeps_messages:
            options += ["-trace_msg", "-message_file", self.folder / "messages.log"]
        if self._together is not None:
            options += ["-l", str(self._together)]
        if self._lines:
            fields = self.folder / "fields.csv"
            fields.write_text("\n".join(["SEQUENTIAL", *self._lines]) + "\n")
            options += ["-inf", fields]
        if self._target is not None:
            options.append(self._target)
        self._statistics.unlink(missing_ok=True)
        self._program = Program(options, self.log, folder=self.folder)
        wait_until(lambda: udp_port_open(self.port) or not self.program.running, 5.0)
        # A short scenario may be over already, but not without statistics.
        if not self.program.running and not self._statistics.exists():
            raise ProgramError(f"sipp did not start; the end of {self.log}:\n{self.program.tail()}")

    def wait(self, timeout: float = 30.0) -> Counts:
        """Block until all calls are over, and count them.

        Raises:
            ProgramError: it still runs after `timeout` seconds, or could not run at all.
        """
        self.program.wait(timeout)
        return self.counts()

    def stop(self) -> None:
        """End it, whatever it does. Harmless when it does not run."""
        if self._program is not None:
            self._program.stop()
            self._program = None

    def counts(self) -> Counts:
        """What the statistics say; up to a second old while it runs.

        Raises:
            ProgramError: there are none: SIPp did not get as far.
        """
        if not self._statistics.exists():
            raise ProgramError(
                f"sipp wrote no statistics; the end of {self.log}:\n{self.log.read_text()[-2000:]}"
            )
        with self._statistics.open(newline="") as file:
            last = list(csv.DictReader(file, delimiter=";"))[-1]
        return Counts(
            int(last["TotalCallCreated"]),
            int(last["SuccessfulCall(C)"]),
            int(last["FailedCall(C)"]),
            float(last["CallRate(C)"]),
        )

    @property
    def _statistics(self) -> Path:
        return self.folder / "statistics.csv"
