"""What a trunk gets to see: nothing of the addresses, names and programs behind the site.

Only what a session description says stays as it is: the sound goes straight to the phone, so the trunk must
be told where that is. Who wants to hide that as well lets the sound run through a relay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from deploy.demo.phone import Phone
from deploy.demo.scenarios import rings_forever
from deploy.demo.sipp import Sipp
from deploy.demo.site import Site
from deploy.demo.stranger import Stranger, proof
from deploy.demo.trunk import Trunk, messages
from tests.integration.conftest import USERS

FIRST, SECOND, INSIDE = "127.0.3.1", "127.0.3.2", "127.0.4.1"
ACCOUNT = ("4930123456", "trunk-secret")
OUR_NUMBER = "+4930123456"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site whose users all stand at one address and may call every number."""
    with Site(tmp_path / "site", users=USERS) as site:
        for user in USERS:
            site.store.permit(user, [""])
        site.store.set_number(OUR_NUMBER, "flat1")
        yield site


def shown(texts: list[str]) -> list[str]:
    """What messages give away about the inside, the session description left out."""
    heads = [re.split(r"\r?\n\r?\n", text, maxsplit=1)[0] for text in texts]
    inside = (
        rf"{re.escape(INSIDE)}|site\.example|\b(door|flat[12])\b|baresip|secret"
        "|^(User-Agent|Server|X-|P-(?!K-CSeq-Refresh)|Proxy-|TH:).*"
    )
    return [match[0] for head in heads for match in re.finditer(inside, head, re.MULTILINE | re.IGNORECASE)]


def call_ids(texts: list[str]) -> set[str]:
    return {match[1] for text in texts if (match := re.search(r"^Call-ID:\s*(\S+)", text, re.MULTILINE))}


@pytest.mark.item(7, "a call to a trunk, held and ended by us, shows nothing of the inside", "baresip, SIPp")
def test_a_call_to_a_trunk(tmp_path: Path, site: Site) -> None:
    with (
        Trunk(tmp_path / "trunk", FIRST, account=ACCOUNT) as trunk,
        Phone(tmp_path / "door", site.account("door"), address=INSIDE) as door,
    ):
        site.store.set_gateway("trunk", trunk.uri, username=ACCOUNT[0], password=ACCOUNT[1])
        site.reload()
        door.wait_registered()
        door.dial("sip:+4930999@site.example")
        door.wait_established()
        trunk.wait_received("ACK", 2)  # or the next request may overtake it
        door.hold()
        trunk.wait_received("ACK", 3)
        door.hang_up()
        trunk.wait_received("BYE", 2)
        call = [*trunk.received("INVITE"), *trunk.received("ACK"), *trunk.received("BYE")]
        assert len(call) == 8
        assert shown(call) == []
        assert len(call_ids(call)) == 1
        assert shown(trunk.received("OPTIONS")) == []
        # The phone is told none of it: its call is the one that it began.
        assert "site-" not in door.log.read_text()


@pytest.mark.item(7, "a call to a trunk that the trunk ends shows nothing of the inside", "baresip, SIPp")
def test_a_call_that_the_trunk_ends(tmp_path: Path, site: Site) -> None:
    with (
        Trunk(tmp_path / "trunk", FIRST, manner="hangs up") as trunk,
        Phone(tmp_path / "door", site.account("door"), address=INSIDE) as door,
    ):
        site.store.set_gateway("trunk", trunk.uri)
        site.reload()
        door.wait_registered()
        door.dial("sip:+4930999@site.example")
        door.wait_closed()
        trunk.wait_received("SIP/2.0 200")
        call = [*trunk.received("INVITE"), *trunk.received("ACK"), *trunk.received("SIP/2.0")]
        assert len(call) == 3
        # The name of who calls is no secret from a gateway that has no account for us.
        assert set(shown(call)) == {"door"}
        assert len(call_ids(call)) == 1


@pytest.mark.item(7, "who gives up while the trunk rings shows nothing of the inside", "baresip, SIPp")
def test_a_call_given_up(tmp_path: Path, site: Site) -> None:
    with (
        Trunk(tmp_path / "trunk", FIRST, manner="rings", account=ACCOUNT) as trunk,
        Phone(tmp_path / "door", site.account("door"), address=INSIDE) as door,
    ):
        site.store.set_gateway("trunk", trunk.uri, username=ACCOUNT[0], password=ACCOUNT[1])
        site.reload()
        door.wait_registered()
        door.dial("sip:+4930999@site.example")
        door.wait_event("CALL_RINGING")
        door.hang_up()
        # Of the request without a password, and of the one that was given up.
        trunk.wait_received("ACK", 2)
        call = [*trunk.received("INVITE"), *trunk.received("CANCEL"), *trunk.received("ACK")]
        assert len(call) == 5
        assert shown(call) == []
        assert len(call_ids(call)) == 1


@pytest.mark.item(7, "of two trunks, the one that refuses learns no more than the other", "baresip, SIPp")
def test_a_call_that_the_second_trunk_takes(tmp_path: Path, site: Site) -> None:
    with (
        Trunk(tmp_path / "first", FIRST, refuses=503, account=ACCOUNT) as first,
        Trunk(tmp_path / "second", SECOND, account=ACCOUNT) as second,
        Phone(tmp_path / "door", site.account("door"), address=INSIDE) as door,
    ):
        site.store.set_gateway("first", first.uri, priority=1, username=ACCOUNT[0], password=ACCOUNT[1])
        site.store.set_gateway("second", second.uri, username=ACCOUNT[0], password=ACCOUNT[1])
        site.reload()
        door.wait_registered()
        door.dial("sip:+4930999@site.example")
        door.wait_established()
        second.wait_received("ACK", 2)
        door.hang_up()
        second.wait_received("BYE", 2)
        for trunk in (first, second):
            assert len(trunk.received("INVITE")) == 2
            assert shown(trunk.received()) == []


@pytest.mark.item(
    7, "a call from a trunk, ended by either side, shows it nothing of the inside", "baresip, SIPp"
)
@pytest.mark.parametrize("ended_by", ["trunk", "phone"])
def test_a_call_from_a_trunk(tmp_path: Path, site: Site, ended_by: Literal["trunk", "phone"]) -> None:
    with (
        Trunk(tmp_path / "trunk", FIRST) as trunk,
        Phone(tmp_path / "flat1", site.account("flat1"), address=INSIDE, answer="auto") as flat,
    ):
        site.store.set_gateway("trunk", trunk.uri)
        site.reload()
        flat.wait_registered()
        with trunk.calls(site.proxy, OUR_NUMBER, ended_by=ended_by) as call:
            flat.wait_established()
            if ended_by == "phone":
                flat.hold()
                flat.wait_event("CALL_REMOTE_SDP", text="answer")
                flat.hang_up()
            assert call.wait().successful == 1
            got = messages((call.folder / "messages.log").read_text(), "received")
        requests = {text.split()[0] for text in got} - {"SIP/2.0"}
        assert requests == (set() if ended_by == "trunk" else {"INVITE", "ACK", "BYE"})
        assert shown(got) == []
        assert len(call_ids(got)) == 1


@pytest.mark.item(7, "a call that rang inside first: the phone sees its own call, the trunk nothing", "SIPp")
def test_a_forward_to_a_trunk(tmp_path: Path, site: Site) -> None:
    with (
        Trunk(tmp_path / "trunk", FIRST, refuses=486, account=ACCOUNT) as trunk,
        Sipp(tmp_path / "flat1", rings_forever(), source=INSIDE, keeps_messages=True) as flat,
        Stranger(site.proxy, INSIDE) as door,
    ):
        site.store.set_gateway("trunk", trunk.uri, username=ACCOUNT[0], password=ACCOUNT[1])
        site.store.set_forward("flat1", unanswered="+4930999", seconds=3)
        site.reload()
        site.place("flat1", flat.contact)
        uri = site.uri("flat1")
        who = {"From": f"<{site.uri('door')}>;tag=1", "X-Floor": "2", "User-Agent": "door station"}
        digest = proof(door.ask("INVITE", uri, who), site.account("door"), "INVITE", uri)
        assert door.ask("INVITE", uri, who | digest | {"Call-ID": "door-and-flat1"}, timeout=8.0).code == 486
        assert flat.wait().successful == 1
        rang = messages((flat.folder / "messages.log").read_text(), "received")
        assert [text.split()[0] for text in rang] == ["INVITE", "CANCEL", "ACK"]
        assert call_ids(rang) == {"door-and-flat1"}
        assert all(INSIDE in text and "TH: " not in text for text in rang[:1])
        assert shown(trunk.received()) == []
