"""Our SIP server, started for a demonstration or a test: the product's own configuration and users.

Rule: everything it writes lies in one folder, and the folder alone is enough to start it again.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploy.demo.account import Account, Transport
from deploy.demo.program import Program, ProgramError, free_port, wait_until
from deploy.demo.stranger import Stranger
from intercom.site import control
from intercom.site.server import command, in_place, open_users, prepare
from intercom.site.settings import Digest, SiteSettings

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
        sections: further settings, as the sections of `site.toml`: `limits={"requests_per_second": 5}`.

    Raises:
        ValidationError: a section is wrong.
    """

    def __init__(
        self,
        folder: Path,
        realm: str = "site.example",
        users: Mapping[str, str] | None = None,
        *,
        algorithm: Digest = "MD5",
        address: str = "127.0.0.1",
        port: int | None = None,
        remembers: bool = True,
        **sections: Mapping[str, Any],
    ) -> None:
        self.folder = folder.resolve()
        self.realm = realm
        self.users = dict(users or {})
        self.algorithm = algorithm
        self.address = address
        self.port = port or free_port(address)
        self.log = self.folder / "site.log"
        listen = {"addresses": [address], "port": self.port, **sections.pop("listen", {})}
        own = {"domain": realm, "digest": algorithm, "remembers": remembers}
        self.settings = SiteSettings.model_validate({"site": own, "listen": listen, **sections})
        self.store = open_users(self.folder, self.settings)
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
        server = f"{self.address}:{self.settings.listen.port_of(transport)}"
        return Account(user, self.users[user], self.realm, server, transport)

    def start(self) -> None:
        """Start the server; blocks until it answers, at most 10 s.

        Raises:
            ProgramError: it ended at once, or does not answer.
        """
        configuration = self._prepare()
        self._program = Program(command(self.folder, configuration), self.log, folder=self.folder)
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
        """One JSON-RPC request to the running server; blocks for its reply.

        Raises:
            ProgramError: no reply within `timeout` seconds.
        """
        try:
            return control.request(self.folder, method, *parameters, timeout=timeout)
        except control.NotRunning as error:
            raise ProgramError(str(error)) from error

    def reload(self) -> None:
        """Let the running server read its users again.

        Raises:
            ProgramError: it does not answer, or cannot read them.
        """
        try:
            control.reload(self.folder)
        except (control.NotRunning, control.Denied) as error:
            raise ProgramError(str(error)) from error

    def _prepare(self) -> Path:
        with self.store.together():
            known = set(self.store.names())
            for name in known - set(self.users):
                self.store.remove(name)
            for name, password in self.users.items():
                keep = self.store.set_password if name in known else self.store.add
                keep(name, password, digest=self.algorithm)
        prepare(self.folder, self.settings)
        configuration = in_place(self.folder)
        assert configuration is not None, "it was put there"
        return configuration

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
        return options.code == 200 and (self.folder / "control.sock").exists()
