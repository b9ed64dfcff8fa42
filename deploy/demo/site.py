"""Our SIP server, started for a demonstration or a test: `deploy/site/kamailio.cfg` with its own database.

Rule: everything it writes lies in one folder, and the folder alone is enough to start it again.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import signal
import socket
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from deploy.demo.account import Account, Transport
from deploy.demo.program import Program, ProgramError, free_port, wait_until
from deploy.demo.stranger import Stranger

Algorithm = Literal["MD5", "SHA-256"]

_CONFIGURATION = Path(__file__).parent.parent / "site" / "kamailio.cfg"
_SCHEMA = Path("/usr/share/kamailio/db_sqlite")
_START_SECONDS = 10.0


class Site:
    """A registrar and proxy for the users of one domain, listening on UDP and TCP.

    Args:
        folder: for its database, configuration and log; created when missing. A database already there is
            kept, with its locations.
        realm: domain of the users and realm of their passwords.
        users: passwords by user name; the whole list, also for a folder used before.
        algorithm: of the digest authentication.
        address: IPv4 address to listen on.
        port: for UDP and TCP; a free one when None.
        remembers: whether locations outlive the server, in the database.
    """

    def __init__(
        self,
        folder: Path,
        realm: str = "site.example",
        users: Mapping[str, str] | None = None,
        *,
        algorithm: Algorithm = "MD5",
        address: str = "127.0.0.1",
        port: int | None = None,
        remembers: bool = True,
    ) -> None:
        self.folder = folder.resolve()
        self.realm = realm
        self.users = dict(users or {})
        self.algorithm = algorithm
        self.address = address
        self.port = port or free_port(address)
        self.log = self.folder / "site.log"
        self._control = self.folder / "control.sock"
        self._database = self.folder / "site.db"
        self._remembers = remembers
        self._program: Program | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def proxy(self) -> str:
        """Where it listens, as `address:port`."""
        return f"{self.address}:{self.port}"

    @property
    def program(self) -> Program:
        """The server process.

        Raises:
            ProgramError: it is not started.
        """
        if self._program is None:
            raise ProgramError(f"the site in {self.folder} is not started")
        return self._program

    def uri(self, user: str) -> str:
        """Address of record of a user."""
        return f"sip:{user}@{self.realm}"

    def account(self, user: str, transport: Transport = "udp") -> Account:
        """What a phone or a station must know to be this user."""
        return Account(user, self.users[user], self.realm, self.proxy, transport)

    def start(self) -> None:
        """Start the server; blocks until it answers, at most 10 s.

        Raises:
            ProgramError: it ended at once, or does not answer.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(_CONFIGURATION, self.folder / "kamailio.cfg")
        self._write_settings()
        self._write_users()
        files: list[str | Path] = ["-f", self.folder / "kamailio.cfg", "-Y", self.folder]
        memory = ["-m", "32", "-M", "4"]  # MB, shared and of each process
        self._program = Program(["kamailio", *files, *memory, "-DD", "-E"], self.log, folder=self.folder)
        try:
            self._wait_until_it_answers()
        except ProgramError:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server. Harmless when it does not run."""
        if self._program is not None:
            self._program.stop()
            self._program = None

    def kill(self) -> None:
        """End the server without a chance to write anything, as a power cut does."""
        self.program.kill()
        self._program = None

    def restart(self) -> None:
        """End the server, unless it is dead already, and start it again on the same port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """The server answers nothing and still holds its port, until `thaw()`."""
        self.program.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self.program.signal(signal.SIGCONT)

    def registered(self, user: str) -> list[str]:
        """The contact URIs a user is registered with now; none when he is not registered.

        Raises:
            ProgramError: the server does not answer.
        """
        reply = self.ask("ul.lookup", "location", user)
        if "error" in reply:
            return []
        return [entry["Contact"]["Address"] for entry in reply["result"]["Contacts"]]

    def wait_registered(self, user: str, timeout: float = 10.0, contacts: int = 1) -> list[str]:
        """Block until a user has at least `contacts` contacts, and return them.

        Raises:
            ProgramError: he has fewer after `timeout` seconds, or the server does not answer.
        """
        if not wait_until(lambda: len(self.registered(user)) >= contacts, timeout):
            raise ProgramError(
                f"{user} has fewer than {contacts} contacts after {timeout:g} s; the end of {self.log}:\n"
                + self.program.tail()
            )
        return self.registered(user)

    def place(self, user: str, contact: str) -> None:
        """Register a contact for a user without asking him, for a scripted phone that cannot do it.

        Raises:
            ProgramError: the server refuses.
        """
        # Arguments: table, user, contact, expires (s), q, path, flags, branch flags, methods (all).
        reply = self.ask("ul.add", "location", user, contact, 3600, "1.0", "", 0, 0, 4294967295)
        if "error" in reply:
            raise ProgramError(f"the site does not take {contact} for {user}: {reply['error']}")

    def ask(self, method: str, *parameters: str | int, timeout: float = 5.0) -> dict[str, Any]:
        """One JSON-RPC request to the server's control socket; blocks for its answer.

        Raises:
            ProgramError: no answer within `timeout` seconds.
        """
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        own = self.folder / f"ask-{secrets.token_hex(4)}.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(timeout)
            try:
                channel.bind(str(own))
                channel.sendto(json.dumps(request).encode(), str(self._control))
                reply: dict[str, Any] = json.loads(channel.recv(1 << 20))
            except OSError as error:
                raise ProgramError(f"the site does not answer {method}: {error}") from error
            finally:
                with suppress(FileNotFoundError):
                    own.unlink()
        return reply

    def _write_settings(self) -> None:
        key = self.folder / "dialog.key"
        if not key.exists():
            _write_secret(key, secrets.token_hex(16))
        settings = {
            "LISTEN_UDP": f"udp:{self.proxy}",
            "LISTEN_TCP": f"tcp:{self.proxy}",
            "REALM": f'"{self.realm}"',
            "ALGORITHM": f'"{self.algorithm}"',
            "DB_URL": f'"sqlite:///{self._database}"',
            "LOCATION_DB_MODE": "1" if self._remembers else "0",
            "DIALOG_KEY": f'"{key.read_text()}"',
            "CONTROL": f'"{self._control}"',
        }
        text = "".join(f"#!define {name} {value}\n" for name, value in settings.items())
        _write_secret(self.folder / "site.cfg", text)

    def _write_users(self) -> None:
        fresh = not self._database.exists()
        if fresh:
            _write_secret(self._database, "")
        with closing(sqlite3.connect(self._database)) as database, database:
            if fresh:
                # With a write-ahead log the server's processes do not lock each other out.
                database.execute("PRAGMA journal_mode = WAL")
                for part in ("standard", "auth_db", "usrloc"):
                    database.executescript((_SCHEMA / f"{part}-create.sql").read_text())
            database.execute("DELETE FROM subscriber")
            database.executemany(
                "INSERT INTO subscriber (username, domain, ha1) VALUES (?, ?, ?)",
                [
                    (user, self.realm, ha1(user, self.realm, password, self.algorithm))
                    for user, password in self.users.items()
                ],
            )

    def _wait_until_it_answers(self) -> None:
        if not wait_until(lambda: not self.program.running or self._answers(), _START_SECONDS):
            raise ProgramError(f"the site does not answer; the end of {self.log}:\n{self.program.tail()}")
        if not self.program.running:
            raise ProgramError(f"the site ended at its start; the end of {self.log}:\n{self.program.tail()}")

    def _answers(self) -> bool:
        """OPTIONS and the control socket: the port is open before the workers are ready."""
        with Stranger(self.proxy, self.address) as somebody:
            try:
                options = somebody.ask("OPTIONS", f"sip:{self.proxy}", timeout=0.1)
            except (TimeoutError, ConnectionRefusedError):
                return False
        return options.code == 200 and self._control.exists()


def ha1(user: str, realm: str, password: str, algorithm: Algorithm = "MD5") -> str:
    """The digest a server stores instead of the password (RFC 3261 22.4, RFC 8760)."""
    text = f"{user}:{realm}:{password}".encode()
    return hashlib.new("md5" if algorithm == "MD5" else "sha256", text).hexdigest()


def _write_secret(path: Path, text: str) -> None:
    path.touch(0o600)
    path.write_text(text)
