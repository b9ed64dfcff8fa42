"""A relay that holds no state, in front of another server that has the users."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from deploy.demo.account import Account, Transport
from deploy.demo.phone import Phone
from deploy.demo.program import Program, free_port, wait_until
from deploy.demo.site import Site
from deploy.demo.stranger import Stranger
from intercom.site import control, places
from tests.integration.conftest import USERS
from tests.integration.site.wire import SDP, Call, header, is_quiet, register, say_back, wait_request

ADDRESS, PRIVATE = "127.0.0.9", "192.168.178.20:5060"


class Relay:
    """`deploy/site/stateless.cfg` in front of a server, on UDP and TCP."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.folder = folder
        self.proxy = f"127.0.0.1:{free_port()}"
        self._program: Program | None = None
        folder.mkdir()
        for part in places.data().glob("*.cfg"):
            shutil.copyfile(part, folder / part.name)
        (folder / "site.cfg").write_text(
            f'#!define TO "sip:{site.proxy}"\n'
            f'#!define DOMAIN "{site.realm}"\n'
            "#!define REQUESTS_PER_2S 400\n"
            "#!define LONGEST_EXPIRES 3600\n"
            f'#!define CONTROL "{folder / "control.sock"}"\n'
            f"listen=udp:{self.proxy}\n"
            f"listen=tcp:{self.proxy}\n"
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._program is not None:
            self._program.stop()

    def start(self) -> None:
        """Block until it answers."""
        files = ["-f", str(self.folder / "stateless.cfg"), "-Y", str(self.folder)]
        command = ["kamailio", *files, "-m", "16", "-M", "4", "-DD", "-E"]
        self._program = Program(command, self.folder / "relay.log", folder=self.folder)
        assert wait_until(self._answers, 10.0), self._program.tail()

    def kill(self) -> None:
        assert self._program is not None
        self._program.kill()

    def account(self, user: str, site: Site, transport: Transport = "udp") -> Account:
        return Account(user, site.users[user], site.realm, self.proxy, transport)

    def _answers(self) -> bool:
        with Stranger(self.proxy) as somebody:
            try:
                return somebody.ask("OPTIONS", f"sip:{self.proxy}", timeout=0.1).code == 200
            except (TimeoutError, ConnectionRefusedError):
                return False


@pytest.fixture
def pbx(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "pbx", users=USERS, address=ADDRESS) as site:
        yield site


@pytest.fixture
def relay(tmp_path: Path, pbx: Site) -> Iterator[Relay]:
    with Relay(tmp_path / "relay", pbx) as relay:
        yield relay


@pytest.mark.item(2, "stateless: phones register and call each other through the relay", "baresip, the site")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_calls_pass_the_relay(tmp_path: Path, pbx: Site, relay: Relay, transport: Transport) -> None:
    with (
        Phone(tmp_path / "door", relay.account("door", pbx, transport)) as door,
        Phone(tmp_path / "flat1", relay.account("flat1", pbx)) as flat,
    ):
        door.wait_registered()
        flat.wait_registered()
        door.dial(pbx.uri("flat1"))
        flat.wait_ringing()
        flat.answer()
        door.wait_established()
        door.hang_up()
        flat.wait_closed()
        flat.dial(pbx.uri("door"))
        door.wait_ringing()
        door.answer()
        flat.wait_established()
        door.hang_up()
        flat.wait_closed()
        door.dial(pbx.uri("flat1"))
        flat.wait_ringing()
        door.hang_up()
        flat.wait_closed()


@pytest.mark.item(2, "stateless: killed and started again in the middle of a call", "baresip, the site")
def test_the_relay_is_killed_within_a_call(tmp_path: Path, pbx: Site, relay: Relay) -> None:
    with (
        Phone(tmp_path / "door", relay.account("door", pbx)) as door,
        Phone(tmp_path / "flat1", relay.account("flat1", pbx)) as flat,
    ):
        door.wait_registered()
        flat.wait_registered()
        door.dial(pbx.uri("flat1"))
        flat.wait_ringing()
        relay.kill()
        relay.start()
        flat.answer()
        door.wait_established()
        relay.kill()
        relay.start()
        flat.hang_up()
        door.wait_closed()


@pytest.mark.item(2, "stateless: no transaction is held; CANCEL finds its INVITE", "own messages")
def test_the_relay_holds_no_state(pbx: Site, relay: Relay) -> None:
    methods = control.request(relay.folder, "system.listMethods")["result"]
    assert "core.tcp_info" in methods
    assert not [method for method in methods if method.startswith("tm.")]
    with Stranger(relay.proxy) as door, Stranger(relay.proxy) as flat:
        register(pbx, "flat1", flat)
        call = Call(door, pbx.account("door"), pbx.uri("flat1"))
        call.begin()
        invite = wait_request(flat, "INVITE")
        flat.reply(invite, 180)
        call.cancel()
        cancelled = wait_request(flat, "CANCEL")
        assert header(cancelled, "Via") == header(invite, "Via")
        # The answer to the INVITE comes in any case, also when the relay was dead in between.
        relay.kill()
        relay.start()
        flat.reply(cancelled, 200)
        flat.reply(invite, 487)
        assert call.result().code == 487


@pytest.mark.item(2, "stateless: a phone behind a NAT is reached through the relay", "own messages")
def test_a_private_contact_behind_the_relay(pbx: Site, relay: Relay) -> None:
    private = {"Contact": f"<sip:phone@{PRIVATE}>"}
    with Stranger(relay.proxy) as door, Stranger(relay.proxy, "127.0.0.30") as flat:
        register(pbx, "flat1", flat, contact=f"sip:phone@{PRIVATE}", via=PRIVATE)
        call = Call(door, pbx.account("door"), pbx.uri("flat1"))
        call.begin()
        invite = wait_request(flat, "INVITE")
        # What a plain phone says of itself is left as it is.
        assert header(invite, "Contact") == f"<sip:stranger@{door.address}>"
        flat.reply(invite, 200, private | {"Content-Type": "application/sdp"}, SDP)
        call.say("ACK", call.result(), 2)
        assert wait_request(flat, "ACK").startswith(f"ACK sip:phone@{PRIVATE} SIP/2.0")
        say_back(flat, invite, "BYE")
        wait_request(door, "BYE")
        # And the other way round.
        register(pbx, "door", door)
        call = Call(flat, pbx.account("flat1"), pbx.uri("door"), private, via=PRIVATE)
        call.begin()
        invite = wait_request(door, "INVITE")
        door.reply(invite, 200, {"Content-Type": "application/sdp"}, SDP)
        call.result()
        say_back(door, invite, "BYE")
        assert wait_request(flat, "BYE").startswith(f"BYE sip:phone@{PRIVATE} SIP/2.0")


@pytest.mark.item(2, "stateless: nothing goes anywhere but to the server", "own messages")
def test_the_relay_serves_one_server_only(pbx: Site, relay: Relay) -> None:
    own, port = relay.proxy, pbx.port
    with Stranger(own) as stranger, Stranger(own) as victim, Stranger(own, ADDRESS) as server:
        elsewhere = f"sip:victim@{victim.address}"
        route = {"Route": f"<sip:{own};lr>, <sip:{victim.address};lr>"}
        assert stranger.ask("INVITE", elsewhere).code == 403
        assert stranger.ask("INVITE", elsewhere, route).code == 403
        # Within a dialog, which this server knows nothing of.
        tag = {"To": f"<{elsewhere}>;tag=made-up"}
        assert stranger.ask("BYE", elsewhere, tag | route).code == 481
        # Not even the server itself without the Route of a phone that has registered here.
        assert server.ask("INVITE", elsewhere).code == 403
        assert server.ask("INVITE", elsewhere, {"Route": f"<sip:{victim.address};lr>"}).code == 403
        assert is_quiet(victim)
        assert stranger.ask("INVITE", pbx.uri("flat1")).code == 407
        assert stranger.ask("INVITE", f"sip:flat1@{ADDRESS}:{port}", {"Max-Forwards": "0"}).code == 483
        scanner = {"User-Agent": "friendly-scanner"}
        with pytest.raises(TimeoutError):
            stranger.ask("OPTIONS", f"sip:{own}", scanner, timeout=0.2)
