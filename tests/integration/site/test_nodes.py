"""Two servers of one site: what one knows the other knows, and either may die."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.account import Account, Transport
from deploy.demo.browser import Browser
from deploy.demo.names import Names
from deploy.demo.phone import Phone
from deploy.demo.program import free_port, wait_until
from deploy.demo.site import Site
from deploy.demo.station import Station, settings
from deploy.demo.stranger import Stranger, proof
from intercom.site import status
from intercom.site.server import set_site_key
from tests.integration.conftest import USERS
from tests.integration.site.wire import register, try_register

FIRST, SECOND, ELSEWHERE = "127.0.41.1", "127.0.41.2", "127.0.41.3"

Door = Callable[[Site], Station]
Flat = Callable[..., Phone]


@dataclass(frozen=True)
class Nodes:
    """Two servers of a site, and the addresses at which they talk to each other."""

    one: Site
    two: Site
    one_inside: str
    two_inside: str


@pytest.fixture
def parts() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def nodes(tmp_path: Path, parts: ExitStack) -> Nodes:
    inside = [f"{address}:{free_port(address)}" for address in (FIRST, SECOND)]
    sites: list[Site] = []
    for address, own, other in ((FIRST, *inside), (SECOND, *reversed(inside))):
        listen = {"transports": ["udp", "tcp", "ws"], "ws_port": free_port(address)}
        around = {"own": own, "others": [other]}
        site = Site(tmp_path / address, users=USERS, address=address, listen=listen, nodes=around)
        set_site_key(site.folder, "0123456789abcdef0123456789abcdef")
        sites.append(parts.enter_context(site))
    return Nodes(sites[0], sites[1], inside[0], inside[1])


@pytest.fixture
def door(tmp_path: Path, parts: ExitStack) -> Door:
    """Start a station that is registered at one of them and rings flat1."""

    def start(site: Site) -> Station:
        text = settings(site.account("door"), [(site.uri("flat1"), 20)])
        station = parts.enter_context(Station(tmp_path / "door", USERS["door"], text))
        station.wait_registered()
        return station

    return start


@pytest.fixture
def flat(tmp_path: Path, parts: ExitStack) -> Flat:
    """Start a baresip that is registered at one of them."""

    def start(site: Site, user: str = "flat1", transport: Transport = "udp", **options: Any) -> Phone:
        phone = Phone(tmp_path / f"{user}-{transport}", site.account(user, transport), **options)
        parts.enter_context(phone).wait_registered()
        return phone

    return start


def rings(station: Station, phone: Phone) -> float:
    """Press; the phone rings, is answered and hangs up. The seconds from the press to the ringing."""
    begin = time.monotonic()
    station.press()
    ringing = phone.wait_ringing()
    phone.answer()
    station.wait_state("Talking")
    phone.hang_up()
    station.wait_state("Idle")
    phone.wait_closed()
    return ringing.at - begin


@pytest.mark.item(8, "a phone of one node is called at the other", "baresip")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_phone_of_one_node_is_called_at_the_other(nodes: Nodes, flat: Flat, transport: Transport) -> None:
    phone, caller = flat(nodes.one, transport=transport), flat(nodes.two, "flat2")
    nodes.two.wait_registered("flat1")
    for one_end, other_end in ((phone, caller), (caller, phone)):
        caller.dial(nodes.two.uri("flat1"))
        phone.wait_ringing()
        phone.answer()
        caller.wait_established()
        one_end.hang_up()
        other_end.wait_closed()
        one_end.wait_closed()
    caller.dial(nodes.two.uri("flat1"))
    phone.wait_ringing()
    caller.wait_event("CALL_RINGING")
    caller.hang_up()
    phone.wait_closed()


@pytest.mark.item(8, "a browser on the connection of one node is called through it", "browser phone, baresip")
def test_a_browser_is_called_through_its_node(nodes: Nodes, flat: Flat) -> None:
    caller = flat(nodes.two, "flat2")
    with Browser(nodes.one.account("flat1", "ws")) as browser:
        assert browser.register().code == 200
        nodes.two.wait_registered("flat1")
        caller.dial(nodes.two.uri("flat1"))
        browser.wait_ringing()
        browser.answer()
        caller.wait_established()
        assert browser.hang_up().code == 200
        caller.wait_closed()


@pytest.mark.item(8, "one node killed between two presses: the second press rings", "station, baresip")
def test_one_node_is_killed_between_two_presses(nodes: Nodes, door: Door, flat: Flat) -> None:
    phone, station = flat(nodes.one), door(nodes.two)
    nodes.two.wait_registered("flat1")
    rings(station, phone)
    nodes.one.kill()
    assert rings(station, phone) < 2.0
    phone.kill()  # it has nobody left to say goodbye to


@pytest.mark.item(8, "a node that comes back knows every phone; then the other may die", "baresip")
def test_a_node_that_comes_back_knows_every_phone(nodes: Nodes, flat: Flat) -> None:
    nodes.one.kill()
    phone = flat(nodes.two)
    nodes.one.restart()
    nodes.one.wait_registered("flat1")
    nodes.two.kill()
    caller = flat(nodes.one, "flat2")
    caller.dial(nodes.one.uri("flat1"))
    phone.wait_ringing()
    caller.wait_event("CALL_RINGING")
    caller.hang_up()
    phone.wait_closed()
    phone.kill()  # it has nobody left to say goodbye to


@pytest.mark.item(8, "phones behind a dead node hold nobody up", "baresip")
def test_a_dead_node_holds_nobody_up(nodes: Nodes, flat: Flat) -> None:
    flat(nodes.one, transport="tcp")
    phone, caller = flat(nodes.two), flat(nodes.two, "flat2")
    nodes.two.wait_registered("flat1", contacts=2)
    nodes.one.kill()
    begin = time.monotonic()
    caller.dial(nodes.two.uri("flat1"))
    assert phone.wait_ringing().at - begin < 1.0
    phone.reject()
    ended = caller.wait_closed()
    assert "486" in ended.text
    assert ended.at - begin < 3.0


@pytest.mark.item(8, "who leaves or expires at one node is gone at the other", "baresip, browser phone")
def test_who_leaves_is_gone_everywhere(tmp_path: Path, nodes: Nodes, flat: Flat) -> None:
    phone = flat(nodes.one)
    nodes.two.wait_registered("flat1")
    phone.stop()
    assert wait_until(lambda: not nodes.two.registered("flat1"), 5.0)
    with Browser(nodes.one.account("flat2", "ws")) as browser:
        assert browser.register().code == 200
        nodes.two.wait_registered("flat2")
        assert browser.register(expires=0).code == 200
        assert wait_until(lambda: not nodes.two.registered("flat2"), 5.0)


@pytest.mark.long
@pytest.mark.item(8, "a location expires at both nodes, also when its own node is dead", "scripted phone")
def test_a_location_expires_at_both_nodes(nodes: Nodes) -> None:
    account, uri = nodes.one.account("flat1"), f"sip:{nodes.one.realm}"
    who = {"From": f"<{account.uri}>;tag=1", "To": f"<{account.uri}>", "Expires": "10"}
    with Stranger(nodes.one.proxy) as phone:
        challenge = phone.ask("REGISTER", uri, who)
        assert phone.ask("REGISTER", uri, who | proof(challenge, account, "REGISTER", uri)).code == 200
    nodes.two.wait_registered("flat1")
    nodes.one.kill()
    assert wait_until(lambda: not nodes.two.registered("flat1"), 25.0)


@pytest.mark.item(8, "nobody but the other nodes may tell a node anything", "a stranger's KDMQ and Path")
def test_a_stranger_is_no_node(nodes: Nodes) -> None:
    lie = {
        "action": 1,
        "aor": "flat1",
        "ruid": "uloc-1",
        "c": "sip:thief@127.0.0.66",
        "received": "",
        "path": "",
        "callid": "1",
        "user_agent": "",
        "instance": "",
        "expires": int(time.time()) + 3600,
        "cseq": 1,
        "flags": 0,
        "cflags": 0,
        "q": -1,
        "last_modified": int(time.time()),
        "methods": 4294967295,
        "reg_id": 0,
        "server_id": 1,
    }
    json_text = {"Content-Type": "application/json", "Max-Forwards": "1"}
    channel, body = f"sip:usrloc@{nodes.one_inside}", json.dumps(lie)
    with Stranger(nodes.one_inside, ELSEWHERE) as stranger:
        for method in ("KDMQ", "OPTIONS", "INVITE"):
            with pytest.raises(TimeoutError):
                stranger.ask(method, channel, json_text, body, timeout=0.3)
    with Stranger(nodes.one.proxy, ELSEWHERE) as stranger:
        assert stranger.ask("KDMQ", channel, json_text, body).code == 403
    assert nodes.one.registered("flat1") == []
    with Stranger(nodes.one_inside, SECOND) as other_node:  # the same lie from the right address is believed
        assert other_node.ask("KDMQ", channel, json_text, body).code == 200
    assert nodes.one.registered("flat1") == ["sip:thief@127.0.0.66"]


@pytest.mark.item(
    8, "a Path that the node has not made leads nowhere, not even from a node's address", "a forger"
)
def test_a_forged_path_leads_nowhere(nodes: Nodes) -> None:
    with Stranger(nodes.one_inside, SECOND) as forger, Stranger(nodes.one.proxy, ELSEWHERE) as victim:
        path = f"<sip:{nodes.one_inside};lr;phone={victim.address}/udp;key={'0' * 24}>"
        assert forger.ask("INVITE", f"sip:a@{victim.address}", {"Route": path}).code == 403
        with pytest.raises(TimeoutError):
            victim.receive(timeout=0.2)


@pytest.mark.item(
    8, "the station's own node killed between two presses, found by SRV", "station, dnsmasq, baresip"
)
def test_the_own_node_of_the_station_is_killed(
    tmp_path: Path, nodes: Nodes, flat: Flat, parts: ExitStack
) -> None:
    listed = [("one.site.example", nodes.one.port, 10, 0), ("two.site.example", nodes.two.port, 20, 0)]
    hosts = {"one.site.example": FIRST, "two.site.example": SECOND}
    names = parts.enter_context(Names(tmp_path / "names", {"_sip._udp.site.example": listed}, hosts))
    account = Account("door", USERS["door"], "site.example", "site.example")
    text = settings(account, [(nodes.one.uri("flat1"), 20)], more=names.settings)
    station = parts.enter_context(Station(tmp_path / "door", USERS["door"], text))
    station.wait_registered()
    phone = flat(nodes.one)
    nodes.two.wait_registered("flat1")
    rings(station, phone)
    nodes.one.kill()
    begin = time.monotonic()
    station.press()
    assert phone.wait_ringing().at - begin < 10.0
    phone.kill()  # it has nobody left to say goodbye to


def cut_off(site: Site, inside: str) -> None:
    """The node neither hears nor says anything until `thaw()`, as when the network between them is cut."""
    site.freeze()
    with Stranger(inside, ELSEWHERE) as somebody:
        for _ in range(2000):  # what it does not read now shall not be there when it reads again
            somebody.send("NOISE", "sip:x", {"Subject": "x" * 1000})


def seconds_left(site: Site, user: str) -> list[int]:
    """For how long each contact of a user is still registered."""
    found = site.ask("ul.lookup", "location", user)["result"]["Contacts"]
    return [entry["Contact"]["Expires"] for entry in found]


@pytest.mark.long
@pytest.mark.item(8, "nodes that were cut off from each other know all again", "scripted phones")
def test_nodes_that_were_cut_off_know_all_again(nodes: Nodes) -> None:
    with Stranger(nodes.one.proxy) as phone, Stranger(nodes.one.proxy) as other:
        try_register(phone, nodes.one.account("flat1"), contact=f"<sip:{phone.address}>", expires="60")
        nodes.two.wait_registered("flat1")
        cut_off(nodes.two, nodes.two_inside)
        register(nodes.one, "flat2", other)
        assert wait_until(lambda: not hears(nodes.one), 15.0)
        try_register(phone, nodes.one.account("flat1"), contact=f"<sip:{phone.address}>", expires="900")
        nodes.two.thaw()
        nodes.two.wait_registered("flat2", timeout=45.0)
        assert wait_until(lambda: hears(nodes.one) and hears(nodes.two), 10.0)
        assert wait_until(lambda: min(seconds_left(nodes.two, "flat1")) > 600, 45.0)
        (left,) = seconds_left(nodes.one, "flat1")
        assert left > 600, "what the other knew was older"


def hears(site: Site) -> bool:
    """Whether the other node answers it."""
    (other,) = status.nodes(site.folder)
    return bool(other["up"])
