"""What users write to each other: delivered, or kept for who is away."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from deploy.demo.linphone import Linphone
from deploy.demo.program import wait_until
from deploy.demo.site import Site
from deploy.demo.stranger import Reply, Stranger, proof
from tests.integration.site.wire import header, headers, is_quiet, register, wait_answer, wait_request


@pytest.fixture
def parts() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def door(site: Site, parts: ExitStack) -> Stranger:
    return parts.enter_context(Stranger(site.proxy))


@pytest.fixture
def flat(site: Site, parts: ExitStack) -> Stranger:
    return parts.enter_context(Stranger(site.proxy))


def send(door: Stranger, site: Site, to: str, text: str, **lines: str) -> str:
    """Send a message from the door and return its Call-ID; the answer comes by itself."""
    uri = site.uri(to)
    who = {"From": f"<{site.uri('door')}>;tag=1", "Content-Type": "text/plain"}
    who |= {name.replace("_", "-"): value for name, value in lines.items()}
    challenge = door.ask("MESSAGE", uri, who, text)
    assert challenge.code == 407, challenge.text
    same = {"Call-ID": challenge.header("Call-ID"), "CSeq": "2 MESSAGE"}
    return door.send(
        "MESSAGE", uri, who | same | proof(challenge, site.account("door"), "MESSAGE", uri), text
    )


def write(door: Stranger, site: Site, to: str, text: str, timeout: float = 2.0, **lines: str) -> Reply:
    """Send a message from the door and block for the answer."""
    send(door, site, to, text, **lines)
    return wait_answer(door, timeout=timeout)


def read(flat: Stranger, code: int = 200) -> str:
    """Block for the next message, and answer it."""
    message = wait_request(flat, "MESSAGE")
    flat.reply(message, code)
    return message


def kept(site: Site) -> int:
    """How many messages are on the disk."""
    with closing(sqlite3.connect(site.folder / "state.db")) as database:
        found: int = database.execute("SELECT count(*) FROM silo").fetchone()[0]
        return found


def body(message: str) -> str:
    """What stands below the headers."""
    return message.partition("\r\n\r\n")[2]


@pytest.mark.item(5, "a message reaches the phone, and its answer the sender", "scripted agents")
@pytest.mark.parametrize("code", [200, 415, 486])
def test_the_answer_is_that_of_the_phone(site: Site, door: Stranger, flat: Stranger, code: int) -> None:
    register(site, "flat1", flat)
    send(door, site, "flat1", "The parcel is with you.")
    message = read(flat, code)
    assert body(message) == "The parcel is with you."
    assert site.uri("door") in header(message, "From")
    assert wait_answer(door).code == code
    assert kept(site) == 0


@pytest.mark.item(
    5, "messages are kept while he is away, over a SIGKILL, and come once and in order", "scripted agents"
)
def test_messages_wait(site: Site, door: Stranger, flat: Stranger) -> None:
    now = time.time()
    texts = ["One.", "Two.\r\nWith two lines, ä.", "It's '); DROP TABLE silo; --", "$var(who)", "x" * 8000]
    texts += [f"Number {number}." for number in range(6, 20)]
    for text in texts:
        assert write(door, site, "flat1", text).code == 202
    site.kill()
    site.restart()
    register(site, "flat1", flat)
    messages = [read(flat) for _ in texts]
    assert [body(message) for message in messages] == texts
    for message in messages:
        assert site.uri("door") in header(message, "From")
        assert abs(parsedate_to_datetime(header(message, "Date")).timestamp() - now) < 10
        assert not headers(message, "Proxy-Authorization")
    assert wait_until(lambda: kept(site) == 0, 5.0)
    register(site, "flat1", flat)
    assert is_quiet(flat)


@pytest.mark.item(5, "a message to a phone without power is kept and read elsewhere", "scripted agents")
def test_a_phone_that_does_not_answer(site: Site, door: Stranger, flat: Stranger, parts: ExitStack) -> None:
    register(site, "flat1", flat)
    assert write(door, site, "flat1", "Are you there?", timeout=8.0).code == 202
    flat_elsewhere = parts.enter_context(Stranger(site.proxy, "127.0.0.77"))
    register(site, "flat1", flat_elsewhere)
    assert body(read(flat_elsewhere)) == "Are you there?"


@pytest.mark.item(5, "a message to a group goes to each member, kept for who is away", "scripted agents")
def test_a_message_to_a_group(site: Site, door: Stranger, flat: Stranger, parts: ExitStack) -> None:
    site.store.set_group("house", ["flat1", "flat2"])
    site.reload()
    register(site, "flat1", flat)
    assert write(door, site, "house", "The lift is repaired.").code == 202
    assert body(read(flat)) == "The lift is repaired."
    assert wait_until(lambda: kept(site) == 1, 2.0)
    other = parts.enter_context(Stranger(site.proxy))
    register(site, "flat2", other)
    message = read(other)
    assert body(message) == "The lift is repaired."
    assert site.uri("door") in header(message, "From")
    assert is_quiet(flat)


@pytest.mark.item(5, "a message to a group: who sends it is told what cannot be kept", "scripted agents")
def test_what_a_group_cannot_keep(site: Site, door: Stranger) -> None:
    site.store.set_group("full", ["flat1"])
    site.store.set_group("house", ["flat1", "flat2"])
    site.reload()
    assert write(door, site, "house", "<x/>", Content_Type="application/im-iscomposing+xml").code == 415
    assert write(door, site, "house", "x" * 9000).code == 413
    assert kept(site) == 0
    for number in range(50):
        assert write(door, site, "full", f"Message {number}").code == 202
    assert write(door, site, "full", "One too many.").code == 480
    some = write(door, site, "house", "There is room for others.")
    assert (some.code, some.header("Warning")) == (202, '399 site "Not every member has room for it"')
    assert kept(site) == 51


@pytest.mark.item(5, "nothing is kept from strangers, for nobody, without words or end", "scripted agents")
def test_what_is_not_kept(site: Site, door: Stranger) -> None:
    assert door.ask("MESSAGE", site.uri("flat1"), {"Content-Type": "text/plain"}, "x").code == 407
    assert write(door, site, "nobody", "Hello?").code == 404
    composing = write(door, site, "flat1", "<x/>", Content_Type="application/im-iscomposing+xml")
    assert composing.code == 480
    assert write(door, site, "flat1", "x" * 9000).code == 413
    assert kept(site) == 0
    codes = [write(door, site, "flat1", f"Message {number}").code for number in range(52)]
    assert codes == [202] * 50 + [480] * 2
    assert write(door, site, "flat2", "There is room for others.").code == 202


@pytest.mark.item(5, "a kept message goes to him alone, whatever its To says", "scripted agents")
def test_a_kept_message_goes_nowhere_else(
    site: Site, door: Stranger, flat: Stranger, parts: ExitStack
) -> None:
    victim = parts.enter_context(Stranger(site.proxy))
    for to in (f"sip:victim@{victim.address}", site.uri("flat2")):
        assert write(door, site, "flat1", "Psst.", To=f"<{to}>").code == 202
    register(site, "flat2", victim)
    register(site, "flat1", flat)
    assert [body(read(flat)), body(read(flat))] == ["Psst.", "Psst."]
    assert is_quiet(victim)


@pytest.mark.item(5, "a message his phone refuses for good is not offered for ever", "scripted agents")
def test_a_phone_that_takes_no_messages(site: Site, door: Stranger, flat: Stranger) -> None:
    assert write(door, site, "flat1", "For you.").code == 202
    register(site, "flat1", flat)
    assert body(read(flat, 503)) == "For you."
    register(site, "flat1", flat)
    assert body(read(flat, 405)) == "For you."
    assert wait_until(lambda: kept(site) == 0, 5.0)


@pytest.mark.item(5, "a message that cannot be deleted does not come again", "scripted agents")
def test_a_message_comes_once(site: Site, door: Stranger, flat: Stranger) -> None:
    assert write(door, site, "flat1", "Once.").code == 202
    register(site, "flat1", flat)
    message = wait_request(flat, "MESSAGE")
    with closing(sqlite3.connect(site.folder / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        flat.reply(message, 200)
        assert wait_until(lambda: "locked" in site.log.read_text(), 5.0)
        other.execute("ROLLBACK")
    assert kept(site) == 1
    register(site, "flat1", flat)
    assert wait_until(lambda: kept(site) == 0, 2.0)
    assert is_quiet(flat)


@pytest.mark.item(5, "a locked database: the message is refused, everything else goes on", "scripted agents")
def test_messages_while_the_database_is_locked(site: Site, door: Stranger, flat: Stranger) -> None:
    with closing(sqlite3.connect(site.folder / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert write(door, site, "flat1", "Lost?").code == 480
        register(site, "flat1", flat)
        send(door, site, "flat1", "Now you are here.")
        assert body(read(flat)) == "Now you are here."
        assert wait_answer(door).code == 200
        other.execute("ROLLBACK")
    assert write(door, site, "flat2", "Kept again.").code == 202


@pytest.mark.item(5, "softphones write to each other, and read later what was written", "linphonec")
def test_linphones_write_to_each_other(tmp_path: Path, site: Site) -> None:
    with Linphone(tmp_path / "flat1", site.account("flat1")) as flat1:
        flat1.wait_registered()
        flat1.write(site.uri("flat2"), "Come down when you are back.")
        flat1.wait_event("MESSAGE_SENT", text="Delivered")
        with Linphone(tmp_path / "flat2", site.account("flat2")) as flat2:
            message = flat2.wait_event("MESSAGE")
            assert (message.peer, message.text) == (site.uri("flat1"), "Come down when you are back.")
            flat2.write(site.uri("flat1"), "On my way.")
            assert flat1.wait_event("MESSAGE").text == "On my way."
