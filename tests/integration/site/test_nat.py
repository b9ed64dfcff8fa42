"""Phones behind a NAT: what they write about themselves is wrong, and they are reached all the same."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from deploy.demo.account import Account
from deploy.demo.phone import Phone
from deploy.demo.site import Site
from deploy.demo.stranger import Stranger
from tests.integration.site.wire import SDP, Call, header, is_quiet, register, say_back, wait_request

PRIVATE = "192.168.178.20:5060"
INSIDE = "127.20.0.1"
PING_SECONDS = 25  # deploy/site/nat.cfg


class Router:
    """A NAT for UDP: what comes to its inside address goes on from a port of its own for each phone.

    Args:
        target: `address:port` outside, the only one it serves.

    Attributes:
        inside: `address:port` that the phones send to.
        brought: what came in from outside.
    """

    def __init__(self, target: str) -> None:
        address, port = target.split(":")
        self._target = (address, int(port))
        self._home = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # A phone sends its answers to the port that stands in Via.
        self._home.bind((INSIDE, int(port)))
        self.inside = f"{INSIDE}:{port}"
        self.brought: list[str] = []
        self._phones: dict[tuple[str, int], socket.socket] = {}
        self._end, self._ended = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="router")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.close()
        self._thread.join()
        for channel in (self._home, self._ended, *self._phones.values()):
            channel.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._home, selectors.EVENT_READ)
            selector.register(self._ended, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._ended:
                        return
                    if key.fileobj is self._home:
                        data, phone = self._home.recvfrom(65_535)
                        if phone not in self._phones:
                            self._phones[phone] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                            self._phones[phone].connect(self._target)
                            selector.register(self._phones[phone], selectors.EVENT_READ, phone)
                        self._phones[phone].send(data)
                    else:
                        data = self._phones[key.data].recv(65_535)
                        self.brought.append(data.decode("utf-8", "replace"))
                        self._home.sendto(data, key.data)


@pytest.fixture
def flat(site: Site) -> Iterator[Stranger]:
    """A phone of flat1 that believes to be at a private address."""
    with Stranger(site.proxy, "127.0.0.30") as phone:
        register(site, "flat1", phone, contact=f"sip:phone@{PRIVATE}", via=PRIVATE)
        yield phone


@pytest.fixture
def door(site: Site) -> Iterator[Stranger]:
    with Stranger(site.proxy) as phone:
        yield phone


@pytest.mark.item(2, "a phone behind a NAT is rung, and reached within the call", "own messages")
def test_a_phone_with_a_private_contact_is_rung(site: Site, flat: Stranger, door: Stranger) -> None:
    call = Call(door, site.account("door"), site.uri("flat1"))
    call.begin()
    invite = wait_request(flat, "INVITE")
    private = {"Contact": f"<sip:phone@{PRIVATE}>"}
    flat.reply(invite, 200, private | {"Content-Type": "application/sdp"}, SDP)
    answer = call.result()
    call.say("ACK", answer, 2)
    # What the phone calls itself comes back to it unchanged.
    assert wait_request(flat, "ACK").startswith(f"ACK sip:phone@{PRIVATE} SIP/2.0")
    call.say("INVITE", answer, 3)
    flat.reply(wait_request(flat, "INVITE"), 200, private)
    again = call.result()
    call.say("ACK", again, 3)
    wait_request(flat, "ACK")
    call.say("BYE", again, 4)
    wait_request(flat, "BYE")


@pytest.mark.item(2, "a phone behind a NAT calls, and is reached within the call", "own messages")
def test_a_phone_with_a_private_contact_calls(site: Site, flat: Stranger, door: Stranger) -> None:
    register(site, "flat2", door)
    private = {"Contact": f"<sip:phone@{PRIVATE}>"}
    call = Call(flat, site.account("flat1"), site.uri("flat2"), private, via=PRIVATE)
    call.begin()
    invite = wait_request(door, "INVITE")
    door.reply(invite, 200, {"Content-Type": "application/sdp"}, SDP)
    call.say("ACK", call.result(), 2)
    wait_request(door, "ACK")
    say_back(door, invite, "BYE")
    assert wait_request(flat, "BYE").startswith(f"BYE sip:phone@{PRIVATE} SIP/2.0")


@pytest.mark.item(2, "on a plain network nothing is added to what a phone says", "own messages")
def test_a_plain_phone_is_left_alone(site: Site, door: Stranger) -> None:
    with Stranger(site.proxy) as flat2:
        register(site, "flat2", flat2)
        call = Call(door, site.account("door"), site.uri("flat2"))
        call.begin()
        invite = wait_request(flat2, "INVITE")
        assert header(invite, "Contact") == f"<sip:stranger@{door.address}>"
        flat2.reply(invite, 200, {"Content-Type": "application/sdp"}, SDP)
        assert call.result().header("Contact") == f"<sip:stranger@{flat2.address}>"


@pytest.mark.item(2, "a phone behind a router: rung, answers, calls, is hung up", "baresip")
def test_a_phone_behind_a_router(tmp_path: Path, site: Site) -> None:
    with Router(site.proxy) as router:
        behind = Account("flat1", site.users["flat1"], site.realm, router.inside)
        with (
            Phone(tmp_path / "flat1", behind, address="127.20.0.5") as flat,
            Phone(tmp_path / "door", site.account("door")) as door,
        ):
            flat.wait_registered()
            door.wait_registered()
            door.dial(site.uri("flat1"))
            flat.wait_ringing()
            assert any(text.startswith("INVITE ") for text in router.brought)
            flat.answer()
            door.wait_established()
            door.hang_up()
            flat.wait_closed()
            assert any(text.startswith("BYE ") for text in router.brought)
            flat.dial(site.uri("door"))
            door.wait_ringing()
            door.answer()
            flat.wait_established()
            router.brought.clear()
            door.hang_up()
            flat.wait_closed()
            assert any(text.startswith("BYE ") for text in router.brought)


@pytest.mark.long
@pytest.mark.item(2, "only a phone behind a NAT is kept awake", "own messages")
def test_who_is_kept_awake(site: Site, flat: Stranger, door: Stranger) -> None:
    register(site, "flat2", door)
    # From one ping to the next everybody has had his turn.
    for _ in range(2):
        flat.reply(wait_request(flat, "OPTIONS", timeout=PING_SECONDS + 10), 200)
    assert is_quiet(door)
