"""What goes wrong around a SIP server: floods, malformed messages, and databases that fail."""

from __future__ import annotations

import itertools
import os
import re
import socket
import sqlite3
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.demo.phone import Phone
from deploy.demo.program import Program, ProgramError, wait_until
from deploy.demo.site import Site
from deploy.demo.stranger import Stranger, proof
from tests.integration.conftest import USERS
from tests.integration.site.wire import serves, try_register

TORTURE = Path(os.environ.get("INTERCOM_TORTURE", Path(__file__).parents[4] / "shared" / "torture"))


@contextmanager
def sending(messages: Iterator[tuple[socket.socket, bytes]], rate: int) -> Iterator[list[int]]:
    """Somebody who sends so many messages a second and reads no answers; yields how many he has sent."""
    sent, enough = [0], threading.Event()

    def send() -> None:
        begin = time.monotonic()
        while not enough.wait(0.005):
            while sent[0] < (time.monotonic() - begin) * rate:
                channel, message = next(messages)
                with suppress(ConnectionRefusedError, BlockingIOError):
                    channel.send(message)
                sent[0] += 1

    thread = threading.Thread(target=send, name="flood", daemon=True)
    thread.start()
    try:
        yield sent
    finally:
        enough.set()
        thread.join()


@contextmanager
def wrong_passwords(site: Site, addresses: int) -> Iterator[Iterator[tuple[socket.socket, bytes]]]:
    """REGISTERs of flat2 with wrong passwords and good nonces, from many addresses in turn."""
    guess = replace(site.account("flat2"), password="guess")
    uri = f"sip:{site.realm}"
    who = {"From": f"<{guess.uri}>;tag=1", "To": f"<{guess.uri}>"}
    channels, lines = [], []
    for number in range(addresses):
        source = f"127.0.7.{number + 1}"
        with Stranger(site.proxy, source) as thief:
            digest = who | proof(thief.ask("REGISTER", uri, who), guess, "REGISTER", uri)
        lines.append("".join(f"{name}: {value}\r\n" for name, value in digest.items()))
        channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        channel.setblocking(False)
        channel.bind((source, 0))
        channel.connect((site.address, site.port))
        channels.append(channel)

    def messages() -> Iterator[tuple[socket.socket, bytes]]:
        for number in itertools.count():
            channel, line = channels[number % addresses], lines[number % addresses]
            via = "{}:{}".format(*channel.getsockname())
            yield (
                channel,
                f"REGISTER {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {via};branch=z9hG4bK{number};rport\r\n{line}"
                f"Call-ID: {number}\r\nCSeq: 1 REGISTER\r\nContact: <sip:flat2@{via}>\r\nMax-Forwards: 70\r\n"
                "Content-Length: 0\r\n\r\n".encode(),
            )

    try:
        yield messages()
    finally:
        for channel in channels:
            channel.close()


def processes(site: Site) -> set[int]:
    """The server's processes."""
    first = site.program.pid
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return {first, *map(int, children)}


@pytest.mark.item(
    10,
    "1,000 REGISTERs with wrong passwords a second: a phone registers and is called",
    "baresip, UDP sockets",
)
def test_wrong_passwords_by_the_thousand(tmp_path: Path) -> None:
    # So short that a phone refreshes while the flood lasts.
    brief = {"shortest": 1, "default": 4, "longest": 4}
    with Site(tmp_path / "site", users=USERS, registration=brief) as site:
        # Its nonces may be used again, so every message is a guess that must be looked at.
        site.store.set_password("flat2", USERS["flat2"], digest="SHA-256")
        site.reload()
        before = processes(site)
        with (
            wrong_passwords(site, addresses=50) as guesses,
            sending(guesses, 1000) as sent,
            Phone(tmp_path / "flat1", site.account("flat1")) as flat,
            Phone(tmp_path / "door", site.account("door")) as door,
        ):
            begin = time.monotonic()
            flat.wait_registered(2.0)
            door.wait_registered(2.0)
            for _ in range(2):
                flat.wait_registered(5.0)
                door.dial(site.uri("flat1"))
                flat.wait_ringing(2.0)
                flat.answer()
                door.wait_established(2.0)
                door.hang_up()
                flat.wait_closed(2.0)
            assert wait_until(lambda: sent[0] > 5000, 10.0)
            assert sent[0] / (time.monotonic() - begin) > 900
            assert site.registered("flat2") == []
        assert before <= processes(site)
        assert int(site.ask("core.shmmem")["result"]["free"]) > 20_000_000
        assert site.log.stat().st_size < 100_000


@pytest.mark.item(
    10,
    "state.db locked by another process: phones register and are called, then it is made up for",
    "baresip, scripted phone",
)
def test_a_locked_state_database(tmp_path: Path, site: Site) -> None:
    with Stranger(site.proxy) as old, Stranger(site.proxy) as new:
        assert try_register(old, site.account("flat1")).code == 200
        with locked(site.folder / "state.db"):
            assert try_register(old, site.account("flat1")).code == 200
            assert try_register(new, site.account("door")).code == 200
            ring(tmp_path, site)
        assert try_register(new, site.account("door")).code == 200
        assert rows(site) == {"flat1", "door"}


@pytest.mark.item(10, "users.db written to by another process: it is read all the same", "scripted phone")
def test_a_locked_users_database(site: Site) -> None:
    site.store.set_password("flat1", "new-secret")
    with locked(site.folder / "users.db"), Stranger(site.proxy) as phone:
        site.reload()
        assert try_register(phone, site.account("flat1")).code == 401
        assert try_register(phone, replace(site.account("flat1"), password="new-secret")).code == 200


@pytest.mark.item(
    10, "users.db damaged or missing: the users that are known go on being served", "scripted phone"
)
@pytest.mark.parametrize("garbage", [b"", b"garbage" * 1000], ids=["missing", "damaged"])
def test_an_unreadable_users_database(site: Site, garbage: bytes) -> None:
    for file in site.folder.glob("users.db*"):
        file.unlink()
    if garbage:
        (site.folder / "users.db").write_bytes(garbage)
    with Stranger(site.proxy) as phone:
        with pytest.raises(ProgramError):
            site.reload()
        assert try_register(phone, site.account("flat1")).code == 200


@pytest.mark.item(
    10,
    "the disk is full: phones register and are called, then it is made up for",
    "baresip, scripted phone, strace",
)
def test_a_full_disk(tmp_path: Path, site: Site) -> None:
    with Stranger(site.proxy) as old, Stranger(site.proxy) as new:
        assert try_register(old, site.account("flat1")).code == 200
        with full(tmp_path, site):
            assert try_register(old, site.account("flat1")).code == 200
            assert try_register(new, site.account("door")).code == 200
            assert rows(site) == {"flat1"}
            ring(tmp_path, site)
        assert try_register(new, site.account("door")).code == 200
        site.kill()
        site.restart()
        assert wait_until(lambda: len(site.registered("door")) == 1, 2.0)


@pytest.mark.item(
    10,
    "databases deleted under a running server: it goes on, and starts again without them",
    "baresip, scripted phone",
)
@pytest.mark.parametrize("whole", [True, False], ids=["with their logs", "alone"])
def test_deleted_databases(tmp_path: Path, site: Site, whole: bool) -> None:
    with Stranger(site.proxy) as phone:
        assert try_register(phone, site.account("flat1")).code == 200
        for file in site.folder.glob("*.db*" if whole else "*.db"):
            file.unlink()
        assert try_register(phone, site.account("flat1")).code == 200
        ring(tmp_path, site)
        site.kill()
        with Site(site.folder, users=USERS, port=site.port) as again:
            assert try_register(phone, again.account("flat1")).code == 200
            ring(tmp_path, again)
            again.kill()
            again.restart()
            assert wait_until(lambda: len(again.registered("flat1")) == 1, 2.0)


@pytest.mark.item(
    10, "SIGKILL: users and registrations are there after the restart, and a phone rings at once", "baresip"
)
def test_a_phone_rings_after_a_kill(tmp_path: Path, site: Site) -> None:
    with (
        Phone(tmp_path / "flat1", site.account("flat1")) as flat,
        Phone(tmp_path / "door", site.account("door")) as door,
    ):
        flat.wait_registered()
        door.wait_registered()
        site.kill()
        site.restart()
        site.wait_registered("flat1", 2.0)
        door.dial(site.uri("flat1"))
        flat.wait_ringing(2.0)


@pytest.mark.long
@pytest.mark.item(
    10,
    "malformed messages (RFC 4475, RFC 5118, PROTOS, old holes): alive and answering",
    "UDP and TCP sockets",
)
@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_torture(tmp_path: Path, kind: str) -> None:
    with (
        Site(tmp_path / "site", users=USERS) as site,
        Stranger(site.proxy) as phone,
        Stranger(site.proxy) as stranger,
    ):
        before = processes(site)
        for number, message in enumerate(torture(site)):
            source = f"127.1.{number // 250 % 250}.{number % 250 + 1}"
            with socket.socket(
                socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
            ) as channel:
                channel.bind((source, 0))
                channel.settimeout(2.0)
                channel.connect((site.address, site.port))
                with suppress(OSError):  # too long for a datagram; closed before the end
                    channel.send(message)
            if number % 100 == 0:
                assert try_register(phone, site.account("flat1")).code == 200, message
        assert number > 9000
        # Not more than the messages themselves; the unit lets the journal take 1,000 lines in 30 s.
        assert site.log.stat().st_size < 2000 * number
        # A stranger too, as soon as they are not too many.
        assert wait_until(lambda: serves(site, stranger), 5.0)
        assert before <= processes(site)
        assert int(site.ask("core.shmmem")["result"]["free"]) > 15_000_000


def torture(site: Site) -> Iterator[bytes]:
    """Every message of the collections, as it is; PROTOS with our addresses where it leaves room for them."""
    for folder in ("rfc4475", "rfc5118", "rfc5118-wire", "cve-regress"):
        for file in sorted((TORTURE / folder).iterdir()):
            yield file.read_bytes()
    with tarfile.open(TORTURE / "protos-c07" / "testcases.tar.xz") as cases:
        for number, case in enumerate(member for member in cases if member.isfile()):
            tags = {
                b"<To>": site.uri("flat1").removeprefix("sip:").encode(),
                b"<From>": b"stranger@127.0.0.1",
                b"<From-Address>": b"127.0.0.1",
                b"<From-IP>": b"127.0.0.1",
                b"<Local-Port>": b"9",
                b"<Branch-ID>": b"%d" % number,
                b"<Call-ID>": b"%d" % number,
                b"<CSeq>": b"1",
                b"<Teardown-Method>": b"CANCEL",
            }
            packets = cases.extractfile(case)
            assert packets is not None
            text = packets.read()
            while length := re.match(rb"\s*(\d+) ", text):
                end = length.end() + int(length[1])
                message, text = text[length.end() : end], text[end:]
                for tag, value in tags.items():
                    message = message.replace(tag, value)
                body = message.partition(b"\r\n\r\n")[2]
                yield message.replace(b"<Content-Length>", b"%d" % len(body))


def ring(tmp_path: Path, site: Site) -> None:
    """A phone registers as the door and calls another one, which rings."""
    folder = tmp_path / f"phones-{time.monotonic_ns()}"
    with (
        Phone(folder / "flat2", site.account("flat2")) as flat,
        Phone(folder / "door", site.account("door")) as door,
    ):
        flat.wait_registered(2.0)
        door.wait_registered(2.0)
        door.dial(site.uri("flat2"))
        flat.wait_ringing(2.0)
        door.hang_up()
        flat.wait_closed(2.0)


def rows(site: Site) -> set[str]:
    """Who has a location in the database, as another process sees it."""
    with closing(sqlite3.connect(site.folder / "state.db")) as database:
        return {name for (name,) in database.execute("SELECT username FROM location")}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody else has begun to write into the database and does not finish."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield
        database.execute("ROLLBACK")


@contextmanager
def full(tmp_path: Path, site: Site) -> Iterator[None]:
    """No block is left for the server's databases: every write into them ends with ENOSPC."""
    command: list[str | Path] = ["strace", "-f", "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC"]
    for file in ("state.db", "state.db-wal"):
        command += ["-P", site.folder / file]
    for pid in processes(site):
        command += ["-p", str(pid)]
    with_disk = Program(command, tmp_path / "strace.log")
    try:
        for pid in processes(site):
            with_disk.wait_for(f"Process {pid} attached", 20.0)
        yield
    finally:
        with_disk.stop()
