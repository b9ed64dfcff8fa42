"""The command beside a running station: what it prints, how it ends, and a visit from press to log."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.phone import Phone
from deploy.demo.program import Program
from deploy.demo.site import Site
from intercom import __version__
from tests.system.conftest import CODE, Door

DONE, FAILED, WRONG, NOT_RUNNING = 0, 1, 2, 3
ASKING = [
    ("status",),
    ("watch",),
    ("press",),
    ("call", "sip:flat1@site.example"),
    ("hangup",),
    ("open",),
    ("log",),
]


@pytest.fixture
def station(door: Door) -> Iterator[Door]:
    """A door that is in service and registered."""
    with door.serving():
        yield door


@pytest.fixture
def flat(tmp_path: Path, site: Site) -> Iterator[Phone]:
    """A telephone that rings until it is answered."""
    with Phone(tmp_path / "flat1", site.account("flat1")) as phone:
        phone.wait_registered()
        yield phone


@contextmanager
def watching(door: Door, *arguments: str) -> Iterator[Program]:
    """`intercom watch`, from the moment it hears of every step; no code may be in what it tells."""
    with door.follow("watch", *arguments) as watch:
        watch.wait_for("watching", 5)
        yield watch
    assert CODE.rstrip("#") not in watch.log.read_text()


def told(door: Door, *arguments: str) -> Any:
    """The JSON document that a command prints."""
    answer = door.intercom(*arguments, "--json")
    assert (answer.code, answer.err) == (DONE, "")
    return json.loads(answer.out)


# Without a service


@pytest.mark.parametrize("arguments", ASKING, ids=lambda arguments: str(arguments[0]))
def test_no_service(door: Door, arguments: tuple[str, ...]) -> None:
    answer = door.intercom(*arguments)
    assert answer.code == NOT_RUNNING
    assert answer.out == ""
    assert answer.err == f"intercom: the service is not running (nothing answers on {door.socket})\n"


@pytest.mark.parametrize(
    "arguments",
    [("knock",), ("call",), ("log", "--count", "0"), ("status", "--loud"), ("run", "now")],
    ids=" ".join,
)
def test_wrong_arguments(door: Door, arguments: tuple[str, ...]) -> None:
    answer = door.intercom(*arguments)
    assert answer.code == WRONG
    assert answer.out == ""
    assert "Error: " in answer.err


@pytest.mark.parametrize("command", ["run", "lock"])
def test_wrong_settings(door: Door, command: str) -> None:
    door.change("pin = 27", "pin = 17")
    door.change('board = "simulated"', 'board = "simulated"\ncolour = "red"')
    answer = door.intercom(command)
    assert answer.code == WRONG
    assert answer.out == ""
    assert "station.colour: is not a known setting" in answer.err
    assert "door[1].pin: 17 is already the pin of button[1]" in answer.err


def test_lock_without_the_service(door: Door) -> None:
    assert door.intercom("lock").code == DONE
    door.change("simulated", "raspberry-pi")
    answer = door.intercom("lock")
    assert answer.code == FAILED
    assert "this computer has no GPIO chip" in answer.err


def test_version(door: Door) -> None:
    versions = told(door, "version")
    assert versions["intercom"] == __version__
    assert versions["python"] == platform.python_version()
    assert {"pjsua2", "gpiozero", "lgpio", "PyAudio", "pydantic", "kernel"} <= set(versions)
    assert f"intercom {__version__}\n" in door.intercom("version").out


def test_help_names_every_command(door: Door) -> None:
    answer = door.intercom("--help")
    assert answer.code == DONE
    for command in ("run", "check", "lock", "version", *(arguments[0] for arguments in ASKING)):
        assert f"\n  {command} " in answer.out


# Beside the service


def test_status_keeps_the_contract(station: Door, site: Site) -> None:
    status = told(station, "status")
    assert set(status) >= {"version", "uptime_s", "accounts", "call", "panel", "audio", "counters"}
    assert status["version"] == __version__
    assert status["accounts"] == [
        {
            "name": "door@site.example",
            "uri": "sip:door@site.example",
            "registrar": f"sip:{site.proxy};transport=udp",
            "server": site.proxy,
            "state": "registered",
            "reason": "",
            "expires_s": status["accounts"][0]["expires_s"],
        }
    ]
    assert 0 < status["accounts"][0]["expires_s"] <= 300
    assert status["call"] is None
    assert status["panel"]["buttons"] == {"bell": False}
    assert set(status["panel"]["lamps"]) == {"status"}
    assert status["panel"]["doors"] == {"front": {"released": False, "contact": None}}
    assert status["audio"] == {"device": "none", "fault": None}
    assert set(status["counters"]) == {"calls_placed", "calls_accepted", "calls_refused", "releases"}
    text = station.intercom("status").out
    assert f"account door@site.example at {site.proxy}: registered" in text
    assert "door front: locked" in text


def test_what_cannot_be_done_is_refused(station: Door) -> None:
    for arguments, reason in (
        (("hangup",), "there is no call to hang up"),
        (("press", "gong"), "there is no button 'gong'; there is bell"),
        (("open", "cellar"), "there is no door 'cellar'; there is front"),
        (("call", "flat1"), "'to' must be a SIP address such as sip:flat1@site.example"),
    ):
        answer = station.intercom(*arguments)
        assert (answer.code, answer.out, answer.err) == (FAILED, "", f"intercom: {reason}\n")


def test_a_second_service_gives_way(station: Door) -> None:
    answer = station.intercom("run")
    assert answer.code == FAILED
    assert f"another intercom service answers on {station.socket}" in answer.err
    assert told(station, "status")["accounts"][0]["state"] == "registered"


def test_open_releases_and_the_log_tells_it(station: Door) -> None:
    with watching(station) as watch:
        answer = station.intercom("open")
        assert (answer.code, answer.out) == (DONE, "")
        assert answer.err == "door front is released for 0.5 s\n"
        watch.wait_for(r"^StrikeMoved\(front, True\)", 5)
        watch.wait_for(r"^StrikeMoved\(front, False\)", 5)
    (record,) = told(station, "log", "--kind", "access")
    assert (record["kind"], record["door"], record["how"], record["granted"]) == (
        "access",
        "front",
        "operator",
        True,
    )
    assert "door front by operator: released" in station.intercom("log").out


def test_call_and_hang_up(station: Door, flat: Phone) -> None:
    assert station.intercom("call", "sip:flat1@site.example").code == DONE
    assert flat.wait_ringing().peer == "sip:door@site.example"
    assert told(station, "status")["call"]["direction"] == "out"
    answer = station.intercom("call", "sip:flat1@site.example")
    assert (answer.code, answer.err) == (FAILED, "intercom: the station is busy with another call\n")
    assert station.intercom("hangup").code == DONE
    flat.wait_closed()


def test_a_visit(station: Door, flat: Phone) -> None:
    with watching(station) as watch:
        assert station.intercom("press").code == DONE
        assert flat.wait_ringing().peer == "sip:door@site.example"
        flat.answer()
        flat.wait_established()
        watch.wait_for("^CallAnswered.* -> Talking", 5)
        call = told(station, "status")["call"]
        assert (call["state"], call["direction"], call["peer"]) == (
            "talking",
            "out",
            "sip:flat1@site.example",
        )
        assert call["since"] is not None
        assert set(call) >= {"id", "codec", "secure", "rx", "tx"}
        flat.press_digits(CODE)
        watch.wait_for(r"Release\(front, 0\.5\)", 5)
        watch.wait_for(r"^StrikeMoved\(front, True\)", 5)
        watch.wait_for(r"^StrikeMoved\(front, False\)", 5)
        flat.hang_up()
        watch.wait_for("RecordCall", 5)
    started, settings, access, visit = told(station, "log")
    assert (started["what"], settings["kind"]) == ("started", "settings")
    assert (access["door"], access["how"], access["granted"]) == ("front", "dtmf", True)
    assert (visit["button"], visit["peer"], visit["outcome"]) == (
        "bell",
        "sip:flat1@site.example",
        "answered",
    )
    assert told(station, "log", "--count", "1") == [visit]
    assert "button bell called sip:flat1@site.example: answered" in station.intercom("log").out
    status = told(station, "status")
    assert status["call"] is None
    assert status["counters"]["calls_placed"] == status["counters"]["releases"] == 1


def test_watch_in_json(station: Door) -> None:
    with watching(station, "--json") as watch:
        station.intercom("open")
        line = watch.wait_for(r'^.*"type": "OpenRequested".*$', 5)[0]
        step = json.loads(line)
        assert set(step) == {"at", "event", "before", "after", "actions"}
        assert {"type": "Release", "door": "front", "seconds": 0.5} in step["actions"]
        watch.wait_for('"released": false', 5)
