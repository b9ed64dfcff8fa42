"""What the station says that it can do, and the calls in which it does so."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from deploy.demo.counterpart import Counterpart, Dialog, Stream, sdp
from deploy.demo.phone import Phone
from deploy.demo.program import wait_until
from deploy.demo.site import Site
from deploy.demo.station import Station
from deploy.demo.stranger import Reply
from tests.integration.station.conftest import Door, Flat, Served

AUTOMATIC = '[incoming]\npermit = ["sip:flat1@site.example"]\nanswer = "automatic"\n'
NAMES = {"opus": "opus/48000", "G722": "G722/16000", "PCMA": "PCMA/8000", "PCMU": "PCMU/8000"}
BARESIP = {"opus": "opus/48000/2", "G722": "G722/16000/1", "PCMA": "PCMA/8000/1", "PCMU": "PCMU/8000/1"}


def flows(station: Station) -> bool:
    """Whether sound goes both ways."""
    call = station.status()["call"]
    return (
        call is not None and call["rx"] is not None and min(call["rx"]["packets"], call["tx"]["packets"]) > 20
    )


def offered(message: str) -> list[str]:
    """The codecs of a session, in order, without telephone events."""
    found = re.search(r"^m=audio \d+ RTP/AVP ([\d ]+)", message, re.MULTILINE)
    assert found is not None, message
    names = dict(re.findall(r"^a=rtpmap:(\d+) ([\w-]+/\d+)", message, re.MULTILINE))
    return [names[number] for number in found[1].split() if "telephone-event" not in names[number]]


@pytest.mark.item(7, "OPTIONS is answered with what is really taken", "scripted server")
def test_options_says_what_is_really_taken(served: Served) -> None:
    station, server = served(more=AUTOMATIC)
    reply = server.ask("OPTIONS", f"sip:door@{server.target}", {"Accept": "application/sdp"})
    assert reply.code == 200
    assert offered(reply.text) == ["opus/48000", "G722/8000", "PCMA/8000", "PCMU/8000"]
    assert "m=audio 0 " in reply.text
    assert "telephone-event/8000" in reply.text
    assert "m=video" not in reply.text
    assert reply.header("Accept") == "application/sdp, application/dtmf-relay, application/dtmf, text/plain"
    assert set(reply.header("Supported").split(", ")) == {"replaces", "100rel", "timer", "norefersub"}
    allowed = set(reply.header("Allow").split(", "))
    assert {"INVITE", "ACK", "BYE", "CANCEL", "UPDATE", "INFO", "PRACK", "REFER", "OPTIONS"} <= allowed
    assert "PUBLISH" not in allowed
    assert station.status()["state"] == "idle"

    dialog = server.call()
    assert isinstance(dialog, Dialog)
    assert server.within(dialog, "OPTIONS").code == 200
    assert server.within(dialog, "BYE").code == 200


@pytest.mark.item(7, "each codec alone and all together, called and calling", "baresip, Kamailio")
@pytest.mark.parametrize(
    "codecs",
    [
        ["opus"],
        pytest.param(["G722"], marks=pytest.mark.long),
        pytest.param(["PCMA"], marks=pytest.mark.long),
        pytest.param(["PCMU"], marks=pytest.mark.long),
        pytest.param(["PCMU", "PCMA", "G722", "opus"], marks=pytest.mark.long),
    ],
    ids="+".join,
)
def test_each_codec_in_both_directions(door: Door, flat: Flat, site: Site, codecs: list[str]) -> None:
    station = door(more=AUTOMATIC)
    phone: Phone = flat(codecs=[BARESIP[name] for name in codecs])
    phone.dial(site.uri("door"))
    station.wait_event("CallAnswered")
    assert wait_until(lambda: flows(station), 5.0), station.status()["call"]
    assert station.status()["call"]["codec"] == NAMES[codecs[0]], "who calls has the choice"
    phone.hang_up()
    station.wait_state("Concluded")

    station.press()
    phone.wait_ringing()
    phone.answer()
    station.wait_event("CallAnswered")
    assert wait_until(lambda: flows(station), 5.0), station.status()["call"]
    assert station.status()["call"]["codec"] in {NAMES[name] for name in codecs}
    if len(codecs) == 1:
        assert station.status()["call"]["codec"] == NAMES[codecs[0]]


def body(server: Counterpart, codecs: Iterable[str], event: int | None = 101) -> str:
    return sdp("127.0.0.1", server.sound_port, list(codecs), event)


@pytest.mark.item(7, "nothing fits: 488, and words for it, in both directions", "scripted server")
def test_nothing_fits(served: Served) -> None:
    station, server = served(more="[timing]\nrepeat_seconds = 0\n" + AUTOMATIC)
    refused = server.call(body(server, ["GSM"]))
    assert isinstance(refused, Reply)
    assert refused.code == 488
    assert "PJMEDIA_SDPNEG_NOANSCODEC" in refused.header("Warning")
    assert station.status()["counters"]["calls_accepted"] == 0

    station.press()
    server.reply(server.wait("INVITE "), 488)
    assert station.wait_action("RecordCall")["outcome"] == "failed"

    station.press()
    invite = server.wait("INVITE ")
    assert offered(invite) == ["opus/48000", "G722/8000", "PCMA/8000", "PCMU/8000"]
    server.reply(invite, 200, {"Content-Type": "application/sdp"}, body(server, ["GSM"], None))
    server.wait("ACK ")
    server.reply(server.wait("BYE "), 200)
    ended = station.wait_action("RecordCall")
    reason = "the far side answered with no sound that it was offered"
    assert (ended["outcome"], ended["reason"]) == ("failed", reason)


@pytest.mark.item(
    7, "each codec in the answer to an offer of all, and an offer that comes late", "scripted server"
)
@pytest.mark.parametrize(
    "codec", ["opus", *(pytest.param(name, marks=pytest.mark.long) for name in ("G722", "PCMA", "PCMU"))]
)
def test_the_answer_chooses(served: Served, codec: str) -> None:
    station, server = served(more=AUTOMATIC)
    station.press()
    dialog = server.take(body(server, [codec]))
    station.wait_event("CallAnswered")
    assert station.status()["call"]["codec"] == NAMES[codec]
    assert server.within(dialog, "BYE").code == 200
    assert station.wait_action("RecordCall")["outcome"] == "answered"


@pytest.mark.item(
    7, "digits by RTP event under each payload type, and by both kinds of INFO", "scripted server"
)
def test_digits_under_any_payload_type(served: Served) -> None:
    station, server = served(more=AUTOMATIC, release_seconds=0.2)
    for event in (96, 97, 100, 120, 127):
        dialog = server.call(body(server, ["PCMA"], event))
        assert isinstance(dialog, Dialog)
        assert dialog.event == event, "the answer takes over the offer's type"
        stream = Stream(event=event)
        server.play(dialog, [packet for digit in "5#" for packet in stream.press(digit)])
        assert station.wait_event("StrikeMoved", released=True)
        station.wait_event("StrikeMoved", released=False)
        assert server.within(dialog, "BYE").code == 200
        station.wait_state("Concluded")
    for kind, form in (
        ("application/dtmf-relay", "Signal={}\r\nDuration=160\r\n"),
        ("application/dtmf", "{}\r\n"),
    ):
        dialog = server.call(body(server, ["PCMA"], None))
        assert isinstance(dialog, Dialog)
        for digit in "5#":
            assert server.within(dialog, "INFO", form.format(digit), Content_Type=kind).code == 200
        assert station.wait_event("StrikeMoved", released=True)
        station.wait_event("StrikeMoved", released=False)
        assert server.within(dialog, "INFO", "nonsense", Content_Type="application/dtmf").code == 400
        assert server.within(dialog, "BYE").code == 200
        station.wait_state("Concluded")
