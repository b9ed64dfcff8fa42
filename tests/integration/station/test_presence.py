"""What those see who watch the station, and what becomes of requests that a server makes of it."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.demo.counterpart import Counterpart
from deploy.demo.linphone import Linphone
from deploy.demo.site import Site
from deploy.demo.stranger import Reply
from tests.integration.site.test_presence import Watcher
from tests.integration.site.wire import wait_request
from tests.integration.station.conftest import Door, Flat, Served
from tests.integration.station.test_incoming import untouched

PRESENCE = "presence = true\n"


def sees(watcher: Watcher, basic: str, note: str) -> str:
    """Block until a watcher is told exactly this."""
    while True:
        notify = wait_request(watcher, "NOTIFY", 5.0)
        watcher.reply(notify, 200)
        notes = re.findall(r"<note>(.*?)</note>", notify)
        if re.findall(r"<basic>(\w+)<", notify) == [basic] and notes == ([note] if note else []):
            return notify


@pytest.mark.item(8, "watchers see the station open, busy, open again and switched off", "Kamailio, baresip")
def test_watchers_see_how_the_station_is(door: Door, flat: Flat, site: Site) -> None:
    with Watcher(site, "flat2", "door", "presence") as watcher:
        sees(watcher, "closed", "")
        station, phone = door(protection=PRESENCE), flat()
        sees(watcher, "open", "")
        station.press()
        assert "<rpid:busy" in sees(watcher, "open", "in a call")
        phone.wait_ringing()
        phone.answer()
        station.wait_event("CallAnswered")
        assert station.status()["presence"] == {"state": "busy", "note": "in a call"}
        phone.hang_up()
        assert "rpid" not in sees(watcher, "open", "")
        station.stop()
        sees(watcher, "closed", "switched off")


@pytest.mark.item(8, "watchers see what is out of order; the bell rings on", "Kamailio, baresip")
def test_watchers_see_what_is_out_of_order(door: Door, flat: Flat, site: Site) -> None:
    with Watcher(site, "flat2", "door", "presence") as watcher:
        station, phone = door(protection=PRESENCE, device="seeed2micvoicec"), flat()
        assert "seeed2micvoicec" not in sees(watcher, "closed", "out of order: sound")
        station.press()
        phone.wait_ringing()


@pytest.mark.item(8, "a softphone sees the station", "linphonec, Kamailio")
def test_linphone_sees_the_station(door: Door, site: Site, tmp_path: Path, parts: ExitStack) -> None:
    phone = parts.enter_context(Linphone(tmp_path / "flat2", site.account("flat2")))
    phone.wait_registered()
    station = door(protection=PRESENCE)
    phone.watch(site.uri("door"))
    phone.wait_event("PRESENCE", text="Online")
    station.press()
    phone.wait_event("PRESENCE", text="Busy")
    phone.wait_event("PRESENCE", text="Online")
    station.stop()
    phone.wait_event("PRESENCE", text="Offline")


def published(server: Counterpart, etag: str, code: int = 200, expires: int = 300) -> str:
    """Answer the station's next PUBLISH."""
    message = server.wait("PUBLISH ")
    server.reply(message, code, {"SIP-ETag": etag, "Expires": str(expires)})
    return message


@pytest.mark.item(8, "each publication names the one before; after 412 it is said anew", "scripted server")
def test_a_publication_that_the_server_has_forgotten(served: Served) -> None:
    station, server = served(protection=PRESENCE)
    first = published(server, "one")
    field = Reply(0, first).header
    assert (field("Event"), field("SIP-If-Match")) == ("presence", "")
    station.press()
    second = published(server, "two")
    assert Reply(0, second).header("SIP-If-Match") == "one"
    assert "<rpid:busy" in second
    station.ask("POST", "/hangup", {})
    forgotten = published(server, "", 412)
    assert Reply(0, forgotten).header("SIP-If-Match") == "two"
    again = published(server, "three")
    assert Reply(0, again).header("SIP-If-Match") == ""
    assert "<basic>open</basic>" in again


@pytest.mark.item(8, "a publication is refreshed", "scripted server")
@pytest.mark.long
def test_a_publication_is_refreshed(served: Served) -> None:
    _, server = served(protection=PRESENCE)
    published(server, "one", expires=10)
    refresh = server.wait("PUBLISH ", 12.0)
    assert Reply(0, refresh).header("SIP-If-Match") == "one"


@pytest.mark.item(8, "a server that takes no presence changes nothing", "scripted server")
@pytest.mark.parametrize("code", [405, 489, 503])
def test_a_server_without_presence(served: Served, code: int) -> None:
    station, server = served(protection=PRESENCE)
    published(server, "", code)
    station.press()
    server.take()
    station.wait_event("CallAnswered")
    assert not station.status()["faults"]


@pytest.mark.item(
    9, "a NOTIFY check-sync is refused, and so is other news: nothing changes", "scripted server"
)
@pytest.mark.parametrize("event", ["check-sync;reboot=true", "check-sync", "resync", "presence"])
def test_news_that_nobody_asked_for(served: Served, event: str) -> None:
    station, server = served()
    process = station.program.pid
    reply = server.ask(
        "NOTIFY", f"sip:door@{server.target}", {"Event": event, "Subscription-State": "active"}
    )
    assert reply.code == 489, reply.text
    assert station.program.running
    assert station.program.pid == process
    assert "stopped" not in station.program.tail(1000)
    assert untouched(station)


@pytest.mark.item(
    10, "what the station does not know is answered, not passed over in silence", "scripted server"
)
def test_requests_that_nothing_takes(served: Served) -> None:
    station, server = served()
    to = f"sip:door@{server.target}"
    for method in ("PUBLISH", "REGISTER", "WHATEVER"):
        reply = server.ask(method, to)
        assert reply.code == 405, reply.text
        assert "INVITE" in reply.header("Allow")
    for event in ("presence", "dialog", "message-summary"):
        assert server.ask("SUBSCRIBE", to, {"Event": event, "Expires": "60"}).code == 489
    assert untouched(station)
