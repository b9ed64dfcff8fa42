"""What goes wrong at a real door."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.demo.phone import Phone
from deploy.demo.program import wait_until
from deploy.demo.scenarios import flood
from deploy.demo.sipp import Sipp
from deploy.demo.site import Site
from deploy.demo.sound import VirtualCard
from tests.integration.station.conftest import Door, Flat
from tests.integration.station.test_incoming import sip_address


@pytest.mark.item(10, "SIGTERM in a call: hung up, un-registered, locked", "baresip")
def test_sigterm_in_a_call_hangs_up_unregisters_and_locks(door: Door, flat: Flat, site: Site) -> None:
    station, phone = door(), flat()
    station.press()
    phone.wait_ringing()
    phone.answer()
    station.wait_event("CallAnswered")
    phone.press_digits("5#")
    station.wait_event("StrikeMoved", released=True)
    begin = time.monotonic()
    station.program.signal(signal.SIGTERM)
    phone.wait_closed()
    assert station.program.wait(5.0) == 0
    assert time.monotonic() - begin < 3.0
    assert site.registered("door") == []


@pytest.mark.item(10, "SIGKILL with the door open: the stop hook locks, the next start works", "Kamailio")
def test_sigkill_leaves_a_stop_hook_that_locks_and_a_start_that_works(door: Door, site: Site) -> None:
    station = door()
    station.ask("POST", "/open", {})
    station.program.kill()
    command = Path(sys.executable).parent / "intercom"
    hook = subprocess.run(
        [command, "lock", "--config", station.config], capture_output=True, text=True, check=False
    )
    assert (hook.returncode, hook.stderr) == (0, "")
    station.stop()
    station.start()
    station.wait_registered()
    assert not station.status()["panel"]["doors"]["front"]["released"]


@pytest.mark.item(10, "without its sound card the station still rings and opens", "baresip")
def test_a_missing_sound_card_is_said_and_the_phone_still_rings(door: Door, flat: Flat) -> None:
    station, phone = door(device="seeed2micvoicec"), flat()
    station.press()
    phone.wait_ringing()
    phone.answer()
    station.wait_event("CallAnswered")
    phone.press_digits("5#")
    station.wait_event("StrikeMoved", released=True)
    assert "seeed2micvoicec" in station.status()["audio"]["fault"]


@pytest.mark.item(10, "the sound card is open for a call only", "baresip, PulseAudio")
def test_the_sound_card_is_opened_for_the_call_and_closed_after_it(
    door: Door, flat: Flat, tmp_path: Path
) -> None:
    with VirtualCard(tmp_path / "card") as card:
        station, phone = door(device="door", environment=card.environment), flat()
        server = card.server
        mark = server.mark
        station.press()
        phone.wait_ringing()
        phone.answer()
        station.wait_event("CallAnswered")
        server.wait_for("Created output", 5.0, mark)
        phone.hang_up()
        station.wait_state("Idle")
        server.wait_for("Freeing output", 5.0, mark)


@pytest.mark.item(10, "500 INVITEs a second from a stranger: a press rings within 2 s", "SIPp, baresip")
def test_a_flood_of_invites_from_a_stranger(door: Door, flat: Flat, site: Site, tmp_path: Path) -> None:
    station, phone = door(more='[incoming]\npermit = ["sip:*@127.0.0.2"]\nanswer = "automatic"'), flat()
    target = sip_address(station, site)
    scenario = flood(f"sip:door@{target}")
    with Sipp(tmp_path / "flood", scenario, target, calls=3000, rate=500, source="127.0.0.2") as sipp:
        assert wait_until(lambda: sipp.counts().begun >= 500, 5.0)
        begin = time.monotonic()
        station.press()
        phone.wait_ringing()
        assert time.monotonic() - begin < 2.0
        sipp.wait(30.0)
    phone.answer()
    station.wait_event("CallAnswered")
    counters = station.status()["counters"]
    assert (counters["calls_accepted"], counters["calls_placed"]) == (0, 1)


@pytest.mark.item(10, "a press during the hang-up rings again", "baresip")
def test_a_press_during_the_hang_up_rings_again(door: Door, flat: Flat) -> None:
    station, phone = door(more="[timing]\nrepeat_seconds = 0"), flat()
    station.press()
    phone.wait_ringing()
    phone.answer()
    station.wait_event("CallAnswered")
    station.ask("POST", "/hangup", {})
    station.press()
    phone.wait_ringing()


@pytest.mark.item(10, "the phone vanishes while it rings: the call ends", "baresip, killed")
def test_the_phone_vanishes_while_it_rings(door: Door, flat: Flat, site: Site) -> None:
    phone: Phone = flat()
    station = door(ring=[(site.uri("flat1"), 2.0)])
    station.press()
    phone.wait_ringing()
    phone.kill()
    assert station.wait_action("RecordCall")["outcome"] == "no_answer"
    station.wait_state("Idle")
