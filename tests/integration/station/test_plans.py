"""Whom a press rings: together, one after another, at which hour, and whose answer counts."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.counterpart import Counterpart, sdp
from deploy.demo.hearing import heard, wait_heard
from deploy.demo.linphone import Linphone
from deploy.demo.phone import Phone
from deploy.demo.program import wait_until
from deploy.demo.scenarios import answers, mute, refuses, rings_forever
from deploy.demo.sipp import Sipp
from deploy.demo.site import Site
from deploy.demo.sound import VirtualCard
from deploy.demo.station import Station
from deploy.demo.stranger import Reply
from tests.integration.conftest import Voices
from tests.integration.station.conftest import Door, Flat, Served

FLAT1, FLAT2 = "sip:flat1@site.example", "sip:flat2@site.example"
IMPATIENT = "[timing]\nrepeat_seconds = 0\nsettle_seconds = 0"

Phones = Callable[..., Sipp]


def plan(*entries: tuple[str, float, bool], **keys: object) -> str:
    """A plan as TOML: address, seconds and whether it rings together with the one before."""
    rings = (
        f'{{ to = "{to}", seconds = {seconds}, together = {str(together).lower()} }}'
        for to, seconds, together in entries
    )
    rest = "".join(f"{key} = {value}\n" for key, value in keys.items())
    return f"ring = [{', '.join(rings)}]\n{rest}"


BOTH = plan((FLAT1, 20, False), (FLAT2, 20, True))


def records(station: Station, count: int) -> list[tuple[str, str, str]]:
    """Kind, whom, and outcome of the calls and rings that are kept, once there is as much."""
    kept: list[dict[str, Any]] = []

    def are_kept() -> bool:
        entries = station.ask("GET", "/log")["records"]
        kept[:] = [entry for entry in entries if entry["kind"] in {"call", "ring"}]
        return len(kept) >= count

    assert wait_until(are_kept, 5.0), kept
    return [(each["kind"], each.get("peer", ""), each["outcome"]) for each in kept]


@pytest.fixture
def linphone(tmp_path: Path, site: Site, parts: ExitStack) -> Linphone:
    """A registered linphonec, as flat2."""
    phone = parts.enter_context(Linphone(tmp_path / "linphone", site.account("flat2")))
    phone.wait_registered()
    return phone


@pytest.fixture
def phones(tmp_path: Path, site: Site, parts: ExitStack) -> Phones:
    """Start SIPp phones, each registered as somebody."""

    def start(user: str, scenario: str, calls: int = 1) -> Sipp:
        phone = parts.enter_context(Sipp(tmp_path / f"sipp-{user}", scenario, calls=calls))
        site.place(user, phone.contact)
        return phone

    return start


@pytest.mark.item(
    4, "two ring together; the first answer wins, the other stops at once", "baresip, linphonec, Kamailio"
)
@pytest.mark.parametrize("winner", ["baresip", pytest.param("linphonec", marks=pytest.mark.long)])
def test_two_ring_together(door: Door, flat: Flat, linphone: Linphone, winner: str) -> None:
    one = flat()
    station = door(plan=BOTH)
    station.press()
    one.wait_ringing()
    linphone.wait_ringing()
    first, second = (one, linphone) if winner == "baresip" else (linphone, one)
    first.answer()
    answered = station.wait_event("CallAnswered")
    second.wait_closed()
    first.wait_established()
    assert [action["type"] for action in answered["actions"]].count("HangUp") == 1
    assert station.status()["call"]["peer"] == (FLAT1 if winner == "baresip" else FLAT2)
    first.hang_up()
    station.wait_state("Idle")
    assert [outcome for _, _, outcome in records(station, 3)] == ["cancelled", "answered", "answered"]


@pytest.mark.item(
    4, "a list of both kinds: two together, then one of them alone", "baresip, linphonec, Kamailio"
)
def test_together_and_then_one_alone(door: Door, flat: Flat, linphone: Linphone) -> None:
    one = flat()
    station = door(plan=plan((FLAT1, 1.5, False), (FLAT2, 1.5, True), (FLAT1, 20, False)))
    station.press()
    one.wait_ringing()
    linphone.wait_ringing()
    one.wait_closed()
    linphone.wait_closed()
    one.wait_ringing()
    one.answer()
    station.wait_event("CallAnswered")
    assert [outcome for _, _, outcome in records(station, 3)] == ["no_answer", "no_answer", "answered"]


@pytest.mark.item(4, "one after another, in two rounds, and a last resort", "SIPp, baresip, Kamailio")
def test_rounds_and_a_last_resort(door: Door, flat: Flat, phones: Phones) -> None:
    busy, neighbour = phones("flat1", refuses(486), 2), flat("flat2")
    last = f'{{ to = "{FLAT2}", seconds = 20 }}'
    station = door(plan=plan((FLAT1, 20, False), repeat=2, last_resort=last))
    station.press()
    neighbour.wait_ringing()
    assert busy.wait().successful == 2
    neighbour.answer()
    station.wait_event("CallAnswered")
    assert records(station, 3) == [
        ("call", FLAT1, "busy"),
        ("call", FLAT1, "busy"),
        ("ring", "", "answered"),
    ]


@pytest.mark.item(
    4, "one refuses with 486, 600, 603 or says nothing: the other rings on", "SIPp, baresip, Kamailio"
)
@pytest.mark.parametrize(
    ("scenario", "outcome"),
    [
        pytest.param(refuses(486), "busy", marks=pytest.mark.long),
        pytest.param(refuses(600), "busy", marks=pytest.mark.long),
        (refuses(603, 100), "rejected"),
        (mute(), "unreachable"),
    ],
    ids=["486", "600", "603", "silence"],
)
def test_a_refusal_stops_nobody_else(
    door: Door, flat: Flat, phones: Phones, scenario: str, outcome: str
) -> None:
    phones("flat1", scenario)
    neighbour = flat("flat2")
    station = door(plan=plan((FLAT1, 1.5, False), (FLAT2, 20, True)))
    station.press()
    neighbour.wait_ringing()
    ended = station.wait_event("CallEnded")
    assert ended["after"] == "Calling"
    assert records(station, 1) == [("call", FLAT1, outcome)]
    neighbour.answer()
    assert station.wait_event("CallAnswered")["after"] == "Talking"


@pytest.mark.item(4, "nobody answers: the visitor is told the most telling end", "SIPp, Kamailio")
def test_the_most_telling_end(door: Door, phones: Phones) -> None:
    phones("flat1", refuses(486))
    station = door(plan=BOTH)  # flat2 has no telephone
    station.press()
    concluded = station.wait_state("Concluded")
    assert {"type": "ShowLamp", "lamp": "busy"} in concluded["actions"]
    assert sorted(records(station, 3)) == [
        ("call", FLAT1, "busy"),
        ("call", FLAT2, "unreachable"),
        ("ring", "", "busy"),
    ]


@pytest.mark.item(4, "of two with early media one is heard", "SIPp, Kamailio")
def test_early_media_of_two(door: Door, phones: Phones) -> None:
    phones("flat1", rings_forever(early_media=True))
    phones("flat2", answers(rings_ms=1000, early_media=True))
    station = door(plan=BOTH)
    station.press()
    assert station.wait_action("Connect")["hearing"] == "speaker"
    answered = station.wait_event("CallAnswered")
    assert [each for each in answered["actions"] if each["type"] == "Connect"] == [
        {"type": "Connect", "call": 2, "hearing": "talk"}
    ]
    assert station.program.tail(1000).count("Hearing.SPEAKER") == 1


@pytest.mark.item(
    4, "two answer in the same moment: one talks, the other is hung up on", "a server with two telephones"
)
@pytest.mark.parametrize("times", [15, pytest.param(150, marks=pytest.mark.long)])
def test_two_answers_at_once(served: Served, times: int) -> None:
    station, server = served(plan=BOTH, more=IMPATIENT)
    draw = random.Random(times)
    for _ in range(times):
        station.press()
        invites = [server.wait("INVITE "), server.wait("INVITE ")]
        draw.shuffle(invites)
        dialogs = {}
        for invite in invites:
            server.reply(
                invite, 200, {"Content-Type": "application/sdp"}, sdp("127.0.0.1", server.sound_port)
            )
            dialog = server.dialog_of(invite)
            dialogs[dialog.call_id] = dialog
        station.wait_event("CallAnswered")
        left = hung_up(server, 1)
        assert len(left) == 1
        assert left < dialogs.keys()
        assert station.status()["state"] == "talking"
        station.ask("POST", "/hangup", {})
        assert left | hung_up(server, 1) == dialogs.keys()
        station.wait_state("Concluded")


def hung_up(server: Counterpart, count: int) -> set[str]:
    """The calls that are hung up on: as many, and no more within a moment. All were answered before."""
    left: set[str] = set()
    with suppress(TimeoutError):
        while True:
            message = server.receive(3.0 if len(left) < count else 0.1)
            if re.match("BYE |CANCEL ", message):
                server.reply(message, 200)
            if message.startswith("BYE "):
                left.add(Reply(0, message).header("Call-ID"))
    return left


@pytest.mark.item(4, "voicemail guard: an answer counts with a key, of no door code", "baresip, Kamailio")
def test_a_key_confirms(tmp_path: Path, site: Site, door: Door, voices: Voices, parts: ExitStack) -> None:
    card = parts.enter_context(VirtualCard(tmp_path / "card"))
    station = door(plan='confirm = "key"', device="door", environment=card.environment)
    phone = Phone(
        tmp_path / "flat1", site.account("flat1"), answer="auto", speaks=voices.resident, records=True
    )
    parts.enter_context(phone)
    phone.wait_registered()
    with card.record_loudspeaker(tmp_path / "played.wav") as played:
        station.press()
        answered = station.wait_event("CallAnswered")
        assert answered["after"] == "Calling"
        assert {"type": "Connect", "call": 1, "hearing": "prompt"} in answered["actions"]
        assert station.status()["panel"]["lamps"]["status"]["pattern"] == "ringing"
        card.say(voices.passer_by).wait(15)
        phone.press_digits("5")
        assert station.wait_event("DigitReceived")["after"] == "Talking"
        card.say(voices.visitor)
        wait_heard(voices.visitor, phone.recording(), 15)
        phone.press_digits("5#")
        assert station.wait_action("RecordAccess")["granted"], "the key before is no part of the code"
        phone.hang_up()
        station.wait_state("Concluded")
    assert not heard(voices.passer_by, phone.recording()).clearly, "the microphone was closed"
    assert not heard(voices.resident, played).clearly, "whoever had answered was not heard"


@pytest.mark.item(4, "a voicemail answers: hung up without a key, and the next rings", "baresip, Kamailio")
@pytest.mark.long
def test_a_voicemail(door: Door, flat: Flat) -> None:
    voicemail, neighbour = flat(answer="auto"), flat("flat2")
    station = door(plan=plan((FLAT1, 1, False), (FLAT2, 20, False), confirm='"key"'))
    station.press()
    answered = station.wait_event("CallAnswered")
    neighbour.wait_ringing(15.0)
    voicemail.wait_closed()
    given_up = station.wait_event("CallEnded")
    assert 10.0 <= given_up["at"] - answered["at"] < 11.0
    assert records(station, 1) == [("call", FLAT1, "no_answer")]
    neighbour.answer()
    neighbour.wait_established()
    neighbour.press_digits("1")
    station.wait_event("DigitReceived")
    assert station.status()["state"] == "talking"


@pytest.mark.item(4, "the time of day decides who rings", "baresip, Kamailio")
def test_the_hours_decide(door: Door, flat: Flat) -> None:
    neighbour = flat("flat2")
    now = datetime.now()  # noqa: DTZ005 - by the clock on the wall
    begin, end = (f"{now + timedelta(minutes=each):%H:%M}" for each in (-5, 5))
    hours = f'[[button.hours]]\nfrom = "{begin}"\nto = "{end}"\nring = [{{ to = "{FLAT2}" }}]\n'
    station = door(plan=hours)
    station.press()
    assert neighbour.wait_ringing().peer == "sip:door@site.example"
