"""Somebody presses the bell: every way in which it can go on."""

from __future__ import annotations

import pytest

from deploy.demo.program import wait_until
from deploy.demo.scenarios import answers, info_digits, mute, pause, refuses, rings_forever
from deploy.demo.site import Site
from deploy.demo.station import Station
from tests.integration.station.conftest import Door, Flat, Scripted


def record(station: Station) -> dict[str, object]:
    """The next record of a call, as it is kept."""
    action = station.wait_action("RecordCall")
    kept: list[dict[str, object]] = []

    def is_kept() -> bool:
        kept[:] = station.ask("GET", "/log?kind=call")["records"]
        return bool(kept) and kept[-1].get("outcome") == action["outcome"]

    assert wait_until(is_kept, 5.0), kept
    return kept[-1]


def lamp(station: Station) -> str:
    return str(station.status()["panel"]["lamps"]["status"]["pattern"])


@pytest.mark.item(4, "a press rings, the resident answers and hangs up", "baresip")
def test_a_press_rings_the_phone_and_the_resident_hangs_up(door: Door, flat: Flat) -> None:
    station, phone = door(), flat()
    station.press()
    assert phone.wait_ringing().peer == "sip:door@site.example"
    station.wait_event("CallRang")
    assert lamp(station) == "ringing"
    phone.answer()
    station.wait_event("CallAnswered")
    assert lamp(station) == "talking"
    phone.hang_up()
    assert record(station)["outcome"] == "answered"
    station.wait_state("Idle")
    assert lamp(station) == "ready"


@pytest.mark.item(4, "a second press hangs up", "baresip")
def test_a_second_press_hangs_up(door: Door, flat: Flat) -> None:
    station, phone = door(more="[timing]\nrepeat_seconds = 0"), flat()
    station.press()
    phone.wait_ringing()
    phone.answer()
    station.wait_event("CallAnswered")
    station.press()
    phone.wait_closed()
    assert record(station)["outcome"] == "answered"


@pytest.mark.item(4, "a second press while it rings cancels", "SIPp")
def test_a_second_press_while_it_rings_cancels(door: Door, scripted: Scripted) -> None:
    station, phone = door(more="[timing]\nrepeat_seconds = 0"), scripted(rings_forever())
    station.press()
    station.wait_event("CallRang")
    station.press()
    assert phone.wait().successful == 1, "the phone saw no CANCEL"
    assert record(station)["outcome"] == "cancelled"


@pytest.mark.item(4, "each refusal has its lamp, tone and record", "SIPp")
@pytest.mark.parametrize(
    ("code", "rings_ms", "outcome"),
    [
        (486, None, "busy"),
        (600, 100, "busy"),
        (603, 100, "rejected"),
        (403, None, "rejected"),
        (410, None, "not_found"),
        (480, 100, "no_answer"),
        (502, None, "unreachable"),
        (500, None, "failed"),
        (503, None, "failed"),  # a proxy makes 500 of it, RFC 3261 section 16.7
    ],
)
def test_a_refusal_is_shown_and_recorded(
    door: Door, scripted: Scripted, code: int, rings_ms: int | None, outcome: str
) -> None:
    station = door()
    scripted(refuses(code, rings_ms))
    station.press()
    ended = station.wait_event("CallEnded")
    shown = {action["type"]: action for action in ended["actions"]}
    assert shown["ShowLamp"]["lamp"] == outcome
    assert shown["Play"]["tone"] == outcome
    assert shown["RecordCall"]["outcome"] == outcome
    assert lamp(station) == outcome


@pytest.mark.item(4, "a name that the server does not know", "Kamailio")
def test_nobody_by_that_name(door: Door, site: Site) -> None:
    station = door(ring=[(site.uri("nobody"), 20)])
    station.press()
    assert record(station)["outcome"] == "not_found"


@pytest.mark.item(4, "nobody is registered under the name", "Kamailio")
def test_no_phone_is_registered(door: Door) -> None:
    station = door()
    station.press()
    assert record(station)["outcome"] == "unreachable"


@pytest.mark.item(4, "nobody answers in time: cancelled", "SIPp")
def test_nobody_answers_in_time(door: Door, scripted: Scripted, site: Site) -> None:
    phone = scripted(rings_forever())
    station = door(ring=[(site.uri("flat1"), 1.0)])
    station.press()
    assert phone.wait().successful == 1, "the phone saw no CANCEL"
    assert record(station)["outcome"] == "no_answer"


@pytest.mark.item(4, "a mute phone: the next target rings in time", "SIPp, baresip")
def test_a_mute_phone_does_not_hold_the_door(door: Door, scripted: Scripted, site: Site, flat: Flat) -> None:
    scripted(mute())
    neighbour = flat("flat2")
    station = door(ring=[(site.uri("flat1"), 1.0), (site.uri("flat2"), 20)])
    station.press()
    neighbour.wait_ringing()
    neighbour.answer()
    station.wait_event("CallAnswered")


@pytest.mark.item(4, "the next target rings when the first refuses", "SIPp, baresip")
def test_the_next_address_rings_when_the_first_refuses(
    door: Door, scripted: Scripted, site: Site, flat: Flat
) -> None:
    scripted(refuses(486))
    neighbour = flat("flat2")
    station = door(ring=[(site.uri("flat1"), 20), (site.uri("flat2"), 20)])
    station.press()
    neighbour.wait_ringing()
    neighbour.answer()
    station.wait_event("CallAnswered")
    neighbour.hang_up()
    station.wait_state("Idle")
    records = [entry for entry in station.ask("GET", "/log")["records"] if "outcome" in entry]
    outcomes = [(entry["kind"], entry["outcome"]) for entry in records]
    assert outcomes == [("call", "busy"), ("ring", "answered"), ("call", "answered")]


@pytest.mark.item(5, "early media is heard in place of the own tone", "SIPp")
def test_early_media_wins_over_the_local_ringback_tone(door: Door, scripted: Scripted) -> None:
    scripted(answers(pause(500), rings_ms=500, early_media=True))
    station = door()
    station.press()
    step = station.wait_event("CallRang", early_media=True)
    assert {"type": "Play", "tone": "silence"} in step["actions"]
    station.wait_event("CallAnswered")


@pytest.mark.item(5, "a code as RTP events opens once", "baresip")
def test_a_digit_as_rtp_event_opens_once(door: Door, flat: Flat) -> None:
    station, phone = door(), flat()
    station.press()
    phone.wait_ringing()
    phone.answer()
    station.wait_event("CallAnswered")
    phone.press_digits("5#")
    opened = station.wait_event("StrikeMoved", released=True)
    locked = station.wait_event("StrikeMoved", released=False)
    assert locked["at"] - opened["at"] == pytest.approx(2.0, abs=0.15)
    phone.hang_up()
    station.wait_state("Idle")
    accesses = station.ask("GET", "/log?kind=access")["records"]
    assert [(entry["door"], entry["how"], entry["granted"]) for entry in accesses] == [
        ("front", "dtmf", True)
    ]
    assert "5#" not in station.program.tail(1000)


@pytest.mark.item(5, "equal digits count each", "baresip")
def test_equal_digits_count_each(door: Door, flat: Flat, site: Site) -> None:
    station, phone = door(), flat()
    station.press()
    phone.wait_ringing()
    phone.answer()
    station.wait_event("CallAnswered")
    phone.press_digits("55#5#")  # the first is a wrong code, the second the right one
    refused = station.wait_action("RecordAccess")
    assert not refused["granted"]
    assert station.wait_action("RecordAccess")["granted"]


@pytest.mark.item(5, "a code as SIP INFO opens", "SIPp")
def test_a_digit_as_sip_info_opens(door: Door, scripted: Scripted) -> None:
    scripted(answers(info_digits("5#"), pause(500)))
    station = door()
    station.press()
    station.wait_event("StrikeMoved", released=True)
    station.wait_event("StrikeMoved", released=False)


@pytest.mark.item(4, "an operator calls an address", "baresip")
def test_the_address_of_an_operator_is_called(door: Door, flat: Flat, site: Site) -> None:
    station, phone = door(), flat("flat2")
    station.ask("POST", "/call", {"to": site.uri("flat2")})
    phone.wait_ringing()
    phone.answer()
    station.wait_event("CallAnswered")
    station.ask("POST", "/hangup", {})
    phone.wait_closed()
