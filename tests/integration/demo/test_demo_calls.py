"""Phones at our SIP server call each other, talk, press keys, and get no answer in every way there is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.demo.account import Account, Transport
from deploy.demo.hearing import heard, wait_heard
from deploy.demo.phone import Phone
from deploy.demo.program import ProgramError
from deploy.demo.scenarios import (
    answers,
    caller,
    info_digits,
    mute,
    pause,
    refuses,
    rings_forever,
)
from deploy.demo.sipp import Sipp
from deploy.demo.site import Site
from tests.integration.conftest import Voices


def phone(tmp_path: Path, site: Site, user: str = "door", name: str = "") -> Phone:
    return Phone(tmp_path / (name or user), site.account(user))


@pytest.mark.parametrize(
    ("transports", "codec"),
    [
        (("udp", "udp"), "PCMA/8000/1"),
        (("udp", "tcp"), "PCMU/8000/1"),
        (("tcp", "udp"), "G722/16000/1"),
        (("tcp", "tcp"), "opus/48000/2"),
    ],
)
def test_two_phones_hear_each_other(
    tmp_path: Path, site: Site, voices: Voices, transports: tuple[Transport, Transport], codec: str
) -> None:
    with (
        Phone(
            tmp_path / "door",
            site.account("door", transports[0]),
            speaks=voices.visitor,
            records=True,
            codecs=[codec],
        ) as door,
        Phone(
            tmp_path / "flat1",
            site.account("flat1", transports[1]),
            speaks=voices.resident,
            records=True,
            codecs=[codec],
        ) as flat,
    ):
        door.wait_registered()
        flat.wait_registered()
        door.dial(site.uri("flat1"))
        assert flat.wait_ringing().peer == site.uri("door")
        flat.answer()
        door.wait_established()
        flat.wait_established()

        wait_heard(voices.visitor, flat.recording(), 10)
        wait_heard(voices.resident, door.recording(), 10)
        door.hang_up()
        flat.wait_closed()
        door.wait_closed()

        assert not heard(voices.resident, flat.recording()).clearly
        assert not heard(voices.visitor, door.recording()).clearly


def test_a_phone_answers_by_itself(tmp_path: Path, site: Site) -> None:
    with phone(tmp_path, site) as door, Phone(tmp_path / "1", site.account("flat1"), answer="auto") as flat:
        site.wait_registered("flat1")
        door.wait_registered()
        door.dial(site.uri("flat1"))
        flat.wait_established()
        door.wait_established()
        flat.hang_up()
        door.wait_closed()


def test_keys_arrive_as_rtp_events_both_ways(tmp_path: Path, site: Site) -> None:
    with phone(tmp_path, site) as door, Phone(tmp_path / "1", site.account("flat1"), answer="auto") as flat:
        site.wait_registered("flat1")
        door.wait_registered()
        door.dial(site.uri("flat1"))
        flat.wait_established()
        door.wait_established()
        flat.press_digits("115#")
        door.press_digits("*0")
        door.wait_digits("115#")
        flat.wait_digits("*0")
        assert door.digits == "115#"


def test_keys_arrive_by_info(tmp_path: Path, site: Site) -> None:
    script = caller(site.account("door"), site.uri("flat1"), info_digits("15#"), pause(200))
    with Phone(tmp_path / "flat1", site.account("flat1"), answer="auto") as flat:
        site.wait_registered("flat1")
        with Sipp(tmp_path / "caller", script, site.proxy) as door:
            flat.wait_digits("15#")
            assert door.wait().successful == 1


def test_a_scripted_phone_presses_keys_by_info(tmp_path: Path, site: Site) -> None:
    with phone(tmp_path, site) as door, Sipp(tmp_path / "flat1", answers(info_digits("5#"))) as flat:
        door.wait_registered()
        site.place("flat1", flat.contact)
        door.dial(site.uri("flat1"))
        door.wait_digits("5#")
        door.hang_up()
        assert flat.wait().successful == 1


def test_a_phone_refuses(tmp_path: Path, site: Site) -> None:
    with phone(tmp_path, site) as door, phone(tmp_path, site, "flat1") as flat:
        door.wait_registered()
        site.wait_registered("flat1")
        door.dial(site.uri("flat1"))
        flat.wait_ringing()
        flat.reject()
        assert door.wait_closed().text.startswith("486")


@pytest.mark.parametrize("code", [404, 480, 486, 500, 603])
def test_a_scripted_phone_refuses_with_any_code(tmp_path: Path, site: Site, code: int) -> None:
    with phone(tmp_path, site) as door, Sipp(tmp_path / "flat1", refuses(code, 100)) as flat:
        door.wait_registered()
        site.place("flat1", flat.contact)
        door.dial(site.uri("flat1"))
        door.wait_event("CALL_RINGING")
        assert door.wait_closed().text.startswith(str(code))
        assert flat.wait().successful == 1


def test_a_caller_gives_up(tmp_path: Path, site: Site) -> None:
    with phone(tmp_path, site) as door, Sipp(tmp_path / "flat1", rings_forever()) as flat:
        door.wait_registered()
        site.place("flat1", flat.contact)
        door.dial(site.uri("flat1"))
        door.wait_event("CALL_RINGING")
        door.hang_up()
        assert flat.wait().successful == 1


def test_early_media_and_a_late_answer(tmp_path: Path, site: Site) -> None:
    script = answers(rings_ms=300, early_media=True)
    with phone(tmp_path, site) as door, Sipp(tmp_path / "flat1", script) as flat:
        door.wait_registered()
        site.place("flat1", flat.contact)
        door.dial(site.uri("flat1"))
        door.wait_event("CALL_PROGRESS")
        door.wait_established()
        door.hang_up()
        assert flat.wait().successful == 1


def test_a_mute_phone_is_given_up_after_5_seconds(tmp_path: Path, site: Site) -> None:
    with phone(tmp_path, site) as door, Sipp(tmp_path / "flat1", mute()) as flat:
        door.wait_registered()
        site.place("flat1", flat.contact)
        door.dial(site.uri("flat1"))
        assert door.wait_closed(timeout=8).text.startswith("408")


@pytest.mark.parametrize(("user", "answer"), [("nobody", "404 Not Found"), ("flat2", "480")])
def test_nobody_there(tmp_path: Path, site: Site, user: str, answer: str) -> None:
    with phone(tmp_path, site) as door:
        door.wait_registered()
        door.dial(site.uri(user))
        assert door.wait_closed().text.startswith(answer)


def test_all_phones_of_a_user_ring_and_one_gets_the_call(tmp_path: Path, site: Site) -> None:
    with (
        phone(tmp_path, site) as door,
        phone(tmp_path, site, "flat1", "kitchen") as kitchen,
        phone(tmp_path, site, "flat1", "hall") as hall,
    ):
        door.wait_registered()
        site.wait_registered("flat1", contacts=2)
        door.dial(site.uri("flat1"))
        kitchen.wait_ringing()
        hall.wait_ringing()
        kitchen.answer()
        door.wait_established()
        hall.wait_closed()
        with pytest.raises(ProgramError, match="saw no CALL_ESTABLISHED"):
            hall.wait_established(timeout=0)
        assert hall.program.running
        door.hang_up()
        kitchen.wait_closed()


def test_a_wrong_password_is_refused(tmp_path: Path, site: Site) -> None:
    with Phone(tmp_path / "flat1", replace(site.account("flat1"), password="guess")) as flat:
        assert flat.wait_event("REGISTER_FAIL").text.startswith("401")
    assert site.registered("flat1") == []


def test_hold_and_resume(tmp_path: Path, site: Site) -> None:
    with phone(tmp_path, site) as door, Phone(tmp_path / "1", site.account("flat1"), answer="auto") as flat:
        site.wait_registered("flat1")
        door.wait_registered()
        door.dial(site.uri("flat1"))
        flat.wait_established()
        door.wait_event("CALL_REMOTE_SDP", text="answer")
        flat.hold()
        door.wait_event("CALL_REMOTE_SDP", text="offer")
        flat.resume()
        door.wait_event("CALL_REMOTE_SDP", text="offer")
        flat.press_digits("5")
        door.wait_digits("5")


def test_transfer_to_another_flat(tmp_path: Path, site: Site) -> None:
    with (
        phone(tmp_path, site) as door,
        Phone(tmp_path / "1", site.account("flat1"), answer="auto") as flat1,
        phone(tmp_path, site, "flat2") as flat2,
    ):
        door.wait_registered()
        site.wait_registered("flat1")
        site.wait_registered("flat2")
        door.dial(site.uri("flat1"))
        flat1.wait_established()
        flat1.transfer(site.uri("flat2"))
        assert flat2.wait_ringing().peer == site.uri("door")


def test_two_phones_without_a_server(tmp_path: Path) -> None:
    def nowhere(user: str) -> Account:
        return Account(user, "", "127.0.0.1", "")

    with (
        Phone(tmp_path / "a", nowhere("stranger"), registers=False) as stranger,
        Phone(tmp_path / "b", nowhere("door"), registers=False) as door,
    ):
        stranger.dial(door.contact)
        door.wait_ringing()
        door.answer()
        stranger.wait_established()
        stranger.hang_up()
        door.wait_closed()


def test_a_scripted_caller_without_a_server(tmp_path: Path) -> None:
    stranger = Account("stranger", "", "127.0.0.1", "")
    with Phone(tmp_path / "phone", stranger, registers=False, answer="auto") as flat:
        script = caller(stranger, flat.contact, info_digits("1"), challenged=False)
        with Sipp(tmp_path / "caller", script, flat.contact.partition("@")[2]) as somebody:
            flat.wait_digits("1")
            assert somebody.wait().successful == 1


def test_a_scripted_phone_echoes_what_it_hears(tmp_path: Path, site: Site, voices: Voices) -> None:
    with (
        Phone(tmp_path / "door", site.account("door"), speaks=voices.visitor, records=True) as door,
        Sipp(tmp_path / "flat1", answers(), echoes=True) as flat,
    ):
        door.wait_registered()
        site.place("flat1", flat.contact)
        door.dial(site.uri("flat1"))
        door.wait_established()
        wait_heard(voices.visitor, door.recording(), 10)
        door.hang_up()
        assert flat.wait().successful == 1
