"""ICE, STUN and TURN: with a relay of its own, with one that is silent, and against strangers."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from deploy.demo.account import Account
from deploy.demo.program import Program, wait_until
from deploy.demo.relay import RelayServer
from deploy.demo.scripted import Request, Say, ScriptedRegistrar, granted
from deploy.demo.site import Site
from deploy.demo.station import Station, settings
from tests.bench import attacks
from tests.integration.conftest import USERS

ICE = "[network]\nice = true\n"
CODE = "5#"


def begin(
    parts: ExitStack, folder: Path, account: Account, more: str, password: str = "secret", to: str = ""
) -> Station:
    """Start a station that is registered; the password of a relay lies beside its own."""
    lay_password(folder)
    text = settings(account, [(to or "sip:flat1@site.example", 20)], codes=[CODE], more=more)
    station = parts.enter_context(Station(folder, password, text))
    station.wait_registered()
    return station


def lay_password(folder: Path) -> None:
    """Put the password of a relay where a station will be."""
    folder.mkdir()
    secret = folder / "turn.secret"
    secret.touch(mode=0o600)
    secret.write_text(RelayServer.PASSWORD)


def wait_used(program: Program, *kinds: str) -> None:
    """Block until calls use the servers of these kinds, or of both."""
    for kind in kinds or ("STUN", "TURN"):
        program.wait_for(f"use the {kind} server", 5.0)


def received(station: Station) -> int:
    """The packets of sound that a station's call has got; 0 without a call."""
    return int(((station.status()["call"] or {}).get("rx") or {"packets": 0})["packets"])


def ports(station: Station) -> list[int]:
    """The UDP ports that a station listens on."""
    folder = Path(f"/proc/{station.program.pid}/fd")
    sockets = set()
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            sockets.update(re.findall(r"socket:\[(\d+)\]", str(file.readlink())))
    lines = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return [int(line[1].partition(":")[2], 16) for line in lines if line[9] in sockets]


def keys(payload: int, digits: str) -> list[bytes]:
    """Key presses as telephone events (RFC 4733), each sent to its end."""
    packets: list[bytes] = []
    for number, digit in enumerate(digits):
        for mark, end in ((0x80, 0), (0, 0x80), (0, 0x80), (0, 0x80)):
            head = struct.pack("!BBHII", 0x80, mark | payload, 100 + len(packets), 1600 * (number + 1), 7)
            packets.append(head + struct.pack("!BBH", "0123456789*#".index(digit), end | 10, 800))
    return packets


def deafened(parts: ExitStack) -> tuple[ScriptedRegistrar, list[tuple[float, str]]]:
    """A registrar that refuses every call, and keeps when it came and what it offered."""
    server = parts.enter_context(ScriptedRegistrar(granted()))
    offers: list[tuple[float, str]] = []

    def refuse(request: Request) -> Say:
        offers.append((time.monotonic(), request.text))
        return Say("486 Busy Here")

    server.calls = refuse
    return server, offers


@pytest.fixture
def parts() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def relay(tmp_path: Path, parts: ExitStack) -> RelayServer:
    return parts.enter_context(RelayServer(tmp_path / "relay"))


@pytest.mark.item(
    9, "sound by ICE through TURN; a stranger's digits are refused", "Kamailio, coturn, a second station"
)
def test_a_call_by_ice(tmp_path: Path, parts: ExitStack, site: Site, relay: RelayServer) -> None:
    more = relay.settings(stun=False)
    answers = '[[incoming.peer]]\nuri = "sip:*@site.example"\nanswer = "automatic"\n'
    flat = begin(
        parts, tmp_path / "flat", site.account("flat1"), more + answers, USERS["flat1"], site.uri("flat2")
    )
    door = begin(parts, tmp_path / "door", site.account("door"), more, USERS["door"], site.uri("flat1"))
    wait_used(flat.program, "TURN")
    wait_used(door.program, "TURN")
    door.press()
    door.wait_event("CallAnswered")
    assert wait_until(lambda: received(door) > 20 and received(flat) > 20, 10.0)
    relay.program.wait_for("ALLOCATE processed, success", 1.0)
    heard = received(door)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        for payload in range(96, 128):
            for port in ports(door):
                for packet in keys(payload, CODE):
                    stranger.sendto(packet, ("127.0.0.1", port))
    assert wait_until(lambda: received(door) > heard + 20, 5.0)  # its own sound goes on
    assert "a digit by" not in door.program.log.read_text()
    assert door.status()["counters"]["releases"] == 0


@pytest.mark.item(
    9,
    "a call is offered with what STUN and TURN say; without settings it has none of it",
    "coturn, own messages",
)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_what_is_offered(tmp_path: Path, parts: ExitStack, relay: RelayServer, transport: str) -> None:
    server, offers = deafened(parts)
    door = begin(parts, tmp_path / "door", server.account(), relay.settings(transport=transport))
    relay.program.wait_for("REFRESH processed, error 437", 5.0)  # the password is right
    wait_used(door.program)
    door.press()
    door.wait_event("CallEnded")
    kinds = set(re.findall(r"a=candidate:.* typ (\w+)", offers[0][1]))
    assert kinds == {"srflx", "relay"}
    other = begin(parts, tmp_path / "other", server.account(), "")
    other.press()
    other.wait_event("CallEnded")
    assert "a=candidate" not in offers[-1][1]
    assert "a=ice" not in offers[-1][1]
    for station in (door, other):
        assert RelayServer.PASSWORD not in station.program.log.read_text()


@pytest.mark.item(
    9,
    "a STUN or TURN server that falls silent costs one call 2 s, and is a fault in words",
    "coturn, own messages",
)
def test_a_relay_that_falls_silent(tmp_path: Path, parts: ExitStack, relay: RelayServer) -> None:
    server, offers = deafened(parts)
    more = relay.settings() + "[timing]\nrepeat_seconds = 0\n"
    door = begin(parts, tmp_path / "door", server.account(), more)
    wait_used(door.program)
    relay.freeze()
    for longest in (3.0, 0.5):
        began = time.monotonic()
        door.press()
        door.wait_event("CallEnded")
        assert offers[-1][0] - began < longest
        assert "relay" not in offers[-1][1]
        door.wait_state("Idle")
    fault = f"the TURN server {relay.place} does not answer; calls go without it"
    assert wait_until(lambda: door.status()["faults"].get("TURN") == fault, 15.0)
    relay.thaw()
    assert wait_until(lambda: not door.status()["faults"], 15.0)


@pytest.mark.item(9, "a STUN or TURN server that is not there delays neither start nor press", "own messages")
def test_no_relay(tmp_path: Path, parts: ExitStack) -> None:
    server, offers = deafened(parts)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        more = f'{ICE}stun = "{place}"\n[network.turn]\nserver = "{place}"\nusername = "door"\n'
        began = time.monotonic()
        door = begin(parts, tmp_path / "door", server.account(), more + 'password_file = "turn.secret"\n')
        assert time.monotonic() - began < 4.0
        began = time.monotonic()
        door.press()
        door.wait_event("CallEnded")
        assert offers[0][0] - began < 0.5
        assert wait_until(lambda: {"STUN", "TURN"} <= set(door.status()["faults"]), 5.0)


@pytest.mark.item(9, "a wrong password for TURN is said", "coturn")
def test_a_wrong_password(tmp_path: Path, parts: ExitStack, relay: RelayServer) -> None:
    server, _ = deafened(parts)
    more = relay.settings().replace('"turn.secret"', '"door.secret"')
    door = begin(parts, tmp_path / "door", server.account(), more)
    assert wait_until(lambda: "refuses the user name" in door.status()["faults"].get("TURN", ""), 5.0)
    assert "STUN" not in door.status()["faults"]


@pytest.mark.item(9, "with ICE on, strangers put nothing into a call without", "coturn, own messages")
def test_a_peer_without_ice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relay: RelayServer) -> None:
    monkeypatch.setattr(attacks, "SETTINGS", attacks.SETTINGS + f'{ICE}stun = "{relay.place}"\n')
    with attacks.Ours(tmp_path / "door") as station:
        wait_used(station.program, "STUN")
        counts = attacks.attacked(station, attacks.injection)
    assert {name for name, count in counts.items() if count > ("log" in name)} == set()
