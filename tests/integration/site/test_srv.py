"""Stations find the servers of a site by DNS SRV, and what takes longer than a minute of that."""

from __future__ import annotations

import pytest

from deploy.demo.program import ProgramError, wait_until
from tests.integration.servers import TwoServers


@pytest.mark.long
@pytest.mark.item(8, "a station goes back to the better server when that is there again", "dnsmasq, baresip")
def test_a_station_goes_back_to_the_better_server(servers: TwoServers) -> None:
    station, phone = servers.door(), servers.phone(servers.two)
    servers.one.kill()
    servers.wait_at(station, servers.two, 6.5)
    servers.one.start()
    station.press()
    phone.wait_ringing()
    phone.answer()
    phone.wait_established()
    mark = station.program.mark
    with pytest.raises(ProgramError):  # not in a call
        station.program.wait_for("is back", 32.0, mark)
    phone.hang_up()
    station.wait_action("RecordCall")
    servers.wait_at(station, servers.one, 32.0)
    assert len(servers.two.registered("door")) == 1  # it was left without a word
    here = servers.phone(servers.one)
    station.press()
    here.wait_ringing()


@pytest.mark.long
@pytest.mark.item(8, "a station leaves a server that is silent", "dnsmasq, a frozen Kamailio")
def test_a_station_leaves_a_silent_server(servers: TwoServers) -> None:
    station = servers.door()
    servers.one.freeze()
    servers.wait_at(station, servers.two, 9.5)


@pytest.mark.long
@pytest.mark.item(8, "a conversation outlives the server that it was begun through", "baresip")
def test_a_conversation_outlives_its_server(servers: TwoServers) -> None:
    station, phone = servers.door(), servers.phone(servers.one)
    station.press()
    phone.wait_ringing()
    phone.answer()
    station.wait_event("CallAnswered")
    servers.one.kill()
    servers.wait_at(station, servers.two, 6.5)
    heard = station.status()["call"]["rx"]["packets"]
    assert wait_until(lambda: station.status()["call"]["rx"]["packets"] > heard + 50, 3.0)
    phone.press_digits("5#")
    station.wait_event("StrikeMoved", released=True)
    station.ask("POST", "/hangup", {})
    assert station.wait_action("RecordCall")["outcome"] == "answered"
    there = servers.phone(servers.two)
    station.press()
    there.wait_ringing()


@pytest.mark.long
@pytest.mark.item(8, "a changed SRV record is followed", "dnsmasq, baresip")
def test_a_changed_record_is_followed(servers: TwoServers) -> None:
    station, phone = servers.door(), servers.phone(servers.two)
    listed = [("two.site.example", servers.two.port, 10, 0)]
    servers.names.change({"_sip._udp.site.example": listed})
    servers.wait_at(station, servers.two, 35.0)
    station.press()
    phone.wait_ringing()


@pytest.mark.long
@pytest.mark.item(
    8, "without a name server the servers known stay in use, and one that comes is found", "dnsmasq"
)
def test_a_name_server_that_dies_and_comes_back(servers: TwoServers) -> None:
    station = servers.door()
    servers.names.stop()
    station.program.wait_for("going on with what was known", 40.0)
    servers.one.freeze()
    servers.wait_at(station, servers.two, 9.5)
    servers.one.thaw()
    servers.wait_at(station, servers.one, 40.0)
    servers.names.change({"_sip._udp.site.example": [("two.site.example", servers.two.port, 10, 0)]})
    servers.wait_at(station, servers.two, 40.0)
    assert not station.status()["faults"]
