"""A STUN and TURN server for a demonstration or a test: coturn with one user, on loopback.

Rule: everything it writes lies in one folder; it reads no file of the system.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.demo.program import Program, ProgramError, free_port


class RelayServer:
    """A server that tells addresses (STUN) and relays sound (TURN), over UDP and TCP.

    Args:
        folder: for its log and database; created when missing.

    Attributes:
        place: `address:port` that it listens on.
    """

    USER, PASSWORD = "door", "relay-secret"

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.port = free_port()
        self.place = f"127.0.0.1:{self.port}"
        self._program: Program | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def program(self) -> Program:
        """Its process.

        Raises:
            ProgramError: it does not run.
        """
        if self._program is None:
            raise ProgramError(f"the relay in {self.folder} is not started")
        return self._program

    def settings(self, *, stun: bool = True, transport: str = "udp") -> str:
        """The station's settings that make it use this server, as TOML; the password is in `turn.secret`.

        Of two stations on loopback none should use STUN: pjsip offers no address of loopback by itself, and
        takes an offer with that of STUN alone for a broken one.
        """
        asks = f'stun = "{self.place}"\n' if stun else ""
        return (
            f"[network]\nice = true\n{asks}"
            f'[network.turn]\nserver = "{self.place}"\nusername = "{self.USER}"\n'
            f'password_file = "turn.secret"\ntransport = "{transport}"\n'
        )

    def start(self) -> None:
        """Start it; it answers when this returns.

        Raises:
            ProgramError: it does not start.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        options = ["-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={self.port}"]
        options += ["--allow-loopback-peers", "--no-cli", "--no-tls", "--no-dtls", "--fingerprint"]
        options += ["--lt-cred-mech", f"--user={self.USER}:{self.PASSWORD}", "--realm=site.example"]
        options += ["--verbose", "--log-file=stdout", "--simple-log", "--no-rfc5780"]
        options += [f"--userdb={self.folder}/turn.db", f"--pidfile={self.folder}/turn.pid"]
        self._program = Program(["turnserver", *options], self.folder / "relay.log", folder=self.folder)
        self._program.wait_for("listener opened on: 127.0.0.1", 10.0)

    def freeze(self) -> None:
        """Have it say nothing, as a machine that hangs."""
        os.kill(self.program.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.program.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it. Harmless when it does not run."""
        if self._program is not None:
            self.thaw()
            self._program.stop()
            self._program = None
