"""The resident sends the visitor to somebody else, and the visitor is never lost."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.demo.counterpart import Dialog
from deploy.demo.focus import Focus
from deploy.demo.linphone import Linphone
from deploy.demo.program import wait_until
from deploy.demo.scenarios import answers, answers_and_leaves, refers
from deploy.demo.site import Site
from deploy.demo.sound import VirtualCard
from deploy.demo.station import Station
from deploy.demo.stranger import Reply, Stranger, proof
from tests.bench import transfer
from tests.integration.conftest import Figure
from tests.integration.station.conftest import Door, Flat, Scripted, Served
from tests.integration.station.test_in_call import sent, talking
from tests.integration.station.test_incoming import sip_address


def outcomes(station: Station) -> list[tuple[object, ...]]:
    """How the calls went that are recorded so far, the newest last."""
    records = station.ask("GET", "/log")["records"]
    return [
        (entry["peer"], entry["outcome"], entry["reason"]) for entry in records if entry["kind"] == "call"
    ]


@pytest.mark.item(
    5, "blind transfer (REFER): the visitor hears ringing, then the second phone", "baresip x 2"
)
def test_the_resident_sends_the_visitor_to_another_phone(door: Door, flat: Flat, site: Site) -> None:
    station, first, second = door(), flat(), flat("flat2")
    talking(station, first)
    first.transfer(site.uri("flat2"))
    sent_on = station.wait_event("CallTransferred")
    assert {"type": "Play", "tone": "ringback"} in sent_on["actions"]
    assert second.wait_ringing().peer == site.uri("door")
    second.answer()
    taken = station.wait_event("CallAnswered")
    assert {"type": "HangUp", "call": 1} in taken["actions"]
    first.wait_closed()
    assert station.status()["call"]["peer"] == site.uri("flat2")
    second.press_digits("5#")
    station.wait_event("StrikeMoved", released=True)
    second.hang_up()
    station.wait_state("Idle")
    assert outcomes(station) == [
        (site.uri("flat1"), "answered", "transferred to sip:flat2@site.example"),
        (site.uri("flat2"), "answered", "Normal call clearing"),
    ]


@pytest.mark.item(5, "blind transfer that fails: the old call goes on", "SIPp, baresip")
def test_the_first_call_goes_on_when_the_second_phone_refuses(
    door: Door, scripted: Scripted, flat: Flat, site: Site
) -> None:
    second = flat("flat2")
    scripted(answers(refers(site.uri("flat2"))))
    station = door()
    station.press()
    second.wait_ringing()
    second.reject()
    failed = station.wait_event("CallEnded")
    assert {"type": "Play", "tone": "silence"} in failed["actions"]
    before = sent(station)
    assert wait_until(lambda: sent(station) > before + 10, 2.0), "the visitor is heard"
    assert station.status()["call"]["peer"] == site.uri("flat1")


@pytest.mark.item(5, "a phone that hangs up because its transfer failed: the bell rings again", "baresip x 2")
def test_the_bell_rings_again_when_the_first_phone_gives_up(door: Door, flat: Flat, site: Site) -> None:
    station, first, second = door(), flat(), flat("flat2")
    talking(station, first)
    first.transfer(site.uri("flat2"))
    second.wait_ringing()
    second.reject()
    station.wait_event("CallEnded", call=1)
    first.wait_ringing()


@pytest.mark.item(5, "the transferor leaves at once: the visitor waits for the second phone", "SIPp, baresip")
def test_the_visitor_waits_when_the_first_has_left(
    door: Door, scripted: Scripted, flat: Flat, site: Site
) -> None:
    second = flat("flat2")
    phone = scripted(answers_and_leaves(refers(site.uri("flat2"))))
    station = door()
    station.press()
    left = station.wait_state("Moving")
    assert {"type": "ShowLamp", "lamp": "calling"} in left["actions"] or station.status()["state"] == "moving"
    second.wait_ringing()
    second.answer()
    station.wait_state("Talking")
    assert phone.wait().successful == 1


@pytest.mark.item(5, "the transferor leaves and the transfer fails: the bell rings again", "SIPp")
def test_the_bell_rings_again_when_the_first_has_left_for_nothing(
    door: Door, scripted: Scripted, flat: Flat, site: Site
) -> None:
    second = flat("flat2")
    scripted(answers_and_leaves(refers(site.uri("flat2"))))
    station = door()
    station.press()
    station.wait_state("Moving")
    second.wait_ringing()
    second.reject()
    again = station.wait_action("Dial")
    assert (again["call"], again["to"]) == (2, site.uri("flat1"))


@pytest.mark.item(5, "transfer to a foreign address, or with headers of one's own: refused", "SIPp")
@pytest.mark.parametrize(
    "target",
    [
        "<sip:premium@bad.example>",
        "<sip:flat2@site.example?Route=%3Csip:127.0.0.2%3E>",
        pytest.param("<tel:+49900123>", marks=pytest.mark.long),
        pytest.param("nonsense <>", marks=pytest.mark.long),
    ],
)
def test_a_visitor_is_not_sent_anywhere(door: Door, scripted: Scripted, target: str) -> None:
    phone = scripted(answers(refers(target, 603)))
    station = door()
    station.press()
    station.program.wait_for("refused to be transferred", 10.0)
    assert station.status()["state"] == "talking"
    assert station.status()["counters"]["calls_placed"] == 1
    station.ask("POST", "/hangup", {})
    assert phone.wait().successful == 1


@pytest.mark.item(
    10, "REFER and INVITE with Replaces from outside the call: refused", "stranger with a password"
)
def test_nobody_from_outside_moves_a_call(door: Door, flat: Flat, site: Site) -> None:
    station, phone = door(), flat()
    talking(station, phone)
    account = site.account("flat2")
    with Stranger(site.proxy) as stranger:
        me = {"From": f"<{account.uri}>;tag=1"}
        sdp = (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 8\r\n"
        )
        for method, extra, body in (
            ("REFER", {"Refer-To": site.uri("flat2")}, ""),
            ("INVITE", {"Replaces": "made-up;to-tag=1;from-tag=2", "Content-Type": "application/sdp"}, sdp),
        ):
            reply = stranger.ask(method, site.uri("door"), {**me, **extra}, body)
            if reply.code == 407:
                answer = {**proof(reply, account, method, site.uri("door")), "CSeq": f"2 {method}"}
                reply = stranger.ask(method, site.uri("door"), {**me, **extra, **answer}, body)
            assert reply.code >= 400, reply.text
        with Stranger(sip_address(station, site)) as nobody:
            nobody.send("REFER", site.uri("door"), {"Refer-To": site.uri("flat2")})
    status = station.status()
    assert (status["state"], status["call"]["peer"]) == ("talking", site.uri("flat1"))
    assert status["counters"]["calls_placed"] == 1


@pytest.mark.item(10, "REFER outside a call, from the server itself: refused", "scripted server")
def test_a_server_sends_nobody_anywhere_outside_a_call(served: Served) -> None:
    station, server = served()
    station.press()
    dialog = server.take()
    station.wait_event("CallAnswered")
    to = f"sip:door@{server.target}"
    for headers in ({}, {"Target-Dialog": f"{dialog.call_id};local-tag=1;remote-tag=2"}):
        reply = server.ask("REFER", to, {"Refer-To": "<sip:flat2@site.example>", **headers})
        assert reply.code >= 400, reply.text
    status = station.status()
    assert (status["state"], status["call"]["id"], status["counters"]["calls_placed"]) == ("talking", 1, 1)


@pytest.mark.item(
    10, "INVITE with Replaces of the very call: refused from a foreign domain", "scripted server"
)
@pytest.mark.parametrize("asserted", [False, True])
def test_a_stranger_who_knows_the_dialog_takes_nothing_over(served: Served, asserted: bool) -> None:
    station, server = served()
    station.press()
    dialog = server.take()
    station.wait_event("CallAnswered")
    ours = dialog.remote.rpartition("tag=")[2]
    replaces = {"Replaces": f"{dialog.call_id};to-tag={ours};from-tag={server.tag}"}
    stranger = "<sip:flat1@bad.example>"
    foreign = {"P-Asserted-Identity": stranger} if asserted else {"From": f"{stranger};tag=9"}
    refused = server.call(headers={**replaces, **foreign})
    assert isinstance(refused, Reply)
    assert refused.code == 603
    assert station.status()["call"]["id"] == 1
    taken = server.call(headers=replaces, caller="flat2")
    assert isinstance(taken, Dialog), "who is at the account's domain may"
    assert station.wait_event("CallReplaced")["event"]["peer"] == "sip:flat2@site.example"


@pytest.fixture
def two(tmp_path: Path, site: Site, parts: ExitStack) -> tuple[Linphone, Linphone]:
    phones = [Linphone(tmp_path / user, site.account(user)) for user in ("flat1", "flat2")]
    for phone in phones:
        parts.enter_context(phone)
        phone.wait_registered()
    return phones[0], phones[1]


def consulting(station: Station, site: Site, first: Linphone, second: Linphone) -> None:
    """The resident has put the visitor on hold and talks with the second one: calls 1 and 2 of his phone."""
    station.press()
    first.wait_ringing()
    first.answer()
    station.wait_event("CallAnswered")
    first.wait_established()
    assert wait_until(lambda: sent(station) > 25, 5.0)
    first.hold()
    station.wait_event("CallHeld")
    first.dial(site.uri("flat2"))
    second.wait_ringing()
    second.answer()
    second.wait_established()
    first.wait_established()


@pytest.mark.item(5, "attended transfer (REFER with Replaces to the door)", "linphonec x 2")
def test_the_resident_asks_first_and_then_sends_the_visitor(
    door: Door, two: tuple[Linphone, Linphone], site: Site
) -> None:
    station, (first, second) = door(), two
    consulting(station, site, first, second)
    first.transfer("1", to_call="2")
    station.wait_event("CallTransferred", to=site.uri("flat2"))
    station.wait_event("CallAnswered")
    first.wait_closed()
    call = station.status()["call"]
    assert (call["direction"], call["peer"]) == ("out", site.uri("flat2"))


@pytest.mark.item(5, "attended transfer seen from the other side (INVITE with Replaces)", "linphonec x 2")
def test_the_second_phone_takes_the_visitor_over(
    door: Door, two: tuple[Linphone, Linphone], site: Site
) -> None:
    station, (first, second) = door(), two
    consulting(station, site, first, second)
    first.transfer("2", to_call="1")
    taken = station.wait_event("CallReplaced", peer=site.uri("flat2"))
    assert not any(action.get("tone") == "ringback" for action in taken["actions"])
    station.wait_event("CallAnswered")
    first.wait_closed()
    call = station.status()["call"]
    assert (call["direction"], call["peer"]) == ("in", site.uri("flat2"))


@pytest.mark.long
@pytest.mark.item(
    5, "held, resumed, transferred attended, a third joins: the visitor is heard", "linphonec x 2, baresip"
)
def test_the_visitor_is_heard_through_three_telephones(tmp_path: Path, figure: Figure) -> None:
    for row in transfer.measure(tmp_path / "visit"):
        figure(row.name, row.value, row.unit, row.limit)


@pytest.mark.item(5, "a second resident joins: both are heard, and either may leave", "baresip x 2")
def test_a_second_resident_joins_and_the_first_leaves(
    door: Door, flat: Flat, site: Site, tmp_path: Path
) -> None:
    station = door(more=transfer.JOIN.replace("flat3", "flat2"))
    first, second = flat(records=True), flat("flat2", speaks=transfer.street(tmp_path))
    talking(station, first)
    second.dial(site.uri("door"))
    second.wait_established()
    assert station.wait_action("Mix")["calls"] == [1, -1]
    assert station.status()["call"]["others"] == [{"id": -1, "peer": site.uri("flat2")}]
    assert wait_until(lambda: len(transfer.heard(first.recording())) > 50, 10.0, pause=0.2), (
        "1 s of the second"
    )
    second.press_digits("5#")
    station.wait_event("StrikeMoved", released=True)
    first.hang_up()
    station.wait_event("CallEnded", call=1)
    assert station.status()["call"]["peer"] == site.uri("flat2")
    before = sent(station)
    assert wait_until(lambda: sent(station) > before + 10, 2.0), "the visitor is still heard"


@pytest.mark.long
@pytest.mark.item(
    5,
    "a second resident by a conference server: REFER of the door to the room",
    "focus on pjsua2, baresip x 2",
)
def test_a_conference_server_takes_the_visitor_and_two_residents(
    door: Door, flat: Flat, site: Site, parts: ExitStack, tmp_path: Path
) -> None:
    card = parts.enter_context(VirtualCard(tmp_path / "card"))
    room = parts.enter_context(Focus(tmp_path / "focus", site.account("room")))
    station = door(device="door", environment=card.environment)
    first, second = flat(records=True), flat("flat2", records=True)
    talking(station, first)
    first.transfer(site.uri("room"))
    station.wait_event("CallTransferred", to=site.uri("room"))
    station.wait_event("CallAnswered")
    for phone in (first, second):
        mark = room.mark
        phone.dial(site.uri("room"))
        phone.wait_established()
    room.wait_for("in: 3", 5.0, mark)
    card.say(transfer.street(tmp_path))
    both = (first.recording(), second.recording())
    assert wait_until(lambda: min(len(transfer.heard(each)) for each in both) > 100, 15.0, pause=0.5), both
    assert station.status()["call"]["peer"] == site.uri("room")
    first.hang_up()
    second.press_digits("5")
    assert station.status()["state"] == "talking"
