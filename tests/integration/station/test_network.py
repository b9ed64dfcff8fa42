"""What lies below SIP: IPv6, an outbound proxy, names, keep-alives and the marks of packets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.demo.account import Account
from deploy.demo.names import Names
from deploy.demo.program import wait_until
from deploy.demo.scripted import Request, Say, ScriptedRegistrar, granted
from deploy.demo.site import Site
from deploy.demo.station import Station, settings
from tests.integration.conftest import USERS

SIGNALLING, SOUND = 24 << 2, 46 << 2  # the TOS byte of CS3 and EF


class Ear:
    """A telephone's socket for sound: answers a call with it, and keeps the marks of what comes in."""

    def __init__(self, address: str) -> None:
        self._six = ":" in address
        self._socket = socket.socket(socket.AF_INET6 if self._six else socket.AF_INET, socket.SOCK_DGRAM)
        if self._six:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        else:
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        self._socket.bind((address, 0))
        self._socket.settimeout(5.0)
        self.address, self.port = self._socket.getsockname()[:2]

    def answer(self, request: Request) -> Say:
        where = f"IN IP{6 if self._six else 4} {self.address}"
        body = (
            f"v=0\r\no=- 1 1 {where}\r\ns=-\r\nc={where}\r\nt=0 0\r\n"
            f"m=audio {self.port} RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n"
        )
        host = f"[{self.address}]" if self._six else self.address
        headers = {"Contact": f"<sip:flat1@{host}:{self.port}>", "Content-Type": "application/sdp"}
        return Say("200 OK", headers, body)

    def hear(self) -> tuple[str, int]:
        """The next RTP packet's sender and TOS byte; the ACK comes here as well."""
        data = b""
        while data[:1] != b"\x80":
            data, notes, _, sender = self._socket.recvmsg(2048, 256)
        return str(sender[0]), next(note[2][0] for note in notes)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def parts() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(parts: ExitStack, folder: Path, account: Account, more: str = "", **options: str) -> Station:
    text = settings(account, [("sip:flat1@site.example", 20)], more=more, **options)  # type: ignore[arg-type]
    return parts.enter_context(Station(folder, "secret", text))


@pytest.mark.item(9, "registration, call and sound over IPv4 and IPv6; DSCP CS3 and EF", "scripted server")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_both_families_and_their_marks(parts: ExitStack, tmp_path: Path, address: str) -> None:
    server = parts.enter_context(ScriptedRegistrar(granted(), address))
    ear = Ear(address)
    parts.callback(ear.close)
    server.calls = ear.answer
    station = start(parts, tmp_path / "door", server.account())
    station.wait_registered()
    assert server.place in station.status()["accounts"][0]["server"]
    station.press()
    station.wait_event("CallAnswered")
    assert {ear.hear() for _ in range(20)} == {(address, SOUND)}
    invite = next(request for request in server.heard if request.method == "INVITE")
    assert f"c=IN IP{6 if ':' in address else 4} {address}\r\n" in invite.text
    marks = {request.tos for request in server.heard if request.method in {"REGISTER", "INVITE"}}
    assert marks == {SIGNALLING}


@pytest.mark.item(9, "calls over IPv6 come from the registrar only", "scripted server")
def test_a_stranger_over_ipv6_is_refused(parts: ExitStack, tmp_path: Path) -> None:
    server = parts.enter_context(ScriptedRegistrar(granted(), "::1"))
    station = start(
        parts, tmp_path / "door", server.account(), '[incoming]\npermit = ["sip:*@site.example"]\n'
    )
    station.wait_registered()
    contact = server.registers[0].header("Contact")
    port = int(contact.partition("]:")[2].partition(";")[0].rstrip(">"))
    invite = server.registers[0].text.replace("REGISTER", "INVITE")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("::1", 0))
        stranger.settimeout(5.0)
        stranger.sendto(invite.encode(), ("::1", port))
        assert stranger.recv(2000).startswith(b"SIP/2.0 403 ")
    assert station.status()["counters"]["calls_refused"] == 0  # it did not get as far


@pytest.mark.item(1, "AAAA where there is no A, and A before AAAA", "dnsmasq, scripted servers")
@pytest.mark.parametrize("hosts", ["::1", "127.0.0.1,::1"])
def test_addresses_of_both_families(parts: ExitStack, tmp_path: Path, hosts: str) -> None:
    address = hosts.partition(",")[0]
    server = parts.enter_context(ScriptedRegistrar(granted(), address))
    names = parts.enter_context(Names(tmp_path / "names", {}, {"pbx.example": hosts}))
    account = Account("door", "secret", "site.example", f"pbx.example:{server.port}")
    station = start(parts, tmp_path / "door", account, names.settings)
    station.wait_registered()
    assert f"({address})" in station.status()["accounts"][0]["server"]


@pytest.mark.item(1, "NAPTR chooses TCP, SRV the port", "Kamailio, dnsmasq")
def test_naptr_chooses_the_transport(parts: ExitStack, tmp_path: Path, site: Site) -> None:
    listed = [("one.site.example", site.port, 10, 0)]
    names = Names(
        tmp_path / "names",
        {"_sip._tcp.site.example": listed, "_sip._udp.site.example": listed},
        {"one.site.example": site.address},
        ways={"site.example": [(10, 20, "SIP+D2U", "_sip._udp"), (10, 10, "SIP+D2T", "_sip._tcp")]},
    )
    parts.enter_context(names)
    text = settings(site.account("door"), [(site.uri("flat1"), 20)], more=names.settings)
    text = text.replace(f"sip:{site.proxy};transport=udp", "sip:site.example")
    station = parts.enter_context(Station(tmp_path / "door", USERS["door"], text))
    station.wait_registered()
    assert "transport=tcp" in site.registered("door")[0].lower()


@pytest.mark.item(1, "everything goes by the outbound proxy", "Kamailio")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_an_outbound_proxy(parts: ExitStack, tmp_path: Path, site: Site, transport: str) -> None:
    proxy = f'proxy = "sip:{site.proxy};transport={transport}"\n'
    text = settings(site.account("door"), [(site.uri("flat1"), 20)], protection=proxy)
    text = text.replace(f'registrar = "sip:{site.proxy};transport=udp"', 'registrar = "sip:site.example"')
    station = parts.enter_context(Station(tmp_path / "door", USERS["door"], text))
    station.wait_registered()
    assert station.status()["accounts"][0]["registrar"] == "sip:site.example"
    assert len(site.registered("door")) == 1


@pytest.mark.long
@pytest.mark.item(9, "the way through an address translator is kept open", "scripted server")
def test_keep_alives(parts: ExitStack, tmp_path: Path) -> None:
    server = parts.enter_context(ScriptedRegistrar(granted()))
    station = start(parts, tmp_path / "door", server.account())
    station.wait_registered()
    assert wait_until(lambda: bool(server.keep_alives), 17.0)


@pytest.mark.item(9, "the address that rport shows is registered (RFC 3581)", "scripted server")
def test_the_address_that_rport_shows(parts: ExitStack, tmp_path: Path) -> None:
    def translated(request: Request) -> Say:
        say = granted()(request)
        via = request.header("Via").replace(";rport", ";received=192.0.2.99;rport=4711")
        return Say(say.status, {**(say.headers or {}), "Via": via})

    server = parts.enter_context(ScriptedRegistrar(translated))
    start(parts, tmp_path / "door", server.account())
    assert wait_until(
        lambda: any("192.0.2.99:4711" in request.header("Contact") for request in server.registers), 5.0
    )


@pytest.mark.item(1, "a Retry-After that is garbage leaves the answer what it is", "scripted server")
@pytest.mark.parametrize("garbage", ["in a while; -1", "(", "", "99999999999999999999;duration=", "5;=;("])
def test_garbage_in_retry_after(parts: ExitStack, tmp_path: Path, garbage: str) -> None:
    refusals = iter([Say("503 Service Unavailable", {"Retry-After": garbage})])
    well = granted()
    server = parts.enter_context(ScriptedRegistrar(lambda request: next(refusals, None) or well(request)))
    server.calls = lambda request: Say("486 Busy Here", {"Retry-After": garbage})
    station = start(parts, tmp_path / "door", server.account())
    station.program.wait_for("503", 5.0)  # not that it is silent, which takes 12 s
    station.wait_registered()
    station.press()
    station.wait_event("CallEnded", status=486, timeout=5.0)
