"""Whom a call rings, in which order, what follows when nobody answers, and what passes within a call."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.demo.phone import Phone
from deploy.demo.scenarios import answers, caller, info_digits, mute
from deploy.demo.sipp import Sipp
from deploy.demo.site import Site
from deploy.demo.station import Station, settings
from deploy.demo.stranger import Stranger, proof
from tests.integration.site.wire import (
    SDP,
    Call,
    header,
    headers,
    is_quiet,
    register,
    wait_answer,
    wait_request,
)

NAMES = ["door", "kitchen", "hall", "study", "cellar", "loft", "shed", "barn"]
SECONDS = 3  # the shortest ringing time that can be set

Somebody = Callable[..., Stranger]
Baresip = Callable[..., Phone]
Dial = Callable[..., Call]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "site", users={name: f"{name}-secret" for name in NAMES}) as site:
        yield site


@pytest.fixture
def parts() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def somebody(house: Site, parts: ExitStack) -> Somebody:
    """Register a phone of a few lines, with its user's preference `q`."""

    def start(user: str, q: float | None = None) -> Stranger:
        phone = parts.enter_context(Stranger(house.proxy))
        register(house, user, phone, q)
        return phone

    return start


@pytest.fixture
def baresip(tmp_path: Path, house: Site, parts: ExitStack) -> Baresip:
    """Start a registered baresip; two of them may belong to one user."""

    def start(user: str, transport: str = "udp", answer: str = "manual") -> Phone:
        folder = tmp_path / f"phone{len(list(tmp_path.glob('phone*')))}"
        account = house.account(user, "tcp" if transport == "tcp" else "udp")
        phone = parts.enter_context(Phone(folder, account, answer="auto" if answer == "auto" else "manual"))
        phone.wait_registered()
        return phone

    return start


@pytest.fixture
def dial(house: Site, parts: ExitStack) -> Dial:
    """Call somebody of the house from the door."""

    def start(to: str, lines: dict[str, str] | None = None) -> Call:
        phone = parts.enter_context(Stranger(house.proxy))
        call = Call(phone, house.account("door"), house.uri(to), lines or {})
        call.begin()
        return call

    return start


# A user


@pytest.mark.item(2, "all phones of a user ring, one answers, the others stop", "baresip")
def test_all_phones_of_a_user_ring_and_one_answers(house: Site, baresip: Baresip) -> None:
    door, table, wall = baresip("door"), baresip("kitchen"), baresip("kitchen", "tcp")
    house.wait_registered("kitchen", contacts=2)
    door.dial(house.uri("kitchen"))
    table.wait_ringing()
    assert wall.wait_ringing().peer == house.uri("door")
    wall.answer()
    door.wait_established()
    table.wait_closed()
    door.hang_up()
    wall.wait_closed()


@pytest.mark.item(2, "losers of a fork are told that the call was answered elsewhere", "own messages")
def test_losers_are_told_why(somebody: Somebody, dial: Dial) -> None:
    table, wall = somebody("kitchen"), somebody("kitchen")
    call = dial("kitchen")
    lost, won = wait_request(table, "INVITE"), wait_request(wall, "INVITE")
    table.reply(lost, 180)
    wait_answer(call.phone, 180)
    wall.reply(won, 200, {"Content-Type": "application/sdp"}, SDP)
    assert call.result().code == 200
    assert header(wait_request(table, "CANCEL"), "Reason").startswith("SIP;cause=200")


@pytest.mark.item(2, "a phone that begins to ring as another answers stops", "own messages")
def test_ringing_that_crosses_the_answer_is_stopped(somebody: Somebody, dial: Dial) -> None:
    late, fast = somebody("kitchen"), somebody("kitchen")
    for _ in range(40):
        call = dial("kitchen")
        lost, won = wait_request(late, "INVITE"), wait_request(fast, "INVITE")
        fast.reply(won, 200, {"Content-Type": "application/sdp"}, SDP)
        late.reply(lost, 180)
        assert call.result().code == 200
        late.reply(wait_request(late, "CANCEL"), 200)
        late.reply(lost, 487)


@pytest.mark.item(2, "phones with a lower q ring after the others", "own messages")
def test_phones_ring_in_the_order_of_their_preference(house: Site, somebody: Somebody, dial: Dial) -> None:
    house.store.set_forward("kitchen", seconds=SECONDS)
    house.reload()
    wall, table, bed = somebody("kitchen", 0.3), somebody("kitchen", 0.8), somebody("kitchen", 0.8)
    call = dial("kitchen")
    first = [(phone, wait_request(phone, "INVITE")) for phone in (table, bed)]
    for phone, invite in first:
        phone.reply(invite, 180)
    assert is_quiet(wall)
    # One refuses, the other rings until the time is over.
    table.reply(first[0][1], 486)
    invite = wait_request(wall, "INVITE", timeout=SECONDS + 1)
    wait_request(bed, "CANCEL")
    wall.reply(invite, 200, {"Content-Type": "application/sdp"}, SDP)
    assert call.result().code == 200


@pytest.mark.item(2, "an unanswered call goes on after the user's seconds", "baresip")
def test_an_unanswered_call_is_forwarded(house: Site, baresip: Baresip) -> None:
    house.store.set_forward("kitchen", unanswered="hall", seconds=SECONDS)
    house.reload()
    door, kitchen, hall = baresip("door"), baresip("kitchen"), baresip("hall", answer="auto")
    door.dial(house.uri("kitchen"))
    rang = kitchen.wait_ringing().at
    forwarded = hall.wait_established()
    assert SECONDS - 0.5 < forwarded.at - rang < SECONDS + 1
    assert forwarded.peer == house.uri("door")
    kitchen.wait_closed()
    door.wait_established()


@pytest.mark.item(2, "a call to a busy user goes on, and tells for whom it was", "own messages")
def test_a_busy_user_forwards(house: Site, somebody: Somebody, dial: Dial) -> None:
    house.store.set_forward("kitchen", busy="hall")
    house.reload()
    kitchen, hall = somebody("kitchen"), somebody("hall")
    for code in (486, 600, 603):
        call = dial("kitchen", {"Diversion": "<sip:study@site.example>;reason=user-busy"})
        kitchen.reply(wait_request(kitchen, "INVITE"), code)
        forwarded = wait_request(hall, "INVITE")
        # Not what the caller says of others, who cannot know.
        assert headers(forwarded, "Diversion") == ["<sip:kitchen@site.example>;reason=user-busy"]
        assert len(headers(forwarded, "Record-Route")) == 1
        hall.reply(forwarded, 480)
        assert call.result().code == 480


@pytest.mark.item(2, "who is not registered forwards, or is said to be away", "own messages")
def test_an_absent_user_forwards(house: Site, somebody: Somebody, dial: Dial) -> None:
    hall = somebody("hall")
    assert dial("kitchen").result().code == 480
    house.store.set_forward("kitchen", away="hall", busy="study", unanswered="study")
    house.reload()
    dial("kitchen")
    diverted = header(wait_request(hall, "INVITE"), "Diversion")
    assert diverted == "<sip:kitchen@site.example>;reason=unavailable"
    assert dial("attic").result().code == 404


@pytest.mark.item(2, "a phone that says nothing holds nobody up", "SIPp")
def test_a_phone_without_a_word_is_given_up(
    tmp_path: Path, house: Site, somebody: Somebody, dial: Dial
) -> None:
    house.store.set_forward("kitchen", away="hall", unanswered="study", seconds=60)
    house.reload()
    hall = somebody("hall")
    with Sipp(tmp_path / "mute", mute()) as kitchen:
        house.place("kitchen", kitchen.contact)
        begun = time.monotonic()
        dial("kitchen")
        wait_request(hall, "INVITE", timeout=8)
    assert 4 < time.monotonic() - begun < 7


@pytest.mark.item(2, "a refusal without a forward reaches the caller as it is", "own messages")
def test_the_honest_answer(somebody: Somebody, dial: Dial) -> None:
    kitchen = somebody("kitchen")
    for code in (404, 480, 486, 488, 503, 603):
        call = dial("kitchen")
        kitchen.reply(wait_request(kitchen, "INVITE"), code)
        # 503 would mean that this whole server is out of order (RFC 3261 16.7, item 6).
        assert call.result().code == (500 if code == 503 else code)


@pytest.mark.item(7, "a phone cannot ask its caller for a password", "own messages")
def test_a_challenge_by_a_phone(somebody: Somebody, dial: Dial) -> None:
    kitchen = somebody("kitchen")
    call = dial("kitchen")
    asks = 'Digest realm="site.example", nonce="chosen"'
    kitchen.reply(
        wait_request(kitchen, "INVITE"), 407, {"Proxy-Authenticate": asks, "WWW-Authenticate": asks}
    )
    answer = call.result()
    assert answer.code == 407
    assert "chosen" not in answer.text


@pytest.mark.item(2, "a caller who gives up silences every phone, and nobody else rings", "own messages")
def test_a_cancel_reaches_every_phone(house: Site, somebody: Somebody, dial: Dial) -> None:
    house.store.set_forward("kitchen", busy="hall", unanswered="hall")
    house.reload()
    phones = [somebody("kitchen", 0.9), somebody("kitchen", 0.9)]
    later, hall = somebody("kitchen", 0.1), somebody("hall")
    call = dial("kitchen")
    invites = [wait_request(phone, "INVITE") for phone in phones]
    for phone, invite in zip(phones, invites, strict=True):
        phone.reply(invite, 180)
    wait_answer(call.phone, 180)
    call.cancel()
    for phone, invite in zip(phones, invites, strict=True):
        phone.reply(wait_request(phone, "CANCEL"), 200)
        phone.reply(invite, 487)
    assert call.result().code == 487
    assert is_quiet(later)
    assert is_quiet(hall)


@pytest.mark.item(2, "a forward to a number: the right and the bill of who forwards", "own messages")
def test_a_forward_to_a_number(house: Site, somebody: Somebody, dial: Dial) -> None:
    with Stranger(house.proxy) as trunk:
        house.store.set_gateway("trunk", f"sip:{trunk.address}")
        house.store.set_forward("kitchen", busy="+49170555")
        house.reload()
        kitchen = somebody("kitchen")
        call = dial("kitchen")
        kitchen.reply(wait_request(kitchen, "INVITE"), 486)
        assert call.result().code == 403
        house.store.permit("kitchen", ["+49"])
        house.reload()
        assert dial("+49170555").result().code == 403
        dial("kitchen")
        kitchen.reply(wait_request(kitchen, "INVITE"), 486)
        paid = wait_request(trunk, "INVITE")
        assert paid.startswith("INVITE sip:+49170555@")
        assert "sip:kitchen@" in header(paid, "From")


# A phone that sends its calls on


@pytest.mark.item(2, "a phone's own redirect is followed within the domain", "own messages")
def test_a_phone_deflects(house: Site, somebody: Somebody, dial: Dial) -> None:
    kitchen, hall = somebody("kitchen"), somebody("hall")
    dial("kitchen")
    kitchen.reply(wait_request(kitchen, "INVITE"), 302, {"Contact": f"<{house.uri('hall')}>"})
    diverted = header(wait_request(hall, "INVITE"), "Diversion")
    assert diverted == "<sip:kitchen@site.example>;reason=deflection"


@pytest.mark.item(2, "a phone's redirect to elsewhere is the caller's to follow", "own messages")
def test_a_phone_deflects_to_a_stranger(somebody: Somebody, dial: Dial) -> None:
    kitchen = somebody("kitchen")
    with Stranger("127.0.0.1:9") as victim:
        call = dial("kitchen")
        kitchen.reply(wait_request(kitchen, "INVITE"), 302, {"Contact": f"<sip:hall@{victim.address}>"})
        refusal = call.result()
        assert refusal.code == 302
        assert refusal.header("Contact") == f"<sip:hall@{victim.address}>"


@pytest.mark.item(2, "two phones that send a call to each other: 482", "own messages")
def test_two_phones_deflect_to_each_other(house: Site, somebody: Somebody, dial: Dial) -> None:
    kitchen, hall = somebody("kitchen"), somebody("hall")
    call = dial("kitchen")
    kitchen.reply(wait_request(kitchen, "INVITE"), 302, {"Contact": f"<{house.uri('hall')}>"})
    hall.reply(wait_request(hall, "INVITE"), 302, {"Contact": f"<{house.uri('kitchen')}>"})
    assert call.result().code == 482


@pytest.mark.item(2, "a call is forwarded five times and no more", "own messages")
def test_five_forwards_and_no_more(house: Site, somebody: Somebody, dial: Dial) -> None:
    chain = NAMES[1:]
    for name, to in itertools.pairwise(chain):
        house.store.set_forward(name, away=to)
    house.reload()
    assert dial("kitchen").result().code == 482
    shed = somebody("shed")
    dial("kitchen")
    past = headers(wait_request(shed, "INVITE"), "Diversion")
    assert [re.findall(":(.*?)@", line) for line in past] == [
        ["loft"], ["cellar"], ["study"], ["hall"], ["kitchen"],
    ]  # fmt: skip


# A group


@pytest.mark.item(2, "the bell rings a group, one answers, the others stop", "station, baresip")
def test_the_bell_rings_a_group(tmp_path: Path, house: Site, baresip: Baresip, parts: ExitStack) -> None:
    house.store.set_group("everybody", ["kitchen", "hall", "study"])
    house.reload()
    kitchen, hall = baresip("kitchen"), baresip("hall")
    text = settings(house.account("door"), [(house.uri("everybody"), 20)])
    door = parts.enter_context(Station(tmp_path / "door", "door-secret", text))
    door.wait_registered()
    door.press()
    kitchen.wait_ringing()
    hall.wait_ringing()
    hall.answer()
    door.wait_event("CallAnswered")
    kitchen.wait_closed()
    hall.hang_up()
    door.wait_state("Idle")


@pytest.mark.item(2, "one member of a group declines everywhere, the others ring on", "own messages")
def test_a_group_rings_on_when_one_declines(house: Site, somebody: Somebody, dial: Dial) -> None:
    house.store.set_forward("kitchen", busy="study")
    house.store.set_forward("cellar", away="study")
    house.store.set_group("everybody", ["kitchen", "hall", "cellar"])
    house.reload()
    kitchen, hall, study = somebody("kitchen"), somebody("hall"), somebody("study")
    call = dial("everybody")
    invite = wait_request(hall, "INVITE")
    kitchen.reply(wait_request(kitchen, "INVITE"), 603)
    hall.reply(invite, 180)
    wait_answer(call.phone, 180)
    assert is_quiet(hall)
    # A forward of one member does not take the call away from the others.
    assert is_quiet(study)
    hall.reply(invite, 486)
    # "Nowhere" is the word of one of them; a caller who hears it would give up on everybody.
    assert call.result().code == 480


@pytest.mark.item(2, "a group of fourteen phones rings at once", "own messages")
def test_a_big_group(house: Site, somebody: Somebody, dial: Dial) -> None:
    house.store.set_group("everybody", NAMES[1:])
    house.reload()
    phones = [somebody(name) for name in NAMES[1:] * 2]
    call = dial("everybody")
    for phone in phones:
        phone.reply(wait_request(phone, "INVITE"), 486)
    assert call.result().code == 486


@pytest.mark.item(2, "members ring in their order; who is busy or away is passed over", "own messages")
def test_members_ring_one_after_another(house: Site, somebody: Somebody, dial: Dial) -> None:
    house.store.set_group("watch", ["kitchen", "hall", "study", "cellar"], serial=True, seconds=SECONDS)
    house.reload()
    kitchen, study, cellar = somebody("kitchen"), somebody("study"), somebody("cellar")
    call = dial("watch")
    kitchen.reply(wait_request(kitchen, "INVITE"), 486)
    invite = wait_request(study, "INVITE", timeout=1)
    rang = time.monotonic()
    study.reply(invite, 180)
    assert is_quiet(cellar, SECONDS / 2)
    # Saying it again wins no time.
    study.reply(invite, 180)
    wait_request(cellar, "INVITE", timeout=SECONDS + 1)
    assert SECONDS - 0.5 < time.monotonic() - rang < SECONDS + 1
    assert header(wait_request(study, "CANCEL"), "CSeq") == header(invite, "CSeq").replace("INVITE", "CANCEL")
    call.cancel()


@pytest.mark.item(2, "a serial group: the second phone answers", "baresip")
def test_the_second_member_answers(house: Site, baresip: Baresip) -> None:
    house.store.set_group("watch", ["kitchen", "hall"], serial=True)
    house.reload()
    door, kitchen, hall = baresip("door"), baresip("kitchen"), baresip("hall", "tcp")
    door.dial(house.uri("watch"))
    kitchen.wait_ringing()
    kitchen.reject()
    hall.wait_ringing()
    hall.answer()
    door.wait_established()
    hall.hang_up()
    door.wait_closed()


@pytest.mark.item(2, "a group of which nobody is there", "own messages")
def test_a_group_without_anybody(house: Site, somebody: Somebody, dial: Dial) -> None:
    house.store.set_group("watch", ["kitchen", "hall"], serial=True)
    house.store.set_group("everybody", ["kitchen", "hall"])
    house.store.set_forward("study", away="everybody")
    house.reload()
    for name in ("watch", "everybody", "study"):
        assert dial(name).result().code == 480
    hall = somebody("hall")
    dial("study")
    assert header(wait_request(hall, "INVITE"), "Diversion").startswith("<sip:study@")


# Loops


@pytest.mark.item(2, "a call that comes back is a loop, for somebody else it is none", "own messages")
def test_a_call_that_comes_back(house: Site, somebody: Somebody, dial: Dial) -> None:
    kitchen, hall = somebody("kitchen"), somebody("hall")
    dial("kitchen")
    invite = wait_request(kitchen, "INVITE")
    vias = [f"SIP/2.0/UDP {kitchen.address};branch=z9hG4bKback", *headers(invite, "Via")]
    same = {name: header(invite, name) for name in ("From", "To", "Call-ID", "CSeq", "Max-Forwards")}
    same["Via"] = ", ".join(vias)
    assert kitchen.ask("INVITE", house.uri("kitchen"), same).code == 482
    # The door itself could have sent this one on another way, and knows its password.
    challenge = kitchen.ask("INVITE", house.uri("hall"), same)
    assert challenge.code == 407
    same["Via"] = same["Via"].replace("z9hG4bKback", "z9hG4bKagain")
    same |= proof(challenge, house.account("door"), "INVITE", house.uri("hall"))
    kitchen.send("INVITE", house.uri("hall"), same)
    wait_request(hall, "INVITE")


@pytest.mark.item(2, "Max-Forwards: 70 to begin with, one less each hop", "own messages")
def test_max_forwards(somebody: Somebody, dial: Dial) -> None:
    kitchen = somebody("kitchen")
    for sent, arrives in (("", "70"), ("20", "19")):
        dial("kitchen", {"Max-Forwards": sent})
        assert header(wait_request(kitchen, "INVITE"), "Max-Forwards") == arrives


# Within a call


@pytest.mark.item(2, "hold, resume and hang-up pass in both directions, UDP to TCP", "baresip")
@pytest.mark.parametrize("who_hangs_up", ["door", "kitchen"])
def test_a_whole_call(house: Site, baresip: Baresip, who_hangs_up: str) -> None:
    phones = {"door": baresip("door"), "kitchen": baresip("kitchen", "tcp", answer="auto")}
    phones["door"].dial(house.uri("kitchen"))
    for phone in phones.values():
        phone.wait_established()
    for phone in phones.values():
        phone.hold()
        phone.resume()
    phones[who_hangs_up].hang_up()
    for phone in phones.values():
        phone.wait_closed()


@pytest.mark.item(2, "a digest goes no further than here, within a call too", "baresip")
def test_a_digest_stays_here(house: Site, baresip: Baresip, somebody: Somebody) -> None:
    door, kitchen = baresip("door"), somebody("kitchen")
    door.dial(house.uri("kitchen"))
    invite = wait_request(kitchen, "INVITE")
    kitchen.reply(invite, 200, {"Content-Type": "application/sdp"}, SDP)
    acknowledged = wait_request(kitchen, "ACK")
    door.hang_up()
    for message in (invite, acknowledged, wait_request(kitchen, "BYE")):
        assert header(message, "Proxy-Authorization") == ""


@pytest.mark.item(2, "keys by INFO within a call", "SIPp, baresip")
def test_info_within_a_call(tmp_path: Path, house: Site, baresip: Baresip) -> None:
    kitchen = baresip("kitchen", answer="auto")
    script = caller(house.account("door"), house.uri("kitchen"), info_digits("5#"))
    with Sipp(tmp_path / "door", script, house.proxy) as door:
        assert door.wait().successful == 1
    kitchen.wait_digits("5#")


@pytest.mark.item(2, "PRACK, UPDATE, re-INVITE and BYE arrive at the phone that answered", "own messages")
def test_requests_within_a_call(somebody: Somebody, dial: Dial) -> None:
    kitchen = somebody("kitchen")
    call = dial("kitchen", {"Supported": "100rel"})
    invite = wait_request(kitchen, "INVITE")
    kitchen.reply(invite, 183, {"Require": "100rel", "RSeq": "1"})
    ringing = wait_answer(call.phone, 183)
    call.say("PRACK", ringing, 3)
    kitchen.reply(wait_request(kitchen, "PRACK"), 200)
    assert "PRACK" in wait_answer(call.phone).header("CSeq")
    kitchen.reply(invite, 200, {"Content-Type": "application/sdp"}, SDP)
    answer = call.result()
    call.say("ACK", answer, 2)
    wait_request(kitchen, "ACK")
    for number, method in enumerate(("UPDATE", "INVITE", "INFO", "BYE"), 4):
        call.say(method, answer, number)
        arrived = wait_request(kitchen, method)
        assert header(arrived, "Route") == ""
        kitchen.reply(arrived, 200)
        assert wait_answer(call.phone).header("CSeq") == f"{number} {method}"


@pytest.mark.item(2, "a call between two scripted phones", "SIPp")
def test_sipp_calls_sipp(tmp_path: Path, house: Site) -> None:
    script = caller(house.account("door"), house.uri("kitchen"))
    with Sipp(tmp_path / "kitchen", answers(rings_ms=100), calls=5) as kitchen:
        house.place("kitchen", kitchen.contact)
        with Sipp(tmp_path / "door", script, house.proxy, calls=5) as door:
            assert door.wait().successful == 5
        assert kitchen.wait().successful == 5
