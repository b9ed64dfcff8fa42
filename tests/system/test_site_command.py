"""`intercom site`: the real command, a real Kamailio, and phones that know only what it has printed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from deploy.demo.account import Account
from deploy.demo.phone import Phone
from deploy.demo.program import Program, free_port, wait_until
from deploy.demo.stranger import Stranger
from tests.system.conftest import INTERCOM, ROOT, Answer
from tests.system.test_unit_file import directives

ADDRESS = "127.0.0.1"
SETTINGS = """\
[listen]
addresses = ["{address}"]
port = {port}
tls_port = {tls_port}
transports = ["udp", "tcp", "tls"]
"""
TRUNK_PASSWORD = "planted-trunk-password"


@dataclass
class House:
    """A folder with settings and the site of a house."""

    folder: Path
    address: str = ADDRESS

    def __post_init__(self) -> None:
        self.settings = self.folder / "site.toml"
        self.site = self.folder / "site"
        self.said = ""
        self.port = free_port()
        self.write()

    def write(self) -> None:
        """Right settings."""
        self.settings.write_text(SETTINGS.format(address=self.address, port=self.port, tls_port=free_port()))

    @property
    def environment(self) -> dict[str, str]:
        return {"INTERCOM_SITE": str(self.settings), "PYTHONPATH": str(ROOT)}

    def intercom(
        self, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None
    ) -> Answer:
        """Run `intercom site …` to its end; what it says is kept."""
        done = subprocess.run(
            [*INTERCOM, "site", "--folder", self.site, *arguments],
            env={**os.environ, **self.environment, **(environment or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        assert "Traceback" not in done.stderr
        self.said += done.stdout + done.stderr
        return Answer(done.returncode, done.stdout, done.stderr)

    def to(self, output: IO[str] | int, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same with its facts going somewhere else."""
        done = subprocess.run(
            [*INTERCOM, "site", "--folder", self.site, *arguments],
            env={**os.environ, **self.environment},
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            timeout=40,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        return done

    def right(self, *arguments: str, stdin: str = "") -> str:
        """The same, and it must succeed; returns the facts."""
        answer = self.intercom(*arguments, stdin=stdin)
        assert answer.code == 0, answer.err
        return answer.out

    def add(self, name: str, *arguments: str) -> Account:
        """Add a user, and read what is printed as a person does."""
        sheet = dict(
            line.split(maxsplit=1)
            if not line.startswith(("user name", "authentication name", "CA "))
            else line.rsplit(maxsplit=1)
            for line in self.right("add", name, *arguments).split("\n\n")[0].splitlines()
        )
        keys = {key.strip(): value for key, value in sheet.items()}
        transport = keys["transport"].lower()
        assert transport in ("udp", "tcp", "tls")
        self.said = self.said.replace(keys["password"], "")  # where it belongs
        return Account(keys["user name"], keys["password"], keys["domain"], keys["proxy"], transport)  # type: ignore[arg-type]

    @contextmanager
    def running(self, *arguments: str, code: int = 0, trace: Sequence[str] = ()) -> Iterator[Program]:
        """`intercom site`, from the moment it tells systemd that it is ready; it ends with SIGTERM."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            supervisor.settimeout(15)
            supervisor.bind(str(self.folder / "notify"))
            environment = {**self.environment, "NOTIFY_SOCKET": str(self.folder / "notify")}
            log = self.folder / "site.log"
            command: list[str | Path] = [*trace, *INTERCOM, "site", "--folder", self.site, *arguments]
            with Program(command, log, environment) as program:
                assert supervisor.recv(100) == b"READY=1", program.tail()
                yield program
                if program.running:
                    os.kill(program.pid, signal.SIGTERM)
                assert program.wait(10) == code
        (self.folder / "notify").unlink()
        assert "Traceback" not in log.read_text()
        self.said += log.read_text()

    def status(self) -> dict[str, object]:
        """What `intercom site status` says."""
        facts: dict[str, object] = json.loads(self.right("status", "--json"))
        return facts

    def options(self, port: int | None = None) -> int:
        """How the site answers a stranger."""
        with Stranger(f"{ADDRESS}:{port or self.port}") as stranger:
            return stranger.ask("OPTIONS", f"sip:{ADDRESS}:{port or self.port}").code


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# What is printed is what a phone needs


def test_phones_register_with_what_is_printed_and_ring(house: House) -> None:
    with house.running(), ExitStack() as phones:
        kitchen = phones.enter_context(Phone(house.folder / "kitchen", house.add("kitchen")))
        hall = phones.enter_context(Phone(house.folder / "hall", house.add("hall", "--transport", "tls")))
        for phone in (kitchen, hall):
            phone.wait_registered()
        house.right("group", "add", "all", "kitchen", "hall")
        door = phones.enter_context(Phone(house.folder / "door", house.add("door", "--transport", "tcp")))
        door.wait_registered()
        door.dial("sip:all@site.example")
        for phone in (kitchen, hall):
            phone.wait_event("CALL_INCOMING", 5)
        hall.answer()
        door.wait_event("CALL_ESTABLISHED", 5)
        kitchen.wait_event("CALL_CLOSED", 5)
        shown = json.loads(house.right("show", "hall", "--json"))
        assert [shown["transport"], len(shown["contacts"]), shown["groups"]] == ["tls", 1, ["all"]]
        assert house.status()["registered"] == 3


def test_a_new_password_and_a_removed_user_count_at_once(house: House) -> None:
    """From another address each time, since wrong passwords slow an address down."""
    with house.running():
        old = house.add("kitchen")
        facts = json.loads(house.right("password", "kitchen", "--json"))
        house.said = house.said.replace(facts["password"], "")
        new = Account("kitchen", facts["password"], old.realm, old.proxy)
        with Phone(house.folder / "new", new, address="127.0.0.3") as phone:
            phone.wait_registered()
        with Phone(house.folder / "old", old, address="127.0.0.4") as phone:
            phone.wait_event("REGISTER_FAIL", 5)
        house.right("remove", "kitchen")
        with Phone(house.folder / "gone", new, address="127.0.0.5") as phone:
            phone.wait_event("REGISTER_FAIL", 5)


def test_a_door_station_takes_the_lines_that_are_printed(house: House) -> None:
    answer = house.intercom("add", "door", "--station", "--may-call", "all")
    assert answer.code == 0
    assert f'registrar = "sip:{ADDRESS}:{house.port};transport=udp"' in answer.out
    assert "it will know when it starts" in answer.err
    assert json.loads(house.right("show", "door", "--json"))["may_call"] == [""]
    assert house.intercom("add", "door2", "--station", "--transport", "tls").code == 2


# Settings


def test_changed_settings_are_used_and_wrong_ones_never(house: House) -> None:
    assert house.right("check").startswith("the settings of site.example are right")
    assert not house.site.exists()
    with house.running() as site:
        before, house.port = house.port, free_port()
        house.write()
        assert house.intercom("apply").code == 0
        assert house.options() == 200
        with pytest.raises((TimeoutError, ConnectionError)):
            house.options(before)

        house.settings.write_text("[listen]\nport = 0\ncolour = 1\n")
        for command in ("check", "apply"):
            answer = house.intercom(command)
            assert answer.code == 2
            assert [line.split(": ")[1] for line in answer.err.splitlines()] == [
                "listen.port",
                "listen.colour",
            ]
        mark = site.mark
        os.kill(site.pid, signal.SIGHUP)  # systemctl kill, or somebody in a hurry
        site.wait_for("listen.colour", 5, mark)
        assert house.options() == 200

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((ADDRESS, 0))
            port = other.getsockname()[1]
            house.settings.write_text(f'[listen]\naddresses = ["{ADDRESS}"]\nport = {port}\n')
            answer = house.intercom("apply")
        assert answer.code == 1
        assert f"udp:{ADDRESS}:{port}: Address already in use" in answer.err
        assert wait_until(lambda: house.options() == 200, 5)


def test_a_house_goes_on_ringing_with_wrong_settings(house: House) -> None:
    with house.running():
        pass
    house.settings.write_text('[site]\ndomain = "x y"\n')
    with house.running() as site:
        site.wait_for("site.domain", 5)
        site.wait_for("the last configuration that worked", 5)
        second = house.intercom()
        assert second.code == 1
        assert "another site runs in" in second.err
        assert house.options() == 200


def test_with_nothing_that_ever_worked_it_ends_with_2(house: House) -> None:
    house.settings.write_text('[site]\ndomain = "x y"\n')
    answer = house.intercom()
    assert (answer.code, answer.out) == (2, "")
    assert "site.domain: 'x y' is not a domain" in answer.err


def test_the_sandbox_of_the_unit_lets_it_do_all_it_does(house: House) -> None:
    calls = house.folder / "calls"
    with house.running(trace=["strace", "-D", "-f", "-c", "-U", "name", "-o", str(calls)]):
        house.right("add", "kitchen")
        house.right("apply")
    assert wait_until(lambda: "total" in calls.read_text(), 5)
    used = {line.strip() for line in calls.read_text().splitlines()[2:-2]}
    assert {"bind", "execve", "fsync"} <= used
    unit = directives(ROOT / "deploy/systemd/intercom-site.service")
    allowed, denied = unit["SystemCallFilter"]
    assert used - expanded(allowed.split()) == set()
    # As root alone SQLite gives its files to the owner of the database.
    as_root = {"fchown"} if os.geteuid() == 0 else set()
    assert (used - as_root) & expanded(denied.removeprefix("~").split()) == set()


def expanded(groups: list[str]) -> set[str]:
    """The system calls of systemd's groups."""
    shown = subprocess.run(
        ["systemd-analyze", "syscall-filter", *groups], capture_output=True, text=True, check=True
    )
    lines = {line.strip() for line in shown.stdout.splitlines() if line.startswith(" ")}
    inner = sorted(line for line in lines if line.startswith("@"))
    return {line for line in lines if line[0] not in "@#"} | (expanded(inner) if inner else set())


# Faults


def child(pid: int) -> int:
    """The one process that a process has started."""
    (only,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(only)


def test_kamailio_killed_ends_it_with_1_for_systemd_to_start_it_again(house: House) -> None:
    with house.running(code=137) as site:
        os.kill(child(site.pid), signal.SIGKILL)
        site.wait(10)


def test_killed_itself_it_leaves_nothing(house: House) -> None:
    account = house.add("kitchen")
    with house.running(code=-9) as site, Phone(house.folder / "kitchen", account) as phone:
        phone.wait_registered()
        phone.kill()
        kamailio = child(site.pid)
        os.kill(site.pid, signal.SIGKILL)
        try:
            assert wait_until(lambda: not (house.site / "control.sock").exists(), 10)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(kamailio, signal.SIGKILL)  # a group of its own
    with house.running():
        assert house.status()["registered"] == 1


def test_nobody_runs(house: House) -> None:
    for command in ("status", "apply"):
        answer = house.intercom(command)
        assert (answer.code, answer.out) == (3, "")


def test_a_locked_database_is_one_line_and_the_site_serves(house: House) -> None:
    account = house.add("kitchen")
    with house.running(), closing(sqlite3.connect(house.site / "users.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        answer = house.intercom("add", "hall")
        assert answer.code == 1
        assert answer.err.splitlines() == [
            f"intercom: {house.site}/users.db is locked by another program for 5 s; nothing was changed"
        ]
        with Phone(house.folder / "kitchen", account) as phone:
            phone.wait_registered()


def test_a_missing_database_comes_back_from_its_copy(house: House) -> None:
    account = house.add("kitchen")
    for file in house.site.glob("users.db*"):
        if file.suffix != ".bak":
            file.unlink()
    with house.running() as site, Phone(house.folder / "kitchen", account) as phone:
        site.wait_for("taken from the safety copy", 5)
        phone.wait_registered()


def test_a_gateway_without_an_address_holds_up_nothing_else(house: House) -> None:
    house.right("gateway", "add", "lost", "sip:trunk.invalid")
    lost = "gateway lost sip:trunk.invalid: DOWN (its name does not resolve)"
    with house.running():
        assert lost in house.right("status").splitlines()
        house.right("gateway", "add", "near", "sip:127.0.0.9")
        answer = house.intercom("add", "kitchen", "--json")
        assert (answer.code, len(json.loads(answer.out)["password"])) == (0, 20)
        assert answer.err.startswith("intercom: gateway lost is down: its name does not resolve.")
        (near,) = [each for each in house.status()["gateways"] if each["name"] == "near"]  # type: ignore[attr-defined]
        assert near["resolved"] is True
        house.right("gateway", "remove", "lost")
        assert house.intercom("add", "hall").err.count("resolve") == 0


def test_a_password_that_cannot_be_shown_is_told(house: House) -> None:
    with Path("/dev/full").open("w") as full:
        done = house.to(full, "add", "kitchen")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2)
    assert "(No space left on device): 'intercom site password kitchen' makes a new one" in done.stderr
    assert house.right("list") == "kitchen\n"
    reader, writer = os.pipe()
    os.close(reader)
    assert house.to(writer, "password", "kitchen").stderr.count("makes a new one") == 1
    os.close(writer)


def test_without_a_certificate_nobody_is_added(house: House) -> None:
    house.right("add", "hall", "--transport", "tls")
    for file in (house.site / "tls").iterdir():
        file.write_text("broken")
    assert house.intercom("add", "kitchen", "--transport", "tls").code == 2
    assert house.right("list") == "hall\n"


def test_a_taken_port_ends_no_call(house: House) -> None:
    with house.running() as site, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        before = child(site.pid)
        other.bind((ADDRESS, 0))
        house.settings.write_text(
            f'[listen]\naddresses = ["{ADDRESS}"]\nport = {house.port}\n'
            f'transports = ["udp", "tcp", "tls"]\ntls_port = {other.getsockname()[1]}\n'
        )
        other.listen()
        answer = house.intercom("apply")
        assert (answer.code, "Address already in use" in answer.err) == (1, True)
        assert child(site.pid) == before
        other.close()
        house.right("apply")
        assert child(site.pid) != before


@contextmanager
def seized(path: Path) -> Iterator[None]:
    """Somebody has a database for himself, so that nobody can read it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        yield


@pytest.mark.parametrize(
    ("file", "said"), [("state.db", "it is state.db.broken now"), ("users.db", "until the next start it is")]
)
def test_a_database_seized_at_the_start_silences_nobody(house: House, file: str, said: str) -> None:
    account = house.add("kitchen")
    with house.running():
        pass
    with (
        seized(house.site / file),
        house.running() as site,
        Phone(house.folder / "kitchen", account) as phone,
    ):
        site.wait_for(said, 5)
        phone.wait_registered()


def test_lost_users_are_not_forgotten_by_the_running_site(house: House) -> None:
    account = house.add("kitchen")
    with house.running():
        for file in house.site.glob("users.db*"):
            file.unlink()
        for command in (["add", "hall"], ["list"], ["apply"]):
            answer = house.intercom(*command)
            assert answer.code == 1
            assert "the running site alone knows the users" in answer.err
        with Phone(house.folder / "kitchen", account) as phone:
            phone.wait_registered()
    with house.running():
        assert house.right("list") == ""


def test_a_broken_key_is_told_and_the_site_goes_on(house: House) -> None:
    with house.running():
        pass
    key = house.site / "site.key"
    good = key.read_text()
    key.write_text("")
    answer = house.intercom("check")
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
    assert answer.err.startswith(f"{key}: the site's key is 32 hexadecimal digits: put back SITE_KEY of")
    with house.running() as site:
        site.wait_for("put back SITE_KEY", 5)
        assert house.options() == 200
    found = re.findall('SITE_KEY "(.*)"', (house.site / "current" / "site.cfg").read_text())
    assert found == [good]
    key.write_text(f"{good}\n")
    house.right("check")


def test_odd_folders(house: House) -> None:
    for name in ("a b", 'a"b', "a#b", "a\\b", "a?b", "ü", "x" * 90):
        house.site = house.folder / name
        answer = house.intercom("check")
        assert (answer.code, len(answer.err.splitlines())) == (2, 1)
        assert "cannot be the site's folder" in answer.err
        assert not house.site.exists()
    house.site = house.folder / "a+b,c=d@e:f%g"
    with house.running():
        house.right("add", "kitchen")


def test_hints_of_what_will_not_work(house: House) -> None:
    house.right("add", "kitchen", "--may-call", "+49")
    warned = [
        bool(
            house.intercom("forward", "kitchen", "--away", number, "--seconds", "20").err.count(
                "may not call"
            )
        )
        for number in ("+4930123", "004930123", "+4330123", "112")
    ]
    assert warned == [False, False, True, True]
    for uri in (f"sip:{ADDRESS}:{house.port}", "sip:site.example", "sip:trunk.example;transport=sctp"):
        assert house.intercom("gateway", "add", "trunk", uri).code == 2
    assert "there is no user or group office" in house.intercom("redirect", "office", "tel:112").err
    assert "there is no user" not in house.intercom("redirect", "kitchen", "tel:112").err


# Secrets


def test_no_secret_in_what_is_said(house: House) -> None:
    account = house.add("kitchen")
    (house.folder / "trunk.secret").write_text(f"{TRUNK_PASSWORD}\n")
    file = str(house.folder / "trunk.secret")
    gateway = ("gateway", "add", "trunk", f"sip:127.0.0.9:{free_port()}", "--username", "us", "--register")
    with house.running():
        house.right(*gateway, "--password-file", file)
        house.right(*gateway, "--password-file", "-", stdin=f"{TRUNK_PASSWORD}\n")
        for command in (
            ["list"],
            ["show", "kitchen", "--json"],
            ["status", "--json"],
            ["gateway", "list"],
            ["gateway", "list", "--json"],
            ["export"],
        ):
            house.right(*command)
    with closing(sqlite3.connect(house.site / "users.db")) as database:
        ((ha1,),) = database.execute("SELECT ha1 FROM user")
    key = (house.site / "site.key").read_text()
    assert len(house.said) > 1000
    for secret in (account.password, TRUNK_PASSWORD, ha1, key):
        assert secret not in house.said
    exported = house.right("export", "--secrets")
    for secret in (TRUNK_PASSWORD, ha1, key):
        assert secret in exported


def test_an_export_makes_the_same_site_elsewhere(house: House, tmp_path: Path) -> None:
    account = house.add("kitchen")
    exported = house.right("export", "--secrets")
    (tmp_path / "other").mkdir()
    other = House(tmp_path / "other")
    assert "restart the site" in other.intercom("import", "-", stdin=exported).err
    assert other.intercom("import", "-", stdin=exported.replace('"kitchen"', '"K"')).code == 2
    for wrong in ("{", "[" * 100_000, exported.replace('"may_call": []', '"may_call": "+49"')):
        answer = other.intercom("import", "-", stdin=wrong)
        assert (answer.code, len(answer.err.splitlines())) == (2, 1)
    with (
        other.running(),
        Phone(
            tmp_path / "kitchen",
            Account("kitchen", account.password, account.realm, f"{ADDRESS}:{other.port}"),
        ) as phone,
    ):
        phone.wait_registered()


# The relay


def test_a_stateless_relay_in_front_of_a_pbx(house: House, tmp_path: Path) -> None:
    """Which it knows by its address."""
    (tmp_path / "pbx").mkdir()
    pbx = House(tmp_path / "pbx", "127.0.0.9")
    account = pbx.add("kitchen")
    to = ("--stateless", "--to", f"sip:{pbx.address}:{pbx.port}")
    behind = Account("kitchen", account.password, account.realm, f"{ADDRESS}:{house.port}")
    with pbx.running(), house.running(*to), Phone(tmp_path / "kitchen", behind) as phone:
        phone.wait_registered()
        (contact,) = json.loads(pbx.right("show", "kitchen", "--json"))["contacts"]
        assert str(house.port) not in contact["uri"], "the phone's own"
    assert house.intercom("--stateless").code == 2
    assert house.intercom("--stateless", "--to", "pbx").code == 2
