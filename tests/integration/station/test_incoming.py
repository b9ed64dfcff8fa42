"""Somebody calls the door: who gets through, and who changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.demo.scenarios import caller, info_digits, pause
from deploy.demo.sipp import Sipp
from deploy.demo.site import Site
from deploy.demo.station import Station
from deploy.demo.stranger import Stranger
from tests.integration.station.conftest import Door, Flat

PERMIT = '[incoming]\npermit = ["sip:flat1@site.example"]\n'
AUTOMATIC = PERMIT + 'answer = "automatic"\n'


def sip_address(station: Station, site: Site) -> str:
    """Where the station listens, as its registrar knows."""
    (contact,) = site.registered("door")
    return contact.split("@")[1].split(";")[0]


def untouched(station: Station) -> bool:
    status = station.status()
    return (
        status["state"] == "idle"
        and status["counters"]["calls_accepted"] == 0
        and status["counters"]["releases"] == 0
        and not status["panel"]["doors"]["front"]["released"]
    )


@pytest.mark.item(6, "a permitted call rings at the door, a press answers, a code opens", "baresip")
def test_a_permitted_call_rings_at_the_door_until_a_press_answers(door: Door, flat: Flat, site: Site) -> None:
    station, phone = door(more=PERMIT), flat()
    phone.dial(site.uri("door"))
    offered = station.wait_event("CallOffered")
    assert offered["event"]["peer"] == "sip:flat1@site.example"
    assert {"type": "Play", "tone": "doorbell"} in offered["actions"]
    phone.wait_event("CALL_RINGING")
    station.press()
    phone.wait_established()
    station.wait_event("CallAnswered")
    phone.press_digits("5#")
    station.wait_event("StrikeMoved", released=True)
    phone.hang_up()
    station.wait_state("Idle")
    call = next(entry for entry in station.ask("GET", "/log")["records"] if entry["kind"] == "call")
    assert (call["direction"], call["outcome"]) == ("in", "answered")


@pytest.mark.item(6, "answered automatically where the settings say so", "baresip")
def test_a_permitted_call_is_answered_automatically_if_the_settings_say_so(
    door: Door, flat: Flat, site: Site
) -> None:
    station, phone = door(more=AUTOMATIC), flat()
    phone.dial(site.uri("door"))
    phone.wait_established()
    station.ask("POST", "/hangup", {})
    phone.wait_closed()


@pytest.mark.item(6, "another user of the server is refused: 403", "baresip")
def test_another_user_of_the_server_is_refused_without_ringing(door: Door, flat: Flat, site: Site) -> None:
    station, phone = door(more=AUTOMATIC), flat("flat2")
    phone.dial(site.uri("door"))
    assert "403" in phone.wait_closed().text
    assert untouched(station)


@pytest.mark.item(6, "without permission nobody is let in", "baresip")
def test_nobody_may_call_unless_permitted(door: Door, flat: Flat, site: Site) -> None:
    station, phone = door(), flat()
    phone.dial(site.uri("door"))
    assert "403" in phone.wait_closed().text
    assert untouched(station)


@pytest.mark.item(6, "a second call is told that the door is busy", "two baresips")
def test_a_second_call_is_told_that_the_door_is_busy(door: Door, flat: Flat, site: Site) -> None:
    station, first, second = door(more='[incoming]\npermit = ["sip:*@site.example"]'), flat(), flat("flat2")
    station.press()
    first.wait_ringing()
    first.answer()
    station.wait_event("CallAnswered")
    second.dial(site.uri("door"))
    assert "486" in second.wait_closed().text
    assert station.status()["state"] == "talking"
    assert station.status()["counters"]["calls_refused"] == 1


@pytest.mark.item(7, "OPTIONS of the server is answered", "own message, Kamailio")
def test_options_from_the_server_is_answered(door: Door, site: Site, tmp_path: Path) -> None:
    station = door()
    with Stranger(site.proxy) as phone:
        reply = phone.ask("OPTIONS", site.uri("door"))
    assert reply.code in {200, 407}, reply.text
    assert untouched(station)


@pytest.mark.item(
    10, "a stranger's INVITE, INFO, REFER, NOTIFY, MESSAGE and more change nothing", "own messages"
)
def test_a_stranger_is_refused_before_anything_exists(door: Door, site: Site) -> None:
    station = door(more=AUTOMATIC)
    target = sip_address(station, site)
    with Stranger(target, "127.0.0.2") as stranger:
        forged = {
            "From": "<sip:flat1@site.example>;tag=1",
            "Call-Info": "<sip:x>;answer-after=0",
            "Alert-Info": "info=alert-autoanswer",
        }
        assert stranger.ask("INVITE", f"sip:door@{target}", forged).code == 403
        for method in ("INFO", "REFER", "NOTIFY", "MESSAGE", "SUBSCRIBE", "BYE", "CANCEL", "UPDATE"):
            stranger.send(method, f"sip:door@{target}", forged, "Signal=5\r\nDuration=160\r\n")
        assert stranger.ask("OPTIONS", f"sip:door@{target}").code == 403
    assert untouched(station)


@pytest.mark.item(10, "another port of the server's address is a stranger", "SIPp")
def test_the_servers_address_with_another_port_is_a_stranger(door: Door, site: Site, tmp_path: Path) -> None:
    station = door(more=AUTOMATIC)
    target = sip_address(station, site)
    with Sipp(
        tmp_path / "sipp",
        caller(site.account("flat1"), site.uri("door"), info_digits("5#"), challenged=False),
        target,
    ) as sipp:
        assert sipp.wait().successful == 0
    assert untouched(station)


@pytest.mark.item(6, "called over TCP, without a socket that listens", "baresip")
def test_over_tcp_the_door_is_called_and_listens_to_nobody(door: Door, flat: Flat, site: Site) -> None:
    station, phone = door(transport="tcp", more=AUTOMATIC), flat()
    assert listeners(station.program.pid) == 0
    phone.dial(site.uri("door"))
    phone.wait_established()
    phone.press_digits("5#")
    station.wait_event("StrikeMoved", released=True)


def listeners(pid: int) -> int:
    """How many TCP sockets of a process listen (state 0A in proc(5))."""
    sockets = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir()}
    tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table.splitlines()]
    return sum(line[3] == "0A" and f"socket:[{line[9]}]" in sockets for line in lines)


@pytest.mark.item(7, "an offer with video first is an ordinary call", "SIPp")
def test_a_call_that_offers_something_else_first_is_an_ordinary_call(
    door: Door, site: Site, tmp_path: Path
) -> None:
    station = door(more=AUTOMATIC)
    scenario = caller(site.account("flat1"), site.uri("door"), pause(1500))
    scenario = scenario.replace("m=audio", "m=video 0 RTP/AVP 31\nm=audio")
    with Sipp(tmp_path / "sipp", scenario, site.proxy, keeps_messages=True) as phone:
        station.wait_event("CallAnswered")
        assert station.status()["call"]["codec"] == "PCMA/8000"
        assert phone.wait().successful == 1
    station.wait_state("Concluded")


@pytest.mark.item(10, "another address in the display name opens nothing", "SIPp")
def test_a_name_in_quotes_opens_nothing(door: Door, site: Site, tmp_path: Path) -> None:
    station = door(more=AUTOMATIC)
    scenario = caller(site.account("flat2"), site.uri("door")).replace(
        "From: <", 'From: "<sip:flat1@site.example>" <'
    )
    with Sipp(tmp_path / "sipp", scenario, site.proxy) as phone:
        assert phone.wait().successful == 0
    assert untouched(station)
