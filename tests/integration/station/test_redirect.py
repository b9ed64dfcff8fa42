"""Calls that are told to go elsewhere: followed, within the same time, and not anywhere."""

from __future__ import annotations

import pytest

from deploy.demo.counterpart import Counterpart, sdp
from deploy.demo.scenarios import refuses
from deploy.demo.site import Site
from deploy.demo.station import Station
from deploy.demo.stranger import Reply
from tests.integration.station.conftest import Door, Flat, Scripted, Served
from tests.integration.station.test_plans import FLAT1, FLAT2, records

NOBODY, STRANGER = "sip:nobody@site.example", "sip:0900@evil.example"


def contact(*addresses: str) -> str:
    return "Contact: " + ", ".join(
        f"<{address}>;q={1 - place / 10}" for place, address in enumerate(addresses)
    )


def reasons(station: Station, count: int) -> list[str]:
    """Why the calls ended, once there are as many."""
    records(station, count)
    return [entry["reason"] for entry in station.ask("GET", "/log")["records"] if entry["kind"] == "call"]


def session(server: Counterpart) -> dict[str, object]:
    return {"headers": {"Content-Type": "application/sdp"}, "body": sdp("127.0.0.1", server.sound_port)}


@pytest.mark.item(
    3, "300, 301, 302 and 380 are followed, the best contact first", "a scripted server with telephones"
)
@pytest.mark.parametrize(
    "code", [300, 302, *(pytest.param(code, marks=pytest.mark.long) for code in (301, 380))]
)
def test_a_redirection_is_followed(served: Served, code: int) -> None:
    station, server = served()
    station.press()
    asked = server.wait("INVITE ")
    server.reply(asked, code, {"Contact": f"<{FLAT2}>;q=0.1, Nobody <{NOBODY}>;q=0.9"})
    best = server.wait(f"INVITE {NOBODY} ")
    server.reply(best, 404)
    second = server.wait(f"INVITE {FLAT2} ")
    server.reply(second, 200, **session(server))  # type: ignore[arg-type]
    assert station.wait_event("CallEnded")["event"]["status"] == code
    assert station.wait_event("CallAnswered")["after"] == "Talking"
    assert records(station, 3) == [
        ("call", FLAT1, "redirected"),
        ("call", NOBODY, "not_found"),
        ("ring", "", "answered"),
    ]


@pytest.mark.item(3, "a telephone of the house that redirects to another", "SIPp, baresip, Kamailio")
@pytest.mark.long
def test_a_telephone_redirects(door: Door, scripted: Scripted, flat: Flat) -> None:
    scripted(refuses(302, 100, contact(FLAT2)))
    neighbour = flat("flat2")
    station = door()
    station.press()
    neighbour.wait_ringing()
    neighbour.answer()
    station.wait_event("CallAnswered")


@pytest.mark.item(
    3, "a redirect of our own server, with two contacts: the first is nobody's", "baresip, Kamailio"
)
@pytest.mark.parametrize("permanent", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_redirect_of_the_server(door: Door, site: Site, flat: Flat, permanent: bool) -> None:
    site.store.set_redirect("flat1", [NOBODY, FLAT2], permanent=permanent)
    site.reload()
    neighbour = flat("flat2")
    station = door()
    station.press()
    neighbour.wait_ringing()
    neighbour.answer()
    station.wait_event("CallAnswered")
    assert records(station, 3) == [
        ("call", FLAT1, "redirected"),
        ("call", NOBODY, "not_found"),
        ("ring", "", "answered"),
    ]


@pytest.mark.item(
    3, "it rings elsewhere for what is left of the seconds", "a scripted server with telephones"
)
def test_a_redirection_gives_no_more_time(served: Served) -> None:
    station, server = served(plan=f'ring = [{{ to = "{FLAT1}", seconds = 2.5 }}]\n')
    station.press()
    first = station.wait_action("Dial")
    asked = server.wait("INVITE ")
    server.reply(asked, 180)
    station.wait_event("CallRang")
    server.reply(asked, 302, {"Contact": f"<{FLAT2}>"})
    server.reply(server.wait(f"INVITE {FLAT2} "), 180)
    given_up = station.wait_action("HangUp")
    assert given_up["at"] - first["at"] == pytest.approx(2.5, abs=0.3)


@pytest.mark.item(
    3, "a loop, a stranger and no address are refused with the reason", "a scripted server with a telephone"
)
@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (f"<{FLAT1};transport=udp>", "was tried before"),
        (f"<{STRANGER}>", f"{STRANGER} is not in [redirect] permit"),
        ("<tel:+490900>", ""),
    ],
    ids=["loop", "stranger", "number"],
)
def test_what_is_not_followed(served: Served, header: str, reason: str) -> None:
    station, server = served()
    station.press()
    server.reply(server.wait("INVITE "), 302, {"Contact": header})
    concluded = station.wait_state("Concluded")
    assert {"type": "ShowLamp", "lamp": "failed"} in concluded["actions"]
    (why,) = reasons(station, 1)
    assert why.endswith(reason)
    assert station.status()["counters"]["calls_placed"] == 1


@pytest.mark.item(3, "a stranger whom the settings permit is called", "SIPp, Kamailio")
def test_a_permitted_stranger(door: Door, scripted: Scripted) -> None:
    scripted(refuses(302, None, contact(STRANGER)))
    station = door(more='[redirect]\npermit = ["sip:*@evil.example"]')
    station.press()
    station.wait_event("CallEnded", status=302)
    station.wait_state("Concluded")
    assert [to for _, to, _ in records(station, 3)] == [FLAT1, STRANGER, ""]


@pytest.mark.item(3, "two telephones that send us to each other", "a scripted server with telephones")
def test_two_that_send_us_to_each_other(served: Served) -> None:
    station, server = served()
    station.press()
    server.reply(server.wait(f"INVITE {FLAT1} "), 302, {"Contact": f"<{FLAT2}>"})
    server.reply(server.wait(f"INVITE {FLAT2} "), 302, {"Contact": f"<{FLAT1}>"})
    station.wait_state("Concluded")
    assert station.status()["counters"]["calls_placed"] == 2
    assert reasons(station, 3)[1].endswith(f"{FLAT1} was tried before")


@pytest.mark.item(
    3, "305: the same address again, through the proxy that is named", "a server with a telephone"
)
def test_use_proxy(served: Served) -> None:
    station, server = served()
    station.press()
    invite = server.wait("INVITE ")
    server.reply(invite, 305, {"Contact": f"<sip:{server.address}>"})
    again = server.wait("INVITE ")
    assert again.split()[1] == invite.split()[1]
    assert Reply(0, again).header("Route") == f"<sip:{server.address};lr>"
    server.reply(again, 200, **session(server))  # type: ignore[arg-type]
    station.wait_event("CallAnswered")


@pytest.mark.item(10, "a redirection with nonsense changes nothing", "a server with a telephone")
@pytest.mark.parametrize(
    "value",
    [
        "<sip:a@b>;q=9e9",
        ", ".join(["<sip:x@evil.example>"] * 40),
        *(pytest.param(value, marks=pytest.mark.long) for value in ("", "<", '"', "<sip:>", "<sip:a@\x01>")),
    ],
    ids=["quality", "many", "empty", "open", "quote", "nobody", "control"],
)
def test_nonsense(served: Served, value: str) -> None:
    station, server = served()
    station.press()
    server.reply(server.wait("INVITE "), 302, {"Contact": value})
    station.wait_state("Concluded", 20.0)  # what cannot be read at all is no answer
    assert station.status()["counters"]["calls_placed"] == 1
