"""How the door is called: who gets through, who hears whom, and what a header cannot do."""

from __future__ import annotations

import wave
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.demo.counterpart import Dialog
from deploy.demo.hearing import heard, wait_heard
from deploy.demo.phone import Phone
from deploy.demo.program import wait_until
from deploy.demo.scenarios import caller
from deploy.demo.sipp import Sipp
from deploy.demo.site import Site
from deploy.demo.sound import VirtualCard
from deploy.demo.station import Station
from deploy.demo.stranger import Reply
from tests.integration.conftest import Voices
from tests.integration.station.conftest import Door, Flat, Served

PERMIT = '[incoming]\npermit = ["sip:flat1@site.example"]\n'
AUTOMATIC = PERMIT + 'answer = "automatic"\n'
TWO_WAYS = """\
[incoming]
permit = ["sip:*@site.example"]

[[incoming.peer]]
uri = "sip:flat2@site.example"
answer = "automatic"
mode = "announce"
"""
PACKETS_A_SECOND = 50
LAMPS = {"talk": "talking", "listen": "talking", "announce": "announcement"}


def wave_seconds(file: Path) -> float:
    with wave.open(str(file)) as sound:
        return float(sound.getnframes() / sound.getframerate())


def packets(station: Station) -> tuple[int, int]:
    """How many packets of sound came and went."""
    call = station.status()["call"]
    return (call["rx"]["packets"], call["tx"]["packets"]) if call and call["rx"] else (0, 0)


@pytest.mark.item(6, "two-way, listening in, announcement: who hears whom, and the lamp", "baresip, Kamailio")
@pytest.mark.long
@pytest.mark.parametrize("mode", ["talk", "listen", "announce"])
def test_who_hears_whom(
    tmp_path: Path, site: Site, door: Door, voices: Voices, parts: ExitStack, mode: str
) -> None:
    card = parts.enter_context(VirtualCard(tmp_path / "card"))
    more = AUTOMATIC + f'mode = "{mode}"\n'
    station = door(more=more, device="door", environment=card.environment)
    phone = Phone(tmp_path / "flat1", site.account("flat1"), speaks=voices.resident, records=True)
    parts.enter_context(phone)
    phone.wait_registered()
    with card.record_loudspeaker(tmp_path / "played.wav") as played:
        phone.dial(site.uri("door"))
        answered = station.wait_event("CallAnswered")
        assert {"type": "ShowLamp", "lamp": LAMPS[mode]} in answered["actions"]
        assert station.status()["panel"]["lamps"]["status"]["pattern"] == LAMPS[mode]
        assert station.status()["call"]["mode"] == mode
        spoken = wave_seconds(voices.resident) * PACKETS_A_SECOND
        assert wait_until(lambda: packets(station)[0] > spoken, 15.0), "the resident speaks first"
        said = card.say(voices.visitor)
        if mode != "announce":
            wait_heard(voices.visitor, phone.recording(), 15)
        said.wait(15)
        assert wait_until(lambda: min(packets(station)) > 100, 15.0), "sound flows both ways, also as silence"
        phone.hang_up()
        station.wait_state("Concluded")
    assert heard(voices.visitor, phone.recording()).clearly is (mode != "announce")
    assert heard(voices.resident, played).clearly is (mode != "listen")


@pytest.mark.item(
    6, "each peer in his own way: one rings at the door, one is put through", "baresip, Kamailio"
)
def test_each_peer_is_answered_in_his_own_way(door: Door, flat: Flat, site: Site) -> None:
    station, one, two = door(more=TWO_WAYS), flat(), flat("flat2")
    one.dial(site.uri("door"))
    assert station.wait_event("CallOffered")["after"] == "Offered"
    one.wait_event("CALL_RINGING")
    one.hang_up()
    station.wait_state("Idle")
    assert station.status()["counters"]["calls_accepted"] == 0
    two.dial(site.uri("door"))
    assert station.wait_action("Connect")["hearing"] == "speaker"
    two.wait_established()


@pytest.mark.item(6, "a header that asks for an answer gets none: it rings until a press", "SIPp, Kamailio")
@pytest.mark.parametrize(
    "asks",
    [
        pytest.param("Call-Info: <sip:site.example>;answer-after=0", marks=pytest.mark.long),
        "Alert-Info: <http://site.example>;info=alert-autoanswer;delay=0",
        pytest.param("Answer-Mode: Auto;require", marks=pytest.mark.long),
        pytest.param("Priv-Answer-Mode: Auto", marks=pytest.mark.long),
        'Alert-Info: "Auto Answer"',
        pytest.param("P-Auto-Answer: normal", marks=pytest.mark.long),
    ],
)
def test_no_header_makes_the_door_answer(door: Door, site: Site, tmp_path: Path, asks: str) -> None:
    station = door(more=PERMIT)
    scenario = caller(site.account("flat1"), site.uri("door")).replace(
        "Max-Forwards: 70", f"{asks}\nMax-Forwards: 70"
    )
    with Sipp(tmp_path / "sipp", scenario, site.proxy):
        assert station.wait_event("CallOffered")["actions"][0]["type"] == "Alert"
        assert station.status()["state"] == "offered"
        assert station.status()["counters"]["calls_accepted"] == 0


@pytest.mark.item(
    6, "a forwarded call is judged by who calls; who forwarded it is recorded", "baresip, Kamailio"
)
def test_a_forwarded_call_is_judged_by_its_real_peer(door: Door, flat: Flat, site: Site) -> None:
    site.store.set_forward("flat2", away="door")
    site.reload()
    station, phone = door(more=AUTOMATIC), flat()
    phone.dial(site.uri("flat2"))
    offered = station.wait_event("CallOffered")["event"]
    assert (offered["peer"], offered["diverted_by"]) == ("sip:flat1@site.example", "sip:flat2@site.example")
    phone.wait_established()
    assert station.status()["call"]["diverted_by"] == "sip:flat2@site.example"
    phone.hang_up()
    assert station.wait_action("RecordCall")["diverted_by"] == "sip:flat2@site.example"


def untouched(station: Station) -> bool:
    status = station.status()
    return bool(status["state"] == "idle" and status["counters"]["calls_accepted"] == 0)


@pytest.mark.item(6, "who is not permitted gets through by no header of his own", "SIPp, Kamailio")
@pytest.mark.parametrize(
    "header",
    [
        "Diversion: <sip:flat1@site.example>;reason=unconditional",
        pytest.param(
            "History-Info: <sip:flat1@site.example>;index=1, <sip:door@site.example>;index=1.1",
            marks=pytest.mark.long,
        ),
        "P-Asserted-Identity: <sip:flat1@site.example>",
        pytest.param("Remote-Party-ID: <sip:flat1@site.example>;party=calling", marks=pytest.mark.long),
        pytest.param("Referred-By: <sip:flat1@site.example>", marks=pytest.mark.long),
    ],
)
def test_a_claim_of_the_caller_lets_nobody_in(door: Door, site: Site, tmp_path: Path, header: str) -> None:
    station = door(more=AUTOMATIC)
    scenario = caller(site.account("flat2"), site.uri("door")).replace(
        "Max-Forwards: 70", f"{header}\nMax-Forwards: 70"
    )
    with Sipp(tmp_path / "sipp", scenario, site.proxy, keeps_messages=True) as phone:
        assert phone.wait().successful == 0
    assert "SIP/2.0 403" in (phone.folder / "messages.log").read_text()
    assert untouched(station)


@pytest.mark.item(
    6, "whom the server vouches for must be permitted like who the call says", "scripted server"
)
def test_whom_the_server_vouches_for(served: Served) -> None:
    """A From of flat1; flat2 may call too, but in another way."""
    station, server = served(
        more=TWO_WAYS.replace("sip:*@", "sip:flat1@").replace("[[", 'answer = "automatic"\n[[')
    )
    for asserted in (
        "<sip:flat2@site.example>",
        "<sip:stranger@elsewhere.example>",
        "<sip:flat1@site.example>, <sip:flat2@site.example>",
        "nonsense <",
        "nonsense",
    ):
        refused = server.call(headers={"P-Asserted-Identity": asserted})
        assert isinstance(refused, Reply), asserted
        assert refused.code == 403
    assert untouched(station)
    for asserted in ("<sip:flat1@site.example>", '"Flat 1" <sip:flat1@site.example>, <tel:+4930123>', ""):
        dialog = server.call(headers={"P-Asserted-Identity": asserted})
        assert isinstance(dialog, Dialog), asserted
        assert station.wait_event("CallOffered")["event"]["peer"] == "sip:flat1@site.example"
        assert server.within(dialog, "BYE").code == 200
        station.wait_state("Concluded")


@pytest.mark.item(
    6, "a call that was sent on several times: the last forwarder is recorded", "scripted server"
)
def test_the_last_forwarder_is_recorded(served: Served) -> None:
    station, server = served(more=AUTOMATIC)
    history = "<sip:a@site.example?Reason=sip%3Bcause%3D302>;index=1, <sip:door@site.example>;index=1.1;mp=1"
    for header, value, address in (
        ("Diversion", "<sip:b@site.example>;reason=no-answer, <sip:a@site.example>", "sip:b@site.example"),
        ("History-Info", history, "sip:a@site.example"),
    ):
        dialog = server.call(headers={header: value})
        assert isinstance(dialog, Dialog)
        assert station.wait_event("CallOffered")["event"]["diverted_by"] == address
        assert server.within(dialog, "BYE").code == 200
        assert station.wait_action("RecordCall")["diverted_by"] == address
