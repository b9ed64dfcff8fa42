"""What the station writes to people, and what they write to it."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.counterpart import Counterpart
from deploy.demo.linphone import Linphone
from deploy.demo.program import ProgramError, free_port, wait_until
from deploy.demo.site import Site
from deploy.demo.stranger import Reply, Stranger
from tests.integration.conftest import Figure
from tests.integration.station.conftest import Door, Flat, Served
from tests.integration.station.test_accounts import TwoSystems, systems
from tests.integration.station.test_incoming import untouched
from tests.integration.station.test_secure import House, authority, house, kept

__all__ = ["house", "systems"]

ALL = """
[[message]]
to = ["sip:flat2@site.example"]
on = ["press", "missed", "released", "refused", "fault"]
"""
PRESS = '[[message]]\nto = ["sip:flat1@site.example"]\non = ["press"]\n'
PERMIT = '[incoming]\npermit = ["sip:flat1@site.example"]\n'


def said(message: str) -> str:
    """What a message says behind the station's name and the time."""
    head, body = message.split(": ", 1)
    assert re.fullmatch(r"Front door, \d{4}-\d\d-\d\d \d\d:\d\d", head), message
    return body


def body(request: str) -> str:
    return request.partition("\r\n\r\n")[2]


@pytest.fixture
def reader(tmp_path: Path, site: Site, parts: Any) -> Callable[[str], Linphone]:
    """Start a registered linphonec."""

    def start(user: str) -> Linphone:
        phone: Linphone = parts.enter_context(Linphone(tmp_path / user, site.account(user)))
        phone.wait_registered()
        return phone

    return start


@pytest.mark.item(8, "a press, a released door, a refused code and a missed visit are written", "linphonec")
def test_a_visit_is_written(door: Door, flat: Flat, site: Site, reader: Callable[[str], Linphone]) -> None:
    station, phone, watching = door(more=ALL, ring=[(site.uri("flat1"), 20)]), flat(), reader("flat2")
    station.press()
    message = watching.wait_event("MESSAGE")
    assert message.peer == site.uri("door")
    assert said(message.text) == "somebody rings 'bell'"
    phone.wait_ringing()
    phone.answer()
    station.wait_event("CallAnswered")
    phone.press_digits("5#")
    assert said(watching.wait_event("MESSAGE").text) == (
        "door 'front' was released by dtmf of sip:flat1@site.example"
    )
    phone.press_digits("7#")
    refused = said(watching.wait_event("MESSAGE").text)
    assert refused == "a code was refused: wrong code, by dtmf of sip:flat1@site.example"
    phone.hang_up()
    station.wait_state("Idle")
    station.press()
    watching.wait_event("MESSAGE", text="somebody rings")
    phone.wait_ringing()
    phone.reject()
    assert said(watching.wait_event("MESSAGE").text) == "nobody answered 'bell' (busy)"
    assert wait_until(lambda: station.status()["messages"]["sent"] == 5, 5.0), station.status()["messages"]


@pytest.mark.item(8, "a fault is written", "linphonec")
def test_a_fault_is_written(door: Door, reader: Callable[[str], Linphone]) -> None:
    watching = reader("flat2")
    door(more=ALL, device="seeed2micvoicec")
    assert "fault: sound: " in watching.wait_event("MESSAGE").text


@pytest.mark.item(8, "who is away reads it later", "linphonec, Kamailio")
def test_a_message_waits_for_who_is_away(door: Door, reader: Callable[[str], Linphone]) -> None:
    station = door(more=ALL)
    station.press()
    assert station.wait_event("CallEnded")["actions"]
    assert wait_until(lambda: station.status()["messages"]["sent"] == 2, 5.0)
    watching = reader("flat2")
    assert said(watching.wait_event("MESSAGE").text) == "somebody rings 'bell'"
    assert said(watching.wait_event("MESSAGE").text) == "nobody answered 'bell' (unreachable)"


@pytest.mark.item(8, "a server that is silent to messages does not delay the bell", "scripted server")
def test_a_message_never_delays_the_bell(served: Served, figure: Figure) -> None:
    station, server = served(more=PRESS)
    begin = time.monotonic()
    station.ask("POST", "/press", {"button": "bell"})
    first = server.receive()
    assert first.startswith("INVITE "), first
    figure("press to INVITE while a message is under way", (time.monotonic() - begin) * 1000, "ms", 500)
    server.wait("MESSAGE ")
    dialog = server.take()
    station.wait_event("CallAnswered")
    server.within(dialog, "BYE")
    assert station.status()["messages"]["waiting"] == 1


@pytest.mark.item(8, "who asks for a password gets a digest, a refusal for good is not repeated", "scripted")
def test_a_message_that_is_refused_is_in_the_status(served: Served) -> None:
    station, server = served(more=PRESS)
    station.press()
    message = server.wait("MESSAGE ")
    assert "Content-Type: text/plain" in message
    assert said(body(message)) == "somebody rings 'bell'"
    challenge = {"WWW-Authenticate": 'Digest realm="site.example", nonce="n", qop="auth", algorithm=MD5'}
    server.reply(message, 401, challenge)
    again = server.wait("MESSAGE ")
    while "Authorization:" not in again:
        again = server.wait("MESSAGE ")
    assert server.account().password not in again
    server.reply(again, 404)
    faults = {"sip:flat1@site.example": "404 As Wanted"}
    assert wait_until(lambda: station.status()["messages"]["faults"] == faults, 5.0)
    assert station.status()["messages"]["failed"] == 1
    assert "message to sip:flat1@site.example not delivered: 404" in station.program.tail(1000)
    command = [str(Path(sys.executable).parent / "intercom"), "status"]
    environment = {**os.environ, **station.environment}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "messages: 0 sent, 0 on their way, 1 lost\nno message to sip:flat1@site.example: 404" in shown
    assert not station.status()["faults"]


@pytest.mark.item(8, "a refusal that may pass is tried again, three times in all", "scripted server")
@pytest.mark.long
def test_a_message_is_tried_again(served: Served) -> None:
    station, server = served(more=PRESS)
    station.press()
    times = []
    for timeout in (5.0, 8.0, 35.0):
        message = server.wait("MESSAGE ", timeout)
        times.append(time.monotonic())
        server.reply(message, 480)
    assert [round(later - earlier) for earlier, later in itertools.pairwise(times)] == [5, 30]
    assert wait_until(lambda: station.status()["messages"]["failed"] == 1, 5.0)


@pytest.mark.long
@pytest.mark.item(
    8, "a server that is silent leaves the message to the next account", "two Kamailios, linphonec"
)
def test_a_message_goes_by_the_next_account(systems: TwoSystems) -> None:
    station = systems.door(more=PRESS)
    account = systems.two.account("flat1")
    phone = systems.parts.enter_context(Linphone(systems.folder / "reader", account))
    phone.wait_registered()
    systems.one.freeze()
    station.press()
    assert said(phone.wait_event("MESSAGE", 20.0).text) == "somebody rings 'bell'"
    assert wait_until(lambda: station.status()["messages"]["sent"] == 1, 5.0)
    systems.one.thaw()


# What people write to the station


def by_message(text: str) -> str:
    return text.replace("release_seconds", "open_by_message = true\nrelease_seconds")


def writer(house: House, site: Site, user: str) -> Linphone:
    account = site.account(user, "tls")
    account = replace(account, proxy=account.proxy.replace(site.address, "localhost"))
    phone = Linphone(house.folder / user, account, trusts=site.folder / "tls" / "ca.pem")
    house.parts.enter_context(phone)
    phone.wait_registered()
    return phone


@pytest.mark.item(8, "a code in a message of a permitted person opens, over TLS", "linphonec, Kamailio")
def test_a_written_code_opens(house: House) -> None:
    site = house.site("localhost")
    station = house.door(by_message(house.text(site, authority(site), host="localhost")))
    phone = writer(house, site, "flat1")
    phone.write(site.uri("door"), "I am coming")
    phone.wait_event("MESSAGE_SENT", text="Delivered")
    phone.write(site.uri("door"), "5#")
    station.wait_event("StrikeMoved", released=True)
    assert kept(station, 1)[0]["how"] == "message"
    station.wait_event("StrikeMoved", released=False)

    stranger = writer(house, site, "flat2")
    stranger.write(site.uri("door"), "5#")
    stranger.wait_event("MESSAGE_SENT", text="NotDelivered")

    for _ in range(5):
        phone.write(site.uri("door"), "7#")
        assert station.wait_action("RecordAccess")["reason"] == "wrong code"
    phone.write(site.uri("door"), "5#")
    with pytest.raises(ProgramError):
        station.wait_event("StrikeMoved", timeout=1.0, released=True)
    status = station.status()
    assert status["counters"]["releases"] == 1
    assert "5#" not in station.program.tail(1000)


@pytest.mark.item(10, "a forged code from the server's own address and port, but over UDP", "own messages")
def test_a_forged_datagram_opens_nothing(house: House) -> None:
    site, port = house.site(), free_port()
    text = by_message(house.text(site, authority(site), more=f"[sip]\nport = {port}\n"))
    station = house.door(text)
    forged = {"From": f"<{site.uri('flat1')}>;tag=1", "Content-Type": "text/plain"}
    with (
        Stranger(f"127.0.0.1:{port}", port=site.settings.listen.port_of("tls")) as server,
        pytest.raises(TimeoutError),
    ):
        server.ask("MESSAGE", f"sip:door@127.0.0.1:{port}", forged, "5#", timeout=1.0)
    assert untouched(station)
    assert station.ask("GET", "/log?kind=access")["records"] == []


def write(server: Counterpart, text: str, kind: str = "text/plain", who: str = "flat1") -> Reply:
    """A message of somebody through the station's own server."""
    lines = {"From": f"<sip:{who}@site.example>;tag=1", "Content-Type": kind}
    return server.ask("MESSAGE", f"sip:door@{server.target}", lines, text)


@pytest.mark.item(8, "who may not call may not write; what is no short plain text is refused", "scripted")
def test_what_is_not_taken(served: Served) -> None:
    station, server = served(more=PERMIT)
    assert write(server, "5#").code == 200
    assert write(server, "5#", who="flat2").code == 403
    unknown = write(server, "<b>5#</b>", "text/html")
    assert (unknown.code, unknown.header("Accept")) == (415, "text/plain")
    assert write(server, "5#", "application/octet-stream").code == 415
    assert write(server, "x" * 1001).code == 413
    assert write(server, "x" * 1000).code == 200
    assert write(server, "").code == 415
    forged = "hello\r\nWARNING intercom.core: door opened"
    assert write(server, forged).code == 200
    assert "door opened" not in station.program.tail(1000)
    assert station.program.tail(1000).count("refused a message from ") == 1  # of five, in one minute
    assert untouched(station)
