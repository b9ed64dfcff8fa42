"""What the far side can do within a call: hold it, change it, be silent, vanish."""

from __future__ import annotations

import pytest

from deploy.demo.phone import Phone
from deploy.demo.program import wait_until
from deploy.demo.scenarios import answers, asks_again, info_digits, pause
from deploy.demo.station import Station
from tests.integration.station.conftest import Door, Flat, Scripted


def talking(station: Station, phone: Phone) -> None:
    """A visit up to the conversation."""
    station.press()
    phone.wait_ringing()
    phone.answer()
    station.wait_event("CallAnswered")


def sent(station: Station) -> int:
    """How many packets of sound the station has sent in the stream that it has now."""
    flow = station.status()["call"]["tx"]
    return int(flow["packets"]) if flow else 0


def is_sending(station: Station) -> bool:
    before = sent(station)
    return wait_until(lambda: sent(station) > before + 5, 0.5)


@pytest.mark.item(5, "hold and resume: microphone closed, hold tone, then sound again", "baresip")
def test_the_resident_holds_and_comes_back(door: Door, flat: Flat) -> None:
    station, phone = door(), flat()
    talking(station, phone)
    assert is_sending(station)
    phone.hold()
    station.wait_event("CallHeld")
    assert station.status()["call"]["held"]
    assert not is_sending(station), "the microphone is closed"
    silent = station.wait_event("SoundStopped")
    assert {"type": "Play", "tone": "hold"} in silent["actions"]
    phone.resume()
    back = station.wait_event("CallResumed")
    assert {"type": "Play", "tone": "silence"} in back["actions"]
    station.wait_event("SoundCame")
    assert is_sending(station)


@pytest.mark.item(5, "hold by sendonly, inactive, 0.0.0.0, in re-INVITE and UPDATE; a code opens", "SIPp")
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("how", ["sendonly", "inactive", "0.0.0.0"])
def test_every_way_to_hold(door: Door, scripted: Scripted, method: str, how: str) -> None:
    phone = scripted(
        answers(
            pause(200),
            asks_again(method, 1, how),
            info_digits("5#"),
            pause(300),
            asks_again(method, 2, "sendrecv"),
        )
    )
    station = door()
    station.press()
    station.wait_event("CallHeld")
    station.wait_event("StrikeMoved", released=True)
    station.wait_event("CallResumed")
    assert is_sending(station)
    station.ask("POST", "/hangup", {})
    assert phone.wait().successful == 1
