"""What the far side can do within a call: hold it, change it, be silent, vanish."""

from __future__ import annotations

import secrets
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from deploy.demo.hearing import wave
from deploy.demo.phone import Phone
from deploy.demo.program import wait_until
from deploy.demo.scenarios import (
    answers,
    asks_again,
    forks,
    info_digits,
    is_refreshed,
    limits_the_session,
    pause,
    rings_reliably,
)
from deploy.demo.sipp import Sipp
from deploy.demo.site import Site
from deploy.demo.station import Station
from tests.integration.conftest import Figure
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
@pytest.mark.parametrize(
    ("how", "method"),
    [
        ("sendonly", "INVITE"),
        ("inactive", "UPDATE"),
        ("0.0.0.0", "INVITE"),
        pytest.param("sendonly", "UPDATE", marks=pytest.mark.long),
        pytest.param("inactive", "INVITE", marks=pytest.mark.long),
        pytest.param("0.0.0.0", "UPDATE", marks=pytest.mark.long),
    ],
)
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


class Ear:
    """Somebody who hears sound (RTP) and answers with whatever he is told to send."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(5.0)
        self.address = "{}:{}".format(*self.socket.getsockname())

    def hear(self) -> tuple[bytes, tuple[str, int]]:
        """Block for a packet, and where it came from."""
        packet, source = self.socket.recvfrom(2048)
        return packet, source


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear = Ear()
    yield ear
    ear.socket.close()


def spoken_packet(number: int, ssrc: int = 1, stamp: int = 0, payload: int = 8) -> bytes:
    return (
        struct.pack("!BBHII", 0x80, payload, number % 65536, (stamp or number * 160) % 2**32, ssrc)
        + b"\xd5" * 160
    )


@pytest.mark.item(5, "re-INVITE and UPDATE with another codec: sound goes on", "SIPp")
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_another_codec(door: Door, scripted: Scripted, method: str) -> None:
    scripted(answers(pause(300), asks_again(method, 1, codec="0 PCMU/8000")))
    station = door()
    station.press()
    station.wait_event("CallAnswered")
    assert wait_until(lambda: station.status()["call"]["codec"] == "PCMU/8000", 5.0)
    assert is_sending(station)


@pytest.mark.item(
    5,
    "another address for the sound, then loss, garbage, jumps, a new source: it goes on",
    "SIPp, RTP by hand",
)
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_another_address_and_whatever_comes_from_there(
    door: Door, scripted: Scripted, ear: Ear, method: str
) -> None:
    scripted(answers(pause(300), asks_again(method, 1, media=ear.address)))
    station = door()
    station.press()
    station.wait_event("CallAnswered")
    packet, source = ear.hear()
    assert packet[1] & 0x7F == 8, "A-law"
    rubbish = [secrets.token_bytes(size) for size in (1, 11, 12, 40, 400, 1400)]
    streams = [
        [spoken_packet(number) for number in range(0, 50, 2)],  # half of them lost
        [spoken_packet(number) for number in (60, 60, 59, 61, 58, 58)],  # twice, and overtaking each other
        [spoken_packet(number, stamp=2**31 + number) for number in range(62, 70)],  # a jump in time
        [spoken_packet(number, ssrc=7) for number in range(30000, 30050)],  # another source
        [spoken_packet(number, ssrc=7, payload=77) for number in range(30050, 30060)],  # nothing agreed
        rubbish,
    ]
    for each in (each for stream in streams for each in stream):
        ear.socket.sendto(each, source)
        ear.hear()  # at the pace of the station's own sound
    heard = station.status()["call"]["rx"]["packets"]
    assert heard > 50
    for number in range(30060, 30080):
        ear.socket.sendto(spoken_packet(number, ssrc=7), source)
        ear.hear()
    assert wait_until(lambda: station.status()["call"]["rx"]["packets"] >= heard + 15, 2.0), "still heard"
    assert station.status()["state"] == "talking"


@pytest.mark.item(5, "forked early media (two 183 with tags of their own), the second answers", "SIPp")
def test_early_media_of_two_phones(door: Door, scripted: Scripted) -> None:
    phone = scripted(forks())
    station = door()
    station.press()
    step = station.wait_event("CallRang", early_media=True)
    assert {"type": "Play", "tone": "silence"} in step["actions"]
    station.wait_event("CallAnswered")
    assert is_sending(station)
    station.ask("POST", "/hangup", {})
    assert phone.wait().successful == 1


@pytest.mark.item(5, "reliable provisional answer (PRACK, 100rel) with early media", "SIPp")
def test_a_reliable_ringing_is_acknowledged(door: Door, scripted: Scripted) -> None:
    phone = scripted(rings_reliably())
    station = door()
    station.press()
    station.wait_event("CallRang", early_media=True)
    station.wait_event("CallAnswered")
    assert is_sending(station)
    station.ask("POST", "/hangup", {})
    assert phone.wait().successful == 1


@pytest.mark.long
@pytest.mark.item(5, "session timer (RFC 4028): the station refreshes", "SIPp")
def test_the_station_refreshes_the_session(door: Door, parts: ExitStack, tmp_path: Path, site: Site) -> None:
    station = door()
    scenario = limits_the_session(90, "uac", is_refreshed(90))
    phone = parts.enter_context(Sipp(tmp_path / "sipp", scenario, echoes=True, keeps_messages=True))
    site.place("flat1", phone.contact)
    station.press()
    station.wait_event("CallAnswered")
    begin = time.monotonic()
    assert wait_until(lambda: _invites(phone) == 2, 60.0, pause=0.5), "no refresh"
    assert 40 < time.monotonic() - begin < 50
    assert is_sending(station)
    station.ask("POST", "/hangup", {})
    assert phone.wait().successful == 1


@pytest.mark.long
@pytest.mark.item(5, "session timer (RFC 4028): the far side refreshes, then does not: ended", "SIPp")
def test_a_session_that_the_far_side_does_not_refresh_is_ended(
    door: Door, parts: ExitStack, tmp_path: Path, site: Site
) -> None:
    station = door()
    refresh = asks_again("UPDATE", 1).replace(
        "Content-Type", "Supported: timer\nSession-Expires: 90;refresher=uac\nContent-Type"
    )
    scenario = limits_the_session(90, "uas", pause(20_000), refresh)
    phone = parts.enter_context(Sipp(tmp_path / "sipp", scenario, echoes=True))
    site.place("flat1", phone.contact)
    station.press()
    begin = station.wait_event("CallAnswered")["at"]
    ended = station.wait_action("RecordCall", 130.0)
    assert 20 + 55 < ended["at"] - begin < 20 + 95
    assert phone.wait().successful == 1


def _invites(phone: Sipp) -> int:
    log = phone.folder / "messages.log"
    return log.read_text().count("\nINVITE sip:") if log.exists() else 0


@pytest.mark.long
@pytest.mark.item(
    10, "the phone vanishes while talking: ended within 10 s, the next call at once", "baresip, killed"
)
def test_a_phone_that_vanishes_while_talking(door: Door, flat: Flat, figure: Figure) -> None:
    station, phone, other = door(), flat(), flat("flat2")
    talking(station, phone)
    assert is_sending(station)
    begin = time.monotonic()
    phone.kill()
    ended = station.wait_step(lambda step: step["after"] == "Ending", 15.0, "that ends the call")
    figure("the phone vanishes while talking: until the microphone is closed", ended["at"] - begin, "s", 10.0)
    assert station.wait_action("RecordCall", 15.0)["reason"].startswith("no sound has come")
    station.ask("POST", "/call", {"to": other.account.uri})
    other.wait_ringing()


@pytest.mark.long
@pytest.mark.item(10, "the phone vanishes on hold: ended within 180 s", "baresip, killed")
def test_a_phone_that_vanishes_on_hold(door: Door, flat: Flat, figure: Figure) -> None:
    station, phone = door(), flat()
    talking(station, phone)
    phone.hold()
    held = station.wait_event("CallHeld")["at"]
    phone.kill()
    assert not is_sending(station)
    ended = station.wait_step(lambda step: step["after"] == "Ending", 190.0, "that ends the call")
    figure("the phone vanishes on hold: until the call is ended", round(ended["at"] - held, 1), "s", 180.1)
    assert station.wait_action("RecordCall", 15.0)["reason"] == "held for 180 s"


@pytest.mark.long
@pytest.mark.item(5, "the talk time: a warning tone to both sides, then the end", "baresip")
def test_the_talk_time(door: Door, flat: Flat) -> None:
    station, phone = door(more="[timing]\ntalk_seconds = 10"), flat(records=True)
    talking(station, phone)
    begin = time.monotonic()
    warned = station.wait_action("Warn")["at"]
    assert 4.5 < warned - begin < 5.5
    phone.wait_closed(15.0)
    assert station.wait_action("RecordCall")["reason"] == "the talk time is up"
    sound, rate = wave(phone.recording())
    hertz = np.abs(np.fft.rfft(sound)).argmax() * rate / len(sound)
    assert hertz == pytest.approx(1000, abs=10), "the far side hears the warning"
