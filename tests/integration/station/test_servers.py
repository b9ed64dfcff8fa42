"""A site with two servers behind one name: any of them may die, and the bell goes on ringing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from deploy.demo.account import Account, Transport
from deploy.demo.phone import Phone
from deploy.demo.program import ProgramError
from deploy.demo.site import Site
from deploy.demo.station import Station, settings
from deploy.demo.translator import Translator
from tests.integration.conftest import USERS
from tests.integration.servers import TwoServers
from tests.integration.station.conftest import Flat

PERMITTED = '[incoming]\npermit = ["sip:flat1@site.example"]\nanswer = "automatic"\n'


def rings(phone: Phone) -> int:
    return sum(event.type == "CALL_INCOMING" for event in phone.events)


@pytest.mark.item(1, "a server that dies is left for the next of its name", "two Kamailios, dnsmasq")
def test_a_station_leaves_a_server_that_dies(servers: TwoServers) -> None:
    station, phone = servers.door(), servers.phone(servers.two)
    assert servers.two.registered("door") == []
    servers.one.kill()
    servers.wait_at(station, servers.two, 6.5)
    assert not station.status()["faults"]
    station.press()
    phone.wait_ringing()


@pytest.mark.item(1, "over TCP a death is told at once", "two Kamailios, dnsmasq")
def test_a_connection_that_ends_tells_a_death_at_once(servers: TwoServers) -> None:
    station = servers.door("tcp")
    servers.one.kill()
    servers.wait_at(station, servers.two, 2.0)


@pytest.mark.item(1, "a press in the moment of the death rings, once", "two Kamailios, baresip")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_press_in_the_moment_of_the_death_rings(servers: TwoServers, transport: Transport) -> None:
    station, phone = servers.door(transport), servers.phone(servers.two)
    servers.one.kill()
    begin = time.monotonic()
    station.press()
    phone.wait_ringing()
    assert time.monotonic() - begin < 4.0
    phone.answer()
    station.wait_event("CallAnswered")
    assert station.status()["counters"]["calls_placed"] == 1
    phone.hang_up()
    assert station.wait_action("RecordCall")["outcome"] == "answered"
    assert rings(phone) == 1


@pytest.mark.item(1, "a server that comes round does not ring again", "two Kamailios, two baresips")
def test_a_server_that_comes_round_does_not_ring_for_the_same_press(servers: TwoServers) -> None:
    station = servers.door()
    here, there = servers.phone(servers.one), servers.phone(servers.two)
    servers.one.freeze()
    station.press()
    there.wait_ringing()
    servers.one.thaw()
    there.answer()
    station.wait_event("CallAnswered")
    with pytest.raises(ProgramError):
        here.wait_ringing(2.0)
    there.hang_up()
    station.wait_action("RecordCall")
    assert (rings(here), rings(there)) == (0, 1)
    assert len(servers.one.registered("door")) == 1  # nobody took it out: servers of a site share it


@pytest.mark.item(1, "a dead name server changes nothing", "two Kamailios, dnsmasq")
def test_a_dead_name_server_changes_nothing(servers: TwoServers) -> None:
    station, phone = servers.door(), servers.phone(servers.two)
    servers.names.freeze()
    servers.one.kill()
    servers.wait_at(station, servers.two, 6.5)
    station.press()
    phone.wait_ringing()


@pytest.mark.item(1, "a call through the other server is taken", "two Kamailios, baresip")
def test_a_call_from_the_server_that_is_not_in_use_is_taken(servers: TwoServers) -> None:
    """Servers of one site know each other's registrations: any of them may have the call."""
    station = servers.door(more=PERMITTED)
    phone = servers.phone(servers.two)
    servers.two.place("door", servers.one.registered("door")[0])
    phone.dial(servers.two.uri("door"))
    phone.wait_established()
    assert station.status()["counters"]["calls_accepted"] == 1


@pytest.mark.item(
    1, "over a connection that went deaf a press rings in 4 s, once", "Kamailio, baresip, relay"
)
def test_a_connection_that_is_deaf_is_left_for_a_new_one(tmp_path: Path, site: Site, flat: Flat) -> None:
    phone = flat()
    with Translator(site.proxy) as way:
        account = Account("door", USERS["door"], "site.example", way.place, "tcp")
        proxy = f'proxy = "sip:{way.place};transport=tcp"\n'
        text = settings(account, [(site.uri("flat1"), 20)], protection=proxy, more=PERMITTED)
        text = text.replace(f'registrar = "sip:{way.place};transport=tcp"', 'registrar = "sip:site.example"')
        with Station(tmp_path / "door", USERS["door"], text) as station:
            station.wait_registered()
            way.forget()
            begin = time.monotonic()
            station.press()
            phone.wait_ringing()
            assert time.monotonic() - begin < 4.0
            assert not station.status()["faults"]
            phone.hang_up()
            assert station.wait_action("RecordCall")["outcome"] == "busy"
            station.press()  # and the next one rings at once
            begin = time.monotonic()
            phone.wait_ringing()
            assert time.monotonic() - begin < 1.5
            phone.hang_up()
            station.wait_state("Idle")
            phone.dial(site.uri("door"))  # the server has the new way to us
            phone.wait_established()
    assert rings(phone) == 2
