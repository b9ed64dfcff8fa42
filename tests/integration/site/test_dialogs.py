"""What is said within a call: by its two ends, in their own names, to each other; and after a restart."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from deploy.demo.account import Transport
from deploy.demo.phone import Phone
from deploy.demo.program import wait_until
from deploy.demo.site import Site
from deploy.demo.station import Station, settings
from deploy.demo.stranger import Reply, Stranger, proof
from tests.integration.conftest import USERS
from tests.integration.site.test_presence import Watcher
from tests.integration.site.wire import (
    SDP,
    Call,
    header,
    headers,
    is_quiet,
    register,
    say_back,
    status,
    wait_answer,
    wait_request,
)

OUR_NUMBER = "+4930123456"
FIRST, SECOND, INSIDE = "127.0.3.1", "127.0.3.2", "127.0.4.1"


class House:
    """A site with two trunks and a phone of a few lines for each user."""

    def __init__(self, site: Site, parts: ExitStack) -> None:
        self.site = site
        self.first = parts.enter_context(Stranger(site.proxy, FIRST))
        self.second = parts.enter_context(Stranger(site.proxy, SECOND))
        site.store.set_gateway("first", f"sip:{self.first.address}", username="4930123456", password="secret")
        site.store.set_gateway("second", f"sip:{self.second.address}", ranges=["+49900"])
        site.store.set_number(OUR_NUMBER, "flat1")
        site.store.permit("door", [""])
        site.reload()
        self.door, self.flat1, self.flat2 = (
            parts.enter_context(Stranger(site.proxy, INSIDE)) for _ in range(3)
        )
        for name in ("door", "flat1", "flat2"):
            register(site, name, getattr(self, name))

    def talk(self, caller: str, called: Stranger, to: str) -> Talk:
        """A call of a user's that is answered."""
        call = Call(getattr(self, caller), self.site.account(caller), to)
        call.begin()
        invite = wait_request(called, "INVITE")
        called.reply(invite, 200, {"Content-Type": "application/sdp"}, SDP)
        answer = call.result()
        call.say("ACK", answer, 2)
        wait_request(called, "ACK")
        return Talk(call.phone, called, invite, answer)

    def talk_from_trunk(self) -> Talk:
        """A call that the first trunk brings to flat1, and that is answered."""
        who = {"From": f"<sip:+4989@{FIRST}>;tag=caller", "Content-Type": "application/sdp"}
        self.first.send("INVITE", f"sip:{OUR_NUMBER}@{self.site.proxy}", who, SDP)
        invite = wait_request(self.flat1, "INVITE")
        self.flat1.reply(invite, 200, {"Content-Type": "application/sdp"}, SDP)
        talk = Talk(self.first, self.flat1, invite, wait_answer(self.first))
        talk.say("ACK", CSeq="1 ACK")
        wait_request(self.flat1, "ACK")
        return talk

    def wait_written(self) -> None:
        """Block until the server has written a call down, which it does every 2 s."""
        with closing(sqlite3.connect(self.site.folder / "state.db")) as database:
            assert wait_until(lambda: database.execute("SELECT 1 FROM dialog").fetchone() is not None, 5.0)


class Talk:
    """An answered call between two phones of a few lines."""

    def __init__(self, caller: Stranger, called: Stranger, invite: str, answer: Reply) -> None:
        self.caller, self.called, self.invite, self.answer = caller, called, invite, answer
        self._number = 10

    def say(self, method: str, uri: str = "", body: str = "", **lines: str) -> None:
        """A request of the caller's; what it should say may be replaced."""
        self._number += 1
        target = re.search("<(.*?)>", self.answer.header("Contact"))
        assert target is not None
        same = {name: self.answer.header(name) for name in ("From", "To", "Call-ID")}
        routes = ", ".join(headers(self.answer.text, "Record-Route")[::-1])
        own = same | {"Route": routes, "CSeq": f"{self._number} {method}"}
        named = {name.replace("_", "-"): value for name, value in lines.items()}
        self.caller.send(method, uri or target[1], own | named, body)

    def ask(self, method: str, uri: str = "", **lines: str) -> int:
        """The code that the caller gets for a request."""
        self.say(method, uri, **lines)
        return wait_answer(self.caller).code

    def passes(self, method: str, **lines: str) -> str:
        """The request as it arrives at the other end, which takes it."""
        self.say(method, **lines)
        arrived = wait_request(self.called, method)
        self.called.reply(arrived, 200)
        assert wait_answer(self.caller).code == 200
        return arrived


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with Site(tmp_path / "site", users=USERS, numbers={"country": "49"}) as site, ExitStack() as parts:
        yield House(site, parts)


@pytest.mark.item(7, "an invented To tag, another From or another address ends at the site", "own messages")
def test_nobody_says_anything_in_a_call_that_is_not_his(house: House) -> None:
    talk = house.talk("flat2", house.flat1, house.site.uri("flat1"))
    assert header(talk.passes("MESSAGE"), "From") == talk.answer.header("From")
    with Stranger(house.site.proxy, "127.0.4.9") as anybody:
        phones = [house.door, house.second, anybody]
        forged = {"To": "<sip:x@site.example>;tag=invented"}
        door = {"From": f"<{house.site.uri('door')}>;tag=caller"}
        for method in ("MESSAGE", "INVITE", "INFO", "OPTIONS", "NOTIFY"):
            for phone in phones:
                assert talk.ask(method, f"sip:+4990012345@{phone.address}") == 481
                assert talk.ask(method, f"sip:+4990012345@{phone.address}", **forged) == 481
                # The way to the other end is no way around it.
                routes = f"{headers(talk.answer.text, 'Record-Route')[0]}, <sip:{phone.address};lr>"
                assert talk.ask(method, Route=routes) == 481
                alias = "~".join(phone.address.split(":"))
                assert talk.ask(method, f"sip:stranger@{house.flat1.address};alias={alias}~1") == 481
            assert talk.ask(method, **forged) == 481
            assert talk.ask(method, **door) == 481
            assert talk.ask(method, From=f"<{house.site.uri('flat2')}>;tag=other") == 481
        assert all(is_quiet(phone, 0.1) for phone in [*phones, house.flat1])


@pytest.mark.item(7, "a trunk stays within its call: no other phone, no other trunk, no other name", "own")
def test_a_trunk_stays_within_its_call(house: House) -> None:
    talk = house.talk_from_trunk()
    door = {"From": '"Door" <sip:door@site.example>;tag=caller'}
    for method in ("MESSAGE", "INVITE"):
        for phone in (house.flat2, house.second):
            invented = {"To": "<sip:x@site.example>;tag=invented"}
            assert talk.ask(method, f"sip:+4990012345@{phone.address}") == 481
            assert talk.ask(method, f"sip:+4990012345@{phone.address}", **invented) == 481
            assert is_quiet(phone, 0.1)
        arrived = talk.passes(method, **door)
        assert header(arrived, "From") == header(talk.invite, "From")


@pytest.mark.item(7, "a phone moves within a call, and is found where it is now", "own messages")
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_a_phone_that_moves(house: House, method: str) -> None:
    talk = house.talk("flat2", house.flat1, house.site.uri("flat1"))
    with Stranger(house.site.proxy, INSIDE) as elsewhere:
        talk.passes(method, Contact=f"<sip:flat2@{elsewhere.address}>")
        say_back(house.flat1, talk.invite.replace(house.flat2.address, elsewhere.address), "INFO")
        wait_request(elsewhere, "INFO")
        # The other end moves with its answer.
        talk.say(method)
        with Stranger(house.site.proxy, INSIDE) as new:
            there = {"Contact": f"<sip:flat1@{new.address}>"}
            house.flat1.reply(wait_request(house.flat1, method), 200, there)
            assert wait_answer(house.flat2).code == 200
            talk.say("INFO", f"sip:flat1@{new.address}")
            wait_request(new, "INFO")


@pytest.mark.item(7, "REFER: between two phones in their call, and nowhere else", "own messages")
def test_who_may_transfer_a_call(house: House) -> None:
    premium = {"Refer_To": "<sip:+4990012345@site.example>"}
    talk = house.talk("flat2", house.flat1, house.site.uri("flat1"))
    assert header(talk.passes("REFER", **premium), "Refer-To") == premium["Refer_To"]
    assert talk.passes("BYE")
    trunk = house.talk_from_trunk()
    assert trunk.ask("REFER", **premium) == 403
    uri = house.site.uri("flat1")
    who = {"From": f"<{house.site.uri('flat2')}>;tag=1", "Refer-To": premium["Refer_To"]}
    assert house.flat2.ask("REFER", uri, who).code == 403
    assert is_quiet(house.flat1)


@pytest.mark.item(10, "killed in the middle of a call, the site is told of its end", "own messages")
@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("direction", ["out", "in"])
@pytest.mark.parametrize("ended_by", ["caller", "called"])
def test_a_call_with_a_trunk_outlives_the_site(
    house: House, remembered: bool, direction: str, ended_by: str
) -> None:
    if direction == "out":
        talk = house.talk("door", house.first, "sip:+4930999@site.example")
    else:
        talk = house.talk_from_trunk()
    if remembered:
        house.wait_written()
    house.site.kill()
    house.site.restart()
    if ended_by == "caller":
        talk.say("BYE")
        bye = wait_request(talk.called, "BYE")
        talk.called.reply(bye, 200)
        assert wait_answer(talk.caller).code == 200
    else:
        say_back(talk.called, talk.invite, "BYE")
        bye = wait_request(talk.caller, "BYE")
        talk.caller.reply(bye, 200)
        assert wait_answer(talk.called).code == 200
    to_trunk = (direction == "out") == (ended_by == "caller")
    if to_trunk:
        assert not re.search(rf"{INSIDE}|site\.example|door|flat", bye)
    call = talk.invite if ended_by == "caller" else talk.answer.text
    assert header(bye, "Call-ID") == header(call, "Call-ID")


@pytest.mark.item(
    10, "after a restart a call is held as before; one that was forgotten is not", "own messages"
)
def test_a_call_after_a_restart(house: House) -> None:
    talk = house.talk("flat2", house.flat1, house.site.uri("flat1"))
    house.wait_written()
    house.site.restart()
    talk.passes("INVITE")
    house.site.kill()
    (house.site.folder / "state.db").unlink()
    house.site.restart()
    assert talk.ask("INVITE") == 481
    assert talk.ask("MESSAGE") == 481
    talk.passes("BYE")


@pytest.mark.item(10, "a database of an earlier version gets the table of the calls", "own messages")
def test_an_earlier_database(house: House) -> None:
    house.site.kill()
    with closing(sqlite3.connect(house.site.folder / "state.db")) as database, database:
        database.execute("DROP TABLE dialog")
        database.execute("DROP TABLE dialog_vars")
        database.execute("DELETE FROM version WHERE table_name LIKE 'dialog%'")
    house.site.restart()
    house.talk("flat2", house.flat1, house.site.uri("flat1"))
    house.wait_written()


@pytest.mark.item(10, "a locked database holds up no call", "own messages")
def test_a_locked_database(house: House) -> None:
    talk = house.talk("flat2", house.flat1, house.site.uri("flat1"))
    house.wait_written()
    with closing(sqlite3.connect(house.site.folder / "state.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()
        talk.passes("INVITE")
        talk.passes("BYE")
        house.talk("flat2", house.flat1, house.site.uri("flat1")).passes("BYE")
        assert time.monotonic() - begun < 1.0
        house.site.kill()
        # Nor the next start.
        house.site.restart()
        house.talk("flat2", house.flat1, house.site.uri("flat1")).passes("BYE")
        database.execute("ROLLBACK")


@pytest.mark.long
@pytest.mark.item(
    10, "two phones vanish in their call: its lamp goes out, the others' stay lit", "baresip, station"
)
def test_two_phones_vanish(tmp_path: Path) -> None:
    names = ("kitchen", "hall", "study", "cellar", "door", "loft")
    with (
        Site(tmp_path / "site", users={name: f"{name}-secret" for name in names}) as site,
        ExitStack() as parts,
    ):

        def phone(name: str, transport: Transport = "udp") -> Phone:
            account = site.account(name, transport)
            new = parts.enter_context(Phone(tmp_path / name, account, answer="auto"))
            new.wait_registered()
            return new

        kitchen, hall, study, cellar = (
            phone("kitchen"),
            phone("hall", "tcp"),
            phone("study", "tcp"),
            phone("cellar"),
        )
        loft = phone("loft")
        text = settings(site.account("door"), [(site.uri("loft"), 20)])
        door = parts.enter_context(Station(tmp_path / "door", "door-secret", text))
        door.wait_registered()
        lamps = {
            name: parts.enter_context(Watcher(site, "loft", name, "dialog"))
            for name in ("kitchen", "study", "door")
        }
        kitchen.dial(site.uri("hall"))
        study.dial(site.uri("cellar"))
        door.press()
        for lamp in lamps.values():
            lamp.wait_state("confirmed", timeout=5.0)
        kitchen.kill()
        hall.kill()
        lamps["kitchen"].wait_state("terminated", timeout=90.0)
        # The others were asked as often, and are still there.
        assert is_quiet(lamps["study"])
        assert is_quiet(lamps["door"])
        loft.hang_up()
        door.wait_state("Idle")
        cellar.hang_up()
        study.wait_closed()


@pytest.mark.item(7, "nobody passes for another in P-Asserted-Identity and the like", "own messages")
def test_who_calls_stands_in_from(house: House) -> None:
    names = ("P-Asserted-Identity", "P-Preferred-Identity", "Remote-Party-ID")
    false = {name: f"<{house.site.uri('door')}>" for name in names}
    Call(house.flat2, house.site.account("flat2"), house.site.uri("flat1"), false).begin()
    invite = wait_request(house.flat1, "INVITE")
    assert not [name for name in names if header(invite, name)]
    house.flat1.reply(invite, 486)


@pytest.mark.item(10, "a forward to a mobile that sends the call back ends after ten rounds", "own messages")
def test_a_circle_through_a_trunk(house: House) -> None:
    house.site.store.permit("flat1", [""])
    house.site.store.set_forward("flat1", away="+4917055555")
    house.site.reload()
    house.site.ask("ul.rm", "location", "flat1")

    def comes_back(count: int) -> None:
        who = {"From": f"<sip:+4989@{FIRST}>;tag=round{count}", "Call-ID": f"round{count}"}
        house.first.send("INVITE", f"sip:{OUR_NUMBER}@{house.site.proxy}", who)

    rounds = 0
    comes_back(rounds)
    while status(message := house.first.receive()) != 486:
        if message.startswith("INVITE "):
            rounds += 1
            house.first.reply(message, 100)
            comes_back(rounds)
    assert rounds == 10


@pytest.mark.item(5, "another call with the same Call-ID does not put out a lamp", "own messages")
def test_a_call_id_twice(house: House) -> None:
    site = house.site
    with Watcher(site, "flat2", "door", "dialog") as lamp:
        talk = house.talk("door", house.flat1, site.uri("flat1"))
        lamp.wait_state("confirmed")
        account, uri = site.account("flat2"), site.uri("flat1")
        who = {"From": f"<{account.uri}>;tag=other", "Call-ID": talk.answer.header("Call-ID")}
        challenge = house.flat2.ask("INVITE", uri, who)
        house.flat2.send("INVITE", uri, who | {"CSeq": "2 INVITE"} | proof(challenge, account, "INVITE", uri))
        house.flat1.reply(wait_request(house.flat1, "INVITE"), 486)
        assert wait_answer(house.flat2).code == 486
        assert is_quiet(lamp, 0.5)


@pytest.mark.item(10, "an absurd Call-ID is refused", "own messages")
def test_a_long_call_id(house: House) -> None:
    who = {"From": f"<sip:+4989@{FIRST}>;tag=1", "Call-ID": "x" * 257}
    assert house.first.ask("INVITE", f"sip:{OUR_NUMBER}@{house.site.proxy}", who).code == 400
    assert house.first.ask("OPTIONS", f"sip:{house.site.proxy}", {"Call-ID": "x" * 256}).code == 200


@pytest.mark.item(10, "a trunk cannot fill the memory with calls that nobody has made", "own messages")
def test_a_trunk_does_not_fill_the_memory(house: House) -> None:
    for count in range(300):
        who = {"From": f"<sip:+4989@{FIRST}>;tag=q{count}", "Call-ID": f"forged{count}"}
        house.first.send("INVITE", f"sip:{OUR_NUMBER}@{house.site.proxy}", who)
        if count >= 10:
            wait_answer(house.first)
    tables = {table["name"]: table for table in house.site.ask("htable.stats")["result"]}
    assert tables["outside"]["all"] <= 10


@pytest.mark.item(4, "a caller from outside may be called O'Brien", "own messages")
def test_a_caller_with_an_apostrophe(house: House) -> None:
    who = {"From": f"\"O'Brien\" <sip:o'brien@{FIRST}>;tag=1"}
    house.first.send("INVITE", f"sip:{OUR_NUMBER}@{house.site.proxy}", who)
    assert header(wait_request(house.flat1, "INVITE"), "From").endswith(f"<sip:anonymous@{FIRST}>;tag=1")


@pytest.mark.item(7, "a user who registers a trunk's address does not call through it", "own messages")
def test_a_trunk_is_no_phone(house: House) -> None:
    register(house.site, "flat2", house.flat2, contact=f"sip:+4990012345@{house.second.address}")
    account, uri = house.site.account("flat1"), house.site.uri("flat2")
    who = {"From": f"<{account.uri}>;tag=1"}
    challenge = house.flat1.ask("INVITE", uri, who)
    house.flat1.send("INVITE", uri, who | proof(challenge, account, "INVITE", uri))
    wait_request(house.flat2, "INVITE")
    assert is_quiet(house.second)
