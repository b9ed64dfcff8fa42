"""The station stays registered, whatever the registrar does."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from deploy.demo.account import Transport
from deploy.demo.home import DOOR, Home
from deploy.demo.program import free_port, wait_until
from deploy.demo.scripted import Request, Say, ScriptedRegistrar, granted
from deploy.demo.site import Site
from deploy.demo.station import Station, settings
from tests.integration.conftest import USERS, Figure
from tests.integration.station.conftest import Door


def told(station: Station, timeout: float = 10.0) -> str:
    """The next that is told of an account: its fault."""
    step = station.wait_step(
        lambda step: step["event"]["type"] == "HealthChanged" and step["event"]["part"].startswith("account"),
        timeout,
        "about an account",
    )
    return str(step["event"]["fault"])


@pytest.mark.item(2, "registers and un-registers", "Kamailio")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_registers_and_unregisters(tmp_path: Path, algorithm: str, transport: Transport) -> None:
    with Home(
        tmp_path, algorithm="SHA-256" if algorithm == "SHA-256" else "MD5", transport=transport
    ) as home:
        account = home.status()["accounts"][0]
        assert account["state"] == "registered"
        assert 0 < account["expires_s"] <= 300
        assert len(home.site.registered(DOOR)) == 1
        assert home.station.stop() == 0
        assert home.site.registered(DOOR) == []


@pytest.mark.item(2, "a wrong password is explained, the bell still works", "Kamailio")
def test_a_wrong_password_is_explained_and_the_bell_still_works(tmp_path: Path, site: Site) -> None:
    text = settings(site.account("door"), [(site.uri("flat1"), 5)])
    with Station(tmp_path / "door", "not-the-password", text) as station:
        told(station)
        account = station.status()["accounts"][0]
        assert account["state"] == "unregistered"
        assert "password" in account["reason"]
        assert station.status()["panel"]["lamps"]["status"]["pattern"] == "fault"
        station.press()
        station.wait_event("CallEnded")
        assert "not-the-password" not in station.program.tail(1000)


@pytest.mark.item(2, "a registrar that was away is found when it comes", "Kamailio")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_registrar_that_was_away_is_found_when_it_comes(tmp_path: Path, transport: Transport) -> None:
    site = Site(tmp_path / "site", users=USERS)
    text = settings(site.account("door", transport), [(site.uri("flat1"), 5)])
    with Station(tmp_path / "door", USERS["door"], text) as station:
        told(station, 20.0)
        assert station.status()["accounts"][0]["state"] == "unregistered"
        with site:
            station.wait_registered(30.0)
            assert wait_until(lambda: not station.status()["faults"], 5.0)


@pytest.mark.item(2, "a registrar without memory is registered with again", "Kamailio")
def test_a_registrar_that_restarts_without_memory_is_registered_with_again(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", users=USERS, remembers=False)
    text = settings(site.account("door"), [(site.uri("flat1"), 5)]).replace(
        'username = "door"', 'username = "door"\nexpires_seconds = 30'
    )
    with site, Station(tmp_path / "door", USERS["door"], text) as station:
        station.wait_registered()
        site.kill()
        site.start()
        site.wait_registered("door", 40.0)


@pytest.mark.item(2, "a name that does not resolve is said", "Kamailio")
def test_a_name_that_does_not_resolve_is_said(tmp_path: Path, site: Site) -> None:
    text = settings(site.account("door"), [(site.uri("flat1"), 5)]).replace(
        f"sip:{site.proxy}", "sip:pbx.invalid:5060"
    )
    with Station(tmp_path / "door", USERS["door"], text) as station:
        fault = told(station)
        assert "pbx.invalid does not resolve" in fault
        station.press()
        assert station.wait_action("RecordCall")["outcome"] == "unreachable"


@pytest.mark.item(9, "a taken port is said, another is used", "Kamailio")
def test_a_taken_port_is_said_and_another_is_used(door: Door, site: Site, tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", free_port("127.0.0.1")))
        port = taken.getsockname()[1]
        station = door(more=f"[sip]\nport = {port}")
        assert str(port) in station.status()["faults"]["sip"]
        assert len(site.registered("door")) == 1


@pytest.mark.item(2, "a wish to be left alone (Retry-After) is followed", "scripted registrar")
def test_retry_after_is_followed(tmp_path: Path, figure: Figure) -> None:
    answers = iter([Say("503 Service Unavailable", {"Retry-After": "3"})])
    with ScriptedRegistrar(lambda request: next(answers, None) or granted()(request)) as registrar:
        text = settings(registrar.account(), [("sip:flat1@site.example", 5)])
        with Station(tmp_path / "door", "secret", text) as station:
            station.wait_registered()
            first, second = (request.at for request in registrar.registers[:2])
            figure("sooner than wished", max(3.0 - (second - first), 0.0), "s", 0.0)
            figure("later than wished", second - first - 3.0, "s", 1.0)
        assert registrar.registers[-1].header("Expires") == "0"


@pytest.mark.item(
    2, "a registrar that wants more time each time is asked twice, then in its turn", "scripted"
)
def test_too_brief_again_and_again(tmp_path: Path) -> None:
    minutes = itertools.count(10)

    def too_brief(request: Request) -> Say:
        return Say("423 Interval Too Brief", {"Min-Expires": str(60 * next(minutes))})

    with ScriptedRegistrar(too_brief) as registrar:
        text = settings(registrar.account(), [("sip:flat1@site.example", 5)])
        with Station(tmp_path / "door", "secret", text) as station:
            assert "wants a longer registration" in told(station)
            assert [request.header("Expires") for request in registrar.registers] == ["300", "600"]
            registrar.wait_registers(4, 5.0)
            assert [request.header("Expires") for request in registrar.registers[2:]] == ["300", "720"]


@pytest.mark.item(2, "a grant of 2^32 seconds is taken for what was asked for", "scripted registrar")
def test_a_grant_for_ever(tmp_path: Path) -> None:
    with ScriptedRegistrar(granted(2**32)) as registrar:
        text = settings(registrar.account(), [("sip:flat1@site.example", 5)])
        with Station(tmp_path / "door", "secret", text) as station:
            station.wait_registered()
            assert station.status()["accounts"][0]["expires_s"] == 300


@pytest.mark.item(2, "silence to REGISTER alone is explained as a FRITZ!Box's", "scripted registrar")
@pytest.mark.long
def test_a_registrar_that_is_silent_for_a_wrong_user(tmp_path: Path) -> None:
    with ScriptedRegistrar(lambda request: None) as registrar:
        text = settings(registrar.account(), [("sip:flat1@site.example", 5)])
        with Station(tmp_path / "door", "secret", text) as station:
            told(station, 20.0)
            fault = told(station, 5.0)
            assert "so a FRITZ!Box treats a wrong user name" in fault
