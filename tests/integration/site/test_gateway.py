"""Numbers and trunks: who may call which number, which trunk takes the call, and what a trunk may do."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deploy.demo.phone import Phone
from deploy.demo.program import wait_until
from deploy.demo.site import Site
from deploy.demo.station import Station, settings
from deploy.demo.stranger import Reply, Stranger, proof
from deploy.demo.trunk import Trunk
from tests.integration.conftest import USERS

FIRST, SECOND = "127.0.3.1", "127.0.3.2"
OUR_NUMBER = "+4930123456"
# Every sign that a password may have, but '[', which SIPp takes for the beginning of a keyword.
ACCOUNT = ("4930123456", "".join(chr(sign) for sign in range(33, 127) if chr(sign) not in '"\\['))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site in Germany, whose door may call every number."""
    with Site(tmp_path / "site", users=USERS, numbers={"country": "49"}) as site:
        site.store.permit("door", [""])
        yield site


def dial(site: Site, user: str, number: str, timeout: float = 8.0) -> Reply:
    """The final answer to a user who calls a number or a URI."""
    account = site.account(user)
    uri = number if ":" in number else f"sip:{number}@{site.realm}"
    who = {"From": f"<{account.uri}>;tag=1"}
    with Stranger(site.proxy, "127.0.4.9") as phone:
        challenge = phone.ask("INVITE", uri, who)
        assert challenge.code == 407
        return phone.ask("INVITE", uri, who | proof(challenge, account, "INVITE", uri), timeout=timeout)


def invite_from(trunk: str, site: Site, number: str, headers: dict[str, str] | None = None) -> Reply:
    """The final answer to a call that a trunk brings."""
    who = {"From": f"<sip:+4989987654@{trunk}>;tag=1"}
    with Stranger(site.proxy, trunk) as caller:
        return caller.ask("INVITE", f"sip:{number}@{site.proxy}", who | (headers or {}))


def state(site: Site, trunk: Trunk) -> str:
    """What the site thinks of a trunk: A… it is active, I… it is down."""
    sets = site.ask("dispatcher.list")["result"]["RECORDS"]
    targets = [target["DEST"] for entry in sets for target in entry["SET"]["TARGETS"]]
    return next(str(target["FLAGS"]) for target in targets if target["URI"] == trunk.uri)


def cseq(message: str) -> int:
    found = re.search(r"^CSeq:\s*(\d+)", message, re.MULTILINE)
    assert found
    return int(found[1])


@pytest.mark.item(4, "a number in any spelling reaches the trunk in one form", "SIPp")
def test_a_number_in_any_spelling(tmp_path: Path, site: Site) -> None:
    spellings = {
        "+4930999": "+4930999",
        "%2B49(30)9-99": "+4930999",
        "004930999": "+4930999",
        "030999": "+4930999",
        "030.999;phone-context=+49": "+4930999",
        "tel:+49-30-999": "+4930999",
        "tel:(030)9.99;phone-context=example.com": "+4930999",
        "tel:112;phone-context=+49": "112",
        "110": "110",
        "0043123": "+43123",
    }
    with Trunk(tmp_path / "trunk", FIRST, refuses=404) as trunk:
        site.store.set_gateway("trunk", trunk.uri)
        site.reload()
        for count, (spelling, number) in enumerate(spellings.items(), 1):
            assert dial(site, "door", spelling).code == 404
            assert trunk.wait_received("INVITE", count).startswith(f"INVITE sip:{number}@{FIRST}:")


@pytest.mark.item(
    4, "a call with the trunk's digest, held and ended with it; each CSeq is the next", "baresip, SIPp"
)
def test_a_trunk_that_asks_for_a_password(tmp_path: Path, site: Site) -> None:
    with (
        Trunk(tmp_path / "trunk", FIRST, account=ACCOUNT) as trunk,
        Phone(tmp_path / "door", site.account("door")) as door,
    ):
        site.store.set_gateway("trunk", trunk.uri, username=ACCOUNT[0], password=ACCOUNT[1])
        site.reload()
        door.wait_registered()
        door.dial("sip:030999@site.example")
        door.wait_established()
        trunk.wait_received("ACK", 2)  # or the next request may overtake it
        door.hold()
        trunk.wait_received("INVITE", 3)
        trunk.wait_received("ACK", 3)
        door.hang_up()
        trunk.wait_received("BYE", 2)
        # The trunk's challenges are ours to answer: a phone would show it what it knows of its own password.
        assert "trunk.example" not in door.log.read_text()
    invites, acks = trunk.received("INVITE"), trunk.received("ACK")
    assert f"From: <sip:{ACCOUNT[0]}@{FIRST}>" in invites[0]
    first = cseq(invites[0])
    assert [cseq(message) for message in invites] == [first, first + 1, first + 2]
    assert [cseq(message) for message in acks] == [first, first + 1, first + 2]
    byes = trunk.received("BYE")
    assert [cseq(message) for message in byes] == [first + 3, first + 4]
    assert ["uthorization:" in message for message in byes] == [False, True]


@pytest.mark.item(4, "a trunk that refuses our password gets no other, and the caller's none", "SIPp")
def test_a_trunk_that_refuses_our_password(tmp_path: Path, site: Site) -> None:
    with Trunk(tmp_path / "trunk", FIRST, account=ACCOUNT) as trunk:
        site.store.set_gateway("trunk", trunk.uri)
        site.reload()
        assert dial(site, "door", "030999").code == 503
        assert "Authorization" not in trunk.received("INVITE")[-1]
        site.store.set_gateway("trunk", trunk.uri, username=ACCOUNT[0], password="wrong")
        site.reload()
        assert dial(site, "door", "030999").code == 503
        # Once without it and once with it: somebody who guesses is soon locked out.
        assert len(trunk.received("INVITE")) == 3


@pytest.mark.item(4, "a user calls the numbers he may call, and a forward those of the forwarder", "SIPp")
def test_only_what_a_user_may_call(tmp_path: Path, site: Site) -> None:
    with Trunk(tmp_path / "trunk", FIRST, refuses=404) as trunk:
        site.store.set_gateway("trunk", trunk.uri)
        site.store.permit("flat1", ["+4930", "112"])
        site.reload()
        refused = dial(site, "flat1", "+43123")
        assert (refused.code, refused.text.partition("\r\n")[0]) == (403, "SIP/2.0 403 Number Not Permitted")
        assert dial(site, "flat1", "112").code == 404
        # What begins like it is another number, and perhaps abroad.
        assert dial(site, "flat1", "1120043123").code == 403
        assert dial(site, "flat1", "030999").code == 404
        assert dial(site, "flat2", "030999").code == 403
        # Nobody is at home in flat2: the call goes on, and flat2 answers for it, who may call nothing.
        site.store.set_forward("flat2", away="030999")
        site.reload()
        assert dial(site, "door", "flat2").code == 403
        assert len(trunk.received("INVITE")) == 2
        site.store.permit("flat2", ["+49"])
        site.reload()
        assert dial(site, "flat1", "flat2").code == 404
        assert trunk.wait_received("INVITE", 3).startswith("INVITE sip:+4930999@")


@pytest.mark.item(4, "the longest beginning of a number finds its trunk", "SIPp, two trunks")
def test_a_range_of_numbers(tmp_path: Path, site: Site) -> None:
    with (
        Trunk(tmp_path / "all", FIRST, refuses=404) as every,
        Trunk(tmp_path / "berlin", SECOND, refuses=404) as berlin,
    ):
        site.store.set_gateway("berlin", berlin.uri, ranges=["+4930"])
        site.reload()
        assert dial(site, "door", "+4989999").code == 404
        assert not berlin.received("INVITE")
        site.store.set_gateway("all", every.uri, priority=10, ranges=["", "+49"])
        site.reload()
        for number in ("+4930999", "+4989999", "112"):
            assert dial(site, "door", number).code == 404
        assert [text.split()[1].split("@")[0] for text in berlin.received("INVITE")] == ["sip:+4930999"]
        assert len(every.received("INVITE")) == 2


@pytest.mark.item(4, "one trunk refuses with 503, the other takes the call", "baresip, SIPp, two trunks")
def test_the_second_trunk_takes_the_call(tmp_path: Path, site: Site) -> None:
    with (
        Trunk(tmp_path / "first", FIRST, refuses=503) as first,
        Trunk(tmp_path / "second", SECOND, account=ACCOUNT) as second,
        Phone(tmp_path / "door", site.account("door")) as door,
    ):
        site.store.set_gateway("first", first.uri, priority=10)
        site.store.set_gateway("second", second.uri, username=ACCOUNT[0], password=ACCOUNT[1])
        site.reload()
        door.wait_registered()
        door.dial("sip:030999@site.example")
        door.wait_established()
        second.wait_received("ACK", 2)
        door.hang_up()
        second.wait_received("BYE")
        assert f"To: <sip:+4930999@{FIRST}>" in first.received("INVITE")[0]
        assert f"To: <sip:+4930999@{SECOND}>" in second.received("INVITE")[1]
        assert state(site, first).startswith("A")


@pytest.mark.item(4, "what concerns who is called is the answer: no other trunk is asked", "SIPp, two trunks")
@pytest.mark.parametrize("code", [404, 486, 603])
def test_an_answer_is_an_answer(tmp_path: Path, site: Site, code: int) -> None:
    with (
        Trunk(tmp_path / "first", FIRST, refuses=code) as first,
        Trunk(tmp_path / "second", SECOND) as second,
    ):
        site.store.set_gateway("first", first.uri, priority=10)
        site.store.set_gateway("second", second.uri)
        site.reload()
        assert dial(site, "door", "030999").code == code
        assert not second.received("INVITE")


@pytest.mark.item(10, "a silent trunk costs one call 3 s, the next none; it comes back", "SIPp, two trunks")
def test_a_silent_trunk(tmp_path: Path, site: Site) -> None:
    with (
        Trunk(tmp_path / "first", FIRST, refuses=486) as first,
        Trunk(tmp_path / "second", SECOND, refuses=486) as second,
    ):
        site.store.set_gateway("first", first.uri, priority=10)
        site.store.set_gateway("second", second.uri)
        site.reload()
        first.freeze()
        begun = time.monotonic()
        assert dial(site, "door", "030999").code == 486
        assert 2.5 < time.monotonic() - begun < 5.0
        assert len(second.received("INVITE")) == 1
        begun = time.monotonic()
        assert dial(site, "door", "030999").code == 486
        assert time.monotonic() - begun < 1.0
        first.thaw()
        assert wait_until(lambda: state(site, first).startswith("A"), 10.0)
        asked = len(second.received("INVITE"))
        assert dial(site, "door", "030999").code == 486
        assert len(second.received("INVITE")) == asked


@pytest.mark.item(10, "a trunk that cannot be reached over its transport is passed over", "SIPp, two trunks")
def test_a_trunk_that_cannot_be_reached(tmp_path: Path, site: Site) -> None:
    with Trunk(tmp_path / "second", SECOND, refuses=486) as second:
        site.store.set_gateway("first", f"sip:{FIRST}:5060;transport=sctp", priority=10)
        site.store.set_gateway("second", second.uri)
        site.reload()
        assert dial(site, "door", "030999").code == 486
        site.store.remove_gateway("second")
        site.reload()
        assert dial(site, "door", "030999").code == 503


@pytest.mark.item(10, "when every trunk is down, the caller is told so", "SIPp")
def test_every_trunk_is_down(tmp_path: Path, site: Site) -> None:
    with Trunk(tmp_path / "trunk", FIRST, manner="is mute") as trunk:
        site.store.set_gateway("trunk", trunk.uri)
        site.reload()
        site.ask("dispatcher.ping_active", 0)  # it does answer those
        for most in (5.0, 1.0):
            begun = time.monotonic()
            answer = dial(site, "door", "030999")
            assert answer.text.startswith("SIP/2.0 503 Every Gateway Is Down")
            assert time.monotonic() - begun < most


@pytest.mark.item(4, "a trunk given by its name is called, and calls", "SIPp")
def test_a_trunk_with_a_name(tmp_path: Path, site: Site) -> None:
    with Trunk(tmp_path / "trunk", "127.0.0.1", refuses=404) as trunk:
        site.store.set_gateway("trunk", f"sip:localhost:{trunk.port}")
        site.reload()
        assert dial(site, "door", "030999").code == 404
        assert trunk.received("INVITE")[0].startswith(f"INVITE sip:+4930999@localhost:{trunk.port} ")
        assert invite_from("127.0.0.1", site, "+4989").text.startswith("SIP/2.0 404 Not Our Number")


@pytest.mark.item(4, "registered with a trunk, and called at what was registered", "SIPp, baresip")
def test_registered_with_a_trunk(tmp_path: Path, site: Site) -> None:
    with (
        Trunk(tmp_path / "trunk", FIRST, account=ACCOUNT) as trunk,
        Phone(tmp_path / "flat1", site.account("flat1"), answer="auto") as flat,
    ):
        site.store.set_gateway("trunk", trunk.uri, username=ACCOUNT[0], password=ACCOUNT[1], registers=True)
        site.store.set_number(OUR_NUMBER, "flat1")
        site.reload()
        registration = trunk.wait_received("REGISTER", 2)
        assert f"Contact: <sip:trunk@{site.proxy}>" in registration
        assert wait_until(lambda: "200 OK" in trunk.sent()[-1] or "200 OK" in "".join(trunk.sent()), 2.0)
        flat.wait_registered()
        # The number stands in To, or, when it does not, it is that of the account.
        for to in (f"sip:{OUR_NUMBER}@{FIRST}", f"sip:trunk@{FIRST}"):
            with trunk.calls(site.proxy, "trunk", to=to) as call:
                flat.wait_established()
                assert call.wait().successful == 1


@pytest.mark.item(4, "a call from a trunk to a number of ours rings a user or a group", "SIPp, baresip")
def test_a_call_from_a_trunk(tmp_path: Path, site: Site) -> None:
    with (
        Trunk(tmp_path / "trunk", FIRST) as trunk,
        Phone(tmp_path / "flat1", site.account("flat1"), answer="auto") as flat,
    ):
        site.store.set_gateway("trunk", trunk.uri)
        site.store.set_group("house", ["flat1", "flat2"])
        site.store.set_number(OUR_NUMBER, "flat1")
        site.store.set_number(OUR_NUMBER + "0", "house")
        site.reload()
        flat.wait_registered()
        for number in (OUR_NUMBER, OUR_NUMBER.removeprefix("+"), "030123456", OUR_NUMBER + "0"):
            with trunk.calls(site.proxy, number) as call:
                assert flat.wait_established().peer == f"sip:+4989987654@{FIRST}"
                assert call.wait().successful == 1


@pytest.mark.item(4, "one of us who calls a number of ours needs no trunk", "baresip")
def test_a_number_of_ours_from_inside(tmp_path: Path, site: Site) -> None:
    with Phone(tmp_path / "flat1", site.account("flat1")) as flat:
        site.store.set_number(OUR_NUMBER, "flat1")
        site.reload()
        flat.wait_registered()
        with Stranger(site.proxy) as somebody:
            account, uri = site.account("flat2"), f"sip:030123456@{site.realm}"
            who = {"From": f"<{account.uri}>;tag=1"}
            somebody.send(
                "INVITE", uri, who | proof(somebody.ask("INVITE", uri, who), account, "INVITE", uri)
            )
            assert flat.wait_ringing().peer == account.uri


@pytest.mark.item(4, "a trunk reaches our numbers, and nothing else", "SIPp")
def test_what_a_trunk_may_not(tmp_path: Path, site: Site) -> None:
    with Trunk(tmp_path / "trunk", FIRST, refuses=404) as trunk:
        site.store.set_gateway("trunk", trunk.uri)
        site.store.set_number(OUR_NUMBER, "flat1")
        site.reload()
        assert invite_from(FIRST, site, OUR_NUMBER).code == 480
        assert invite_from(FIRST, site, "flat1").code == 404
        assert invite_from(FIRST, site, "030999").code == 404
        # Not even where somebody sends his calls on to a number that he himself may not call.
        site.store.set_forward("flat1", away="030999")
        site.reload()
        assert invite_from(FIRST, site, OUR_NUMBER).code == 403
        # Nor if a number of ours were to lead outside, which `set_number` refuses.
        with closing(sqlite3.connect(site.store.path)) as database, database:
            database.execute("UPDATE own_number SET target = '+4930999'")
        site.reload()
        assert invite_from(FIRST, site, OUR_NUMBER).text.startswith("SIP/2.0 403 No Way From Trunk to Trunk")
        with Stranger(site.proxy, FIRST) as caller:
            who = {"From": f"<sip:+4989987654@{FIRST}>;tag=1"}
            assert caller.ask("MESSAGE", f"sip:flat1@{site.realm}", who).code == 403
            assert caller.ask("SUBSCRIBE", f"sip:flat1@{site.realm}", who).code == 403
            assert caller.ask("OPTIONS", f"sip:{site.proxy}", who).code == 200
        assert not trunk.received("INVITE")
        # Somebody else who only says that he is the trunk.
        who = {"From": f"<sip:+4989987654@{FIRST}>;tag=1"}
        with Stranger(site.proxy, "127.0.3.66") as stranger:
            assert stranger.ask("INVITE", f"sip:{OUR_NUMBER}@{site.realm}", who).code == 407


@pytest.mark.item(4, "a trunk never passes for one of our users", "SIPp, baresip")
def test_a_trunk_does_not_pass_for_a_user(tmp_path: Path, site: Site) -> None:
    with (
        Trunk(tmp_path / "trunk", FIRST) as trunk,
        Phone(tmp_path / "flat1", site.account("flat1"), answer="auto") as flat,
        Stranger(site.proxy) as listener,
    ):
        site.store.set_gateway("trunk", trunk.uri)
        site.store.set_number(OUR_NUMBER, "flat1")
        site.store.set_number(OUR_NUMBER + "2", "flat2")
        site.place("flat2", f"sip:flat2@{listener.address}")
        site.reload()
        flat.wait_registered()
        # Who writes our domain must know a password, wherever he is.
        forged = {"From": "<sip:door@site.example>;tag=1"}
        assert invite_from(FIRST, site, OUR_NUMBER, forged).code == 407
        for spelling in ("SITE.example", "site.example.", f"{site.address}:{site.port}"):
            with trunk.calls(site.proxy, OUR_NUMBER, caller=f"sip:door@{spelling}") as call:
                assert flat.wait_established().peer == f"sip:door@{FIRST}"
                assert call.wait().successful == 1
        headers = {
            "P-Asserted-Identity": "<sip:door@site.example>",
            "Remote-Party-ID": "<sip:door@site.example>",
            "Alert-Info": "<http://127.0.0.1>;info=alert-autoanswer",
            "Call-Info": "<sip:site.example>;answer-after=0",
        }
        with Stranger(site.proxy, FIRST) as caller:
            who = {"From": f'"door" <sip:door@{FIRST}>;tag=1'}
            caller.send("INVITE", f"sip:{OUR_NUMBER}2@{site.proxy}", who | headers)
            arrived = listener.receive()
        assert arrived.startswith("INVITE sip:flat2@")
        assert not [name for name in headers if f"{name}:" in arrived]


@pytest.mark.item(
    4, "a door that all of us may call is not opened to who calls through a trunk", "SIPp, the station"
)
def test_the_door_and_a_trunk(tmp_path: Path, site: Site) -> None:
    mobile = f"sip:+4917012345@{FIRST}"
    permits = f'[incoming]\npermit = ["sip:*@site.example", "{mobile}"]\nanswer = "automatic"\n'
    text = settings(site.account("door"), [(site.uri("flat1"), 20)], more=permits)
    with (
        Trunk(tmp_path / "trunk", FIRST) as trunk,
        Station(tmp_path / "door", USERS["door"], text) as station,
    ):
        site.store.set_gateway("trunk", trunk.uri)
        site.store.set_number(OUR_NUMBER, "door")
        site.reload()
        station.wait_registered()
        for spelling in ("SITE.EXAMPLE", "site.example.", "site.example:5060"):
            forged = {"From": f"<sip:flat1@{spelling}>;tag=1"}
            assert invite_from(FIRST, site, OUR_NUMBER, forged).code in {403, 407}
        assert station.status()["counters"]["calls_accepted"] == 0
        with trunk.calls(site.proxy, OUR_NUMBER, caller=mobile) as call:
            station.wait_event("CallAnswered")
            assert call.wait().successful == 1
