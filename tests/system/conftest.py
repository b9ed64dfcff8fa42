"""A door whose settings can be spoiled, the real command, and a watch that nothing is left or given away."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.demo.account import Account, Transport
from deploy.demo.program import Program, wait_until
from deploy.demo.site import Site

ROOT = Path(__file__).parents[2]
INTERCOM = (sys.executable, "-c", "from intercom.cli.main import main; main()")
PASSWORD = "planted-password"
CODE = "739150#"
USERS = {"door": PASSWORD, "flat1": "flat1-secret"}

SETTINGS = """\
[station]
board = "simulated"

[[account]]
uri = "{uri}"
registrar = "sip:{proxy};transport={transport}"
username = "{user}"
password_file = "door.secret"

[[button]]
name = "bell"
pin = 17
ring = [{{ to = "sip:flat1@site.example", seconds = 20 }}]

[[lamp]]
name = "status"
pin = 22

[[door]]
name = "front"
pin = 27
release_seconds = 0.5
codes = [{{ dtmf = "{code}" }}]

[sound]
device = "none"
"""


@dataclass(frozen=True)
class Answer:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


@dataclass
class Door:
    """A folder with settings, password, socket and journal of one station."""

    folder: Path
    account: Account
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config = self.folder / "intercom.toml"
        self.secret = self.folder / "door.secret"
        self.socket = self.folder / "control.sock"
        self.secret.touch(0o600)
        self.secret.write_text(f"{PASSWORD}\n")
        self.write(self.account)

    def write(self, account: Account) -> None:
        """Write right settings for an account."""
        self.config.write_text(
            SETTINGS.format(
                uri=account.uri,
                proxy=account.proxy,
                transport=account.transport,
                user=account.user,
                code=CODE,
            )
        )

    def change(self, old: str, new: str) -> None:
        """Change the settings in one place."""
        text = self.config.read_text()
        assert text.count(old) == 1, f"{old!r} is not once in the settings"
        self.config.write_text(text.replace(old, new))

    @property
    def _all(self) -> dict[str, str]:
        places = {
            "INTERCOM_CONFIG": str(self.config),
            "RUNTIME_DIRECTORY": str(self.folder),
            "STATE_DIRECTORY": str(self.folder),
            "PYTHONPATH": str(ROOT),
        }
        return places | self.environment

    def intercom(
        self,
        *arguments: str,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Answer:
        """Run the command to its end; neither the password nor a code may be in what it says."""
        done = subprocess.run(
            [*prefix, *INTERCOM, *arguments],
            env={**os.environ, **self._all, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        said = done.stdout + done.stderr
        assert PASSWORD not in said
        assert CODE.rstrip("#") not in said
        assert "Traceback" not in said
        return Answer(done.returncode, done.stdout, done.stderr)

    def follow(self, *arguments: str) -> Program:
        """Start the command and let it run."""
        return Program([*INTERCOM, *arguments], self.folder / f"{arguments[0]}.log", self._all)

    @contextmanager
    def serving(self, says: str = "registered for") -> Iterator[Program]:
        """`intercom run`, from the moment it is ready and its log has said something."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            supervisor.settimeout(10)
            (self.folder / "notify").unlink(missing_ok=True)  # of the service before
            supervisor.bind(str(self.folder / "notify"))
            environment = {**self._all, "NOTIFY_SOCKET": str(self.folder / "notify")}
            with Program([*INTERCOM, "run"], self.folder / "run.log", environment) as program:
                assert supervisor.recv(100) == b"READY=1"
                program.wait_for(says, 10)
                yield program
                program.stop()
        log = (self.folder / "run.log").read_text()
        assert PASSWORD not in log
        assert CODE.rstrip("#") not in log
        assert "Traceback" not in log


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site"), users=USERS) as site:
        yield site


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """No process outlives its test."""
    before = _processes(tmp_path)
    yield
    assert wait_until(lambda: _processes(tmp_path) <= before, 2.0), _processes(tmp_path) - before


@pytest.fixture
def door(tmp_path: Path, site: Site) -> Door:
    # Wrong passwords of the test before came from the same address.
    for table in ("wrong", "refused"):
        site.ask("htable.flush", table)
    return Door(tmp_path, site.account("door"))


def account_at(proxy: str, user: str = "door", transport: Transport = "udp") -> Account:
    """An account of the site's domain somewhere else."""
    return Account(user, PASSWORD, "site.example", proxy, transport)


def _processes(folder: Path) -> set[tuple[str, str]]:
    """Our children, and orphans that work in the folder: pid and command line."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid() or str(folder) in command:
            found.add((process.name, command))
    return found
