"""TLS, WebSocket, TCP and SCTP: who comes over them, and whom the certificate keeps away."""

from __future__ import annotations

import errno
import http.client
import resource
import shutil
import socket
import ssl
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from websockets.exceptions import InvalidMessage, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from deploy.demo.account import Transport
from deploy.demo.browser import Browser
from deploy.demo.linphone import Linphone
from deploy.demo.phone import Phone
from deploy.demo.program import free_port, wait_until
from deploy.demo.site import Site
from deploy.demo.station import Station, settings
from deploy.demo.stranger import Stranger
from intercom.settings.loading import WrongSettings
from intercom.site import certificates
from intercom.site.running import renew_certificate
from intercom.site.server import in_place, prepare, program
from intercom.site.settings import SiteSettings
from tests.integration.conftest import USERS

SETTINGS = Path("site.toml")  # named in mistakes only
STRANGER = ("127.0.77.1", 0)

Served = Callable[..., Site]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Start a site with these transports; `sections` as for `Site`."""
    with ExitStack() as parts:

        def start(*transports: str, **sections: Any) -> Site:
            ports = {f"{name}_port": free_port() for name in ("tls", "ws", "wss")}
            listen = {"transports": ["udp", "tcp", *transports], **ports}
            return parts.enter_context(Site(tmp_path / "site", users=USERS, listen=listen, **sections))

        yield start


def authority(site: Site) -> Path:
    """What a phone must trust."""
    return site.folder / "tls" / "ca.pem"


def handshake(site: Site, **limits: ssl.TLSVersion) -> x509.Certificate:
    """The certificate that the site shows to a phone that trusts its authority and asks for its domain."""
    context = ssl.create_default_context(cafile=authority(site))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # so that it is not we who refuse an old TLS
    for name, version in limits.items():
        setattr(context, name, version)
    with (
        socket.create_connection((site.address, site.settings.listen.tls_port), 5.0) as plain,
        context.wrap_socket(plain, server_hostname=site.realm) as secure,
    ):
        shown = secure.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown)


def connections(site: Site) -> list[dict[str, Any]]:
    """The TCP and TLS connections that are open now."""
    listed: list[dict[str, Any]] = site.ask("core.tcp_list")["result"]
    return listed


@pytest.fixture
def named(served: Served) -> Site:
    """A site whose domain every machine can resolve: linphonec wants the server's name in the certificate."""
    return served("tls", realm="localhost")


def linphone(folder: Path, site: Site, trusts: Path | None) -> Linphone:
    account = site.account("flat1", "tls")
    port = account.proxy.rpartition(":")[2]
    return Linphone(folder, replace(account, proxy=f"{site.realm}:{port}"), trusts=trusts)


@pytest.mark.item(6, "a TLS phone that verifies the site's certificate and the station", "linphonec, station")
def test_a_tls_phone_and_the_station_call_each_other(tmp_path: Path, named: Site) -> None:
    more = f'[incoming]\npermit = ["{named.uri("flat1")}"]\nanswer = "automatic"\n'
    text = settings(named.account("door"), [(named.uri("flat1"), 20)], more=more)
    with (
        Station(tmp_path / "door", USERS["door"], text) as door,
        linphone(tmp_path / "flat1", named, authority(named)) as phone,
    ):
        door.wait_registered()
        phone.wait_registered()

        phone.dial(named.uri("door"))
        phone.wait_established()
        door.wait_state("Talking")
        phone.hang_up()
        door.wait_state("Idle")

        door.press()
        phone.wait_ringing()
        phone.answer()
        door.wait_state("Talking")
        phone.hang_up()
        door.wait_state("Idle")
        assert [entry["type"] for entry in connections(named)] == ["TLS"]


@pytest.mark.item(6, "a phone that trusts another authority does not come in", "linphonec")
def test_a_phone_with_a_wrong_authority_refuses(tmp_path: Path, named: Site) -> None:
    other = certificates.own(tmp_path / "other", named.realm, [named.address])
    with linphone(tmp_path / "flat1", named, other.authority) as phone:
        phone.wait_event("REGISTER_FAIL")
    assert named.registered("flat1") == []


@pytest.mark.item(6, "TLS 1.2 and 1.3, nothing older; the certificate is for the domain", "OpenSSL")
def test_old_tls_is_refused(served: Served) -> None:
    site = served("tls")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        handshake(site, minimum_version=version, maximum_version=version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(ssl.SSLError):
            handshake(site, minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)


@pytest.mark.item(6, "a phone in a browser is rung, rings and hangs up", "browser phone, baresip")
@pytest.mark.parametrize("transport", ["ws", "wss"])
def test_a_phone_in_a_browser(tmp_path: Path, served: Served, transport: Transport) -> None:
    site = served("ws", "wss")
    with (
        Browser(site.account("flat1", transport), trusts=authority(site)) as browser,
        Phone(tmp_path / "flat2", site.account("flat2")) as phone,
    ):
        phone.wait_registered()
        assert browser.register().code == 200
        assert site.registered("flat1") == [browser.contact]

        phone.dial(site.uri("flat1"))
        browser.wait_ringing()
        phone.wait_event("CALL_RINGING")
        browser.answer()
        phone.wait_established()
        assert browser.hang_up().code == 200
        phone.wait_closed()

        phone.dial(site.uri("flat1"))
        browser.wait_ringing()
        browser.answer()
        phone.wait_established()
        phone.hang_up()
        browser.wait_closed()
        phone.wait_closed()

        phone.dial(site.uri("flat1"))
        browser.wait_ringing()
        phone.hang_up()
        browser.wait_cancelled()


@pytest.mark.item(6, "a browser calls a phone", "browser phone, baresip")
def test_a_browser_calls_a_phone(tmp_path: Path, served: Served) -> None:
    site = served("ws")
    with (
        Browser(site.account("flat1", "ws")) as browser,
        Phone(tmp_path / "flat2", site.account("flat2"), answer="auto") as phone,
    ):
        phone.wait_registered()
        assert browser.dial(site.uri("flat2")).code == 200
        phone.wait_established()
        phone.hang_up()
        browser.wait_closed()


@pytest.mark.item(6, "the WebSocket speaks sip at /ws only; otherwise there is no HTTP server", "HTTP client")
def test_no_http_server(tmp_path: Path, served: Served) -> None:
    site = served("ws")
    for method, path in (("GET", "/"), ("GET", "/ws"), ("POST", "/ws"), ("GET", "/../../etc/passwd")):
        client = http.client.HTTPConnection(site.address, site.settings.listen.ws_port, timeout=5.0)
        client.request(method, path, headers={"Content-Length": "0"})
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (404, b"")
        assert "kamailio" not in str(answer.headers).lower()
        client.close()
    with pytest.raises(InvalidStatus, match="404"), Browser(site.account("flat1", "ws"), path="/other"):
        pass
    address = f"ws://{site.address}:{site.settings.listen.ws_port}/ws"
    with pytest.raises(InvalidStatus, match="400"):
        connect(address, subprotocols=[Subprotocol("chat")], proxy=None)


@pytest.mark.item(6, "no WebSocket where none is asked for", "browser phone")
def test_no_websocket_unless_asked_for(served: Served) -> None:
    site = served()
    with (
        pytest.raises(InvalidMessage),
        connect(f"ws://{site.proxy}/ws", subprotocols=[Subprotocol("sip")], proxy=None, open_timeout=1.0),
    ):
        pass


@pytest.mark.item(6, "a TCP phone is reached over its own connection", "baresip")
def test_a_tcp_phone_is_reached_over_its_own_connection(tmp_path: Path, site: Site) -> None:
    with (
        Phone(tmp_path / "flat1", site.account("flat1", "tcp")) as phone,
        Phone(tmp_path / "flat2", site.account("flat2")) as caller,
    ):
        phone.wait_registered()
        caller.wait_registered()
        caller.dial(site.uri("flat1"))
        phone.wait_ringing()
        phone.answer()
        caller.wait_established()
        caller.hang_up()
        phone.wait_closed()
        (only,) = connections(site)
        assert only["dst_port"] == site.port


@pytest.fixture
def many_files() -> Iterator[None]:
    """Allow this process as many open files as it may have."""
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (usual, most))


@pytest.mark.long
@pytest.mark.item(
    7, "all connections held by an idle stranger: the phones get in again", "baresip, idle sockets"
)
def test_an_idle_stranger_locks_nobody_out(tmp_path: Path, site: Site, many_files: None) -> None:
    with ExitStack() as held:
        before = held.enter_context(Phone(tmp_path / "flat1", site.account("flat1", "tcp")))
        before.wait_registered()
        (own,) = connections(site)

        def counts() -> dict[str, int]:
            answer: dict[str, int] = site.ask("core.tcp_info")["result"]
            return answer

        for _ in range(counts()["max_connections"] + 100):
            held.enter_context(socket.create_connection((site.address, site.port), 2.0, STRANGER))
        assert counts()["opened_connections"] == counts()["max_connections"]
        assert wait_until(lambda: counts()["opened_connections"] == 1, 15.0)

        after = held.enter_context(Phone(tmp_path / "flat2", site.account("flat2", "tcp")))
        after.wait_registered()
        after.dial(site.uri("flat1"))
        before.wait_ringing()
        after.hang_up()
        before.wait_closed()
        assert own["id"] in [entry["id"] for entry in connections(site)]
        assert [event.type for event in before.events].count("REGISTER_OK") == 1


@pytest.mark.long
@pytest.mark.item(
    7, "TLS and WebSocket: a silent stranger is hung up on, a phone is not", "baresip, browser phone"
)
def test_a_silent_stranger_is_hung_up_on(tmp_path: Path, served: Served) -> None:
    site = served("tls", "ws")
    listen, context = site.settings.listen, ssl.create_default_context(cafile=authority(site))
    with (
        Phone(tmp_path / "flat1", site.account("flat1", "tls")) as phone,
        Browser(site.account("flat2", "ws")) as browser,
        socket.create_connection((site.address, listen.tls_port), 2.0),
        socket.create_connection((site.address, listen.tls_port), 2.0) as plain,
        context.wrap_socket(plain, server_hostname=site.realm),
        connect(
            f"ws://{site.address}:{listen.ws_port}/ws",
            subprotocols=[Subprotocol("sip")],
            proxy=None,
        ),
    ):
        phone.wait_registered()
        assert browser.register().code == 200
        assert len(connections(site)) == 5
        assert wait_until(lambda: len(connections(site)) == 2, 20.0)

        phone.dial(site.uri("flat2"))
        browser.wait_ringing()
        phone.hang_up()
        browser.wait_cancelled()
        assert [event.type for event in phone.events].count("REGISTER_OK") == 1


@pytest.mark.item(6, "a new certificate without a restart; open connections stay", "baresip, OpenSSL")
def test_a_renewed_certificate_needs_no_restart(tmp_path: Path, served: Served) -> None:
    site = served("tls")
    configuration = in_place(site.folder)
    assert configuration is not None
    (site.folder / "tls" / "server.pem").unlink()
    almost_a_year_ago = datetime.now(UTC) - timedelta(days=certificates.SERVER_DAYS - 30)
    old = certificates.own(site.folder / "tls", site.realm, [site.address], almost_a_year_ago)
    (configuration / "certificate.pem").write_text(old.chain.read_text() + old.key.read_text())
    assert "error" not in site.ask("tls.reload")
    with (
        Phone(tmp_path / "flat1", site.account("flat1", "tls")) as phone,
        Phone(tmp_path / "flat2", site.account("flat2")) as caller,
    ):
        phone.wait_registered()
        caller.wait_registered()
        assert days_left(handshake(site)) < certificates.RENEW_DAYS

        renew_certificate(site.folder)
        assert days_left(handshake(site)) > certificates.RENEW_DAYS

        caller.dial(site.uri("flat1"))
        phone.wait_ringing()
        assert [event.type for event in phone.events].count("REGISTER_OK") == 1


@pytest.mark.item(
    6, "a disk that fills up during the renewal leaves the old certificate", "OpenSSL, a full disk"
)
@pytest.mark.parametrize("room", [2, 3])
def test_a_renewal_that_fails_breaks_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    site = served("tls")
    (site.folder / "tls" / "server.pem").unlink()  # so that another one is made
    written: list[Path] = []
    replace_file = Path.replace

    def until_full(self: Path, target: Path) -> Path:
        if len(written) == room:  # the authority itself writes two files
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(target)
        return replace_file(self, target)

    monkeypatch.setattr(Path, "replace", until_full)
    renew_certificate(site.folder)
    assert len(written) == room
    assert "error" not in site.ask("tls.reload")
    handshake(site)
    monkeypatch.undo()
    renew_certificate(site.folder)
    handshake(site)


@pytest.mark.item(10, "a given certificate that is expired, unreadable or foreign changes nothing", "baresip")
def test_a_bad_certificate_is_refused_and_the_site_goes_on(tmp_path: Path, served: Served) -> None:
    files = certificates.own(tmp_path / "given", "site.example", ["127.0.0.1"])
    site = served("tls", tls={"certificate": str(files.chain), "key": str(files.key)})
    long_ago = datetime.now(UTC) - timedelta(days=certificates.SERVER_DAYS + 2)
    expired = certificates.own(tmp_path / "old", "site.example", ["127.0.0.1"], long_ago)
    foreign = certificates.own(tmp_path / "other", "other.example", ["127.0.0.1"])
    for bad, line in (
        (expired, "has expired on"),
        (foreign, "is not for site.example, but for other.example"),
        (None, "cannot be read: No such file or directory"),
    ):
        files.chain.unlink()
        if bad is not None:
            shutil.copyfile(bad.chain, files.chain)
            shutil.copyfile(bad.key, files.key)
        with pytest.raises(WrongSettings, match=line) as refused:
            prepare(site.folder, site.settings, SETTINGS)
        (mistake,) = refused.value.mistakes
        assert str(mistake).startswith(f"{SETTINGS}: tls.certificate: ")
    with (
        Phone(tmp_path / "flat1", site.account("flat1", "tls")) as secure,
        Phone(tmp_path / "flat2", site.account("flat2")) as plain,
    ):
        secure.wait_registered()
        plain.wait_registered()


@pytest.mark.item(6, "SCTP where the kernel has it; where it has none, one line says so", "raw SCTP socket")
def test_sctp_where_the_kernel_has_it(tmp_path: Path, site: Site) -> None:
    text = site.settings.model_dump(exclude_unset=True)
    text["listen"]["transports"] = ["udp", "tcp", "sctp"]
    wanted = SiteSettings.model_validate(text)
    try:
        channel = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
    except OSError:
        with pytest.raises(WrongSettings, match="sctp: the kernel of this machine has none") as refused:
            prepare(site.folder, wanted, SETTINGS)
        assert [mistake.key for mistake in refused.value.mistakes] == ["listen.transports"]
        with Stranger(site.proxy) as somebody:
            assert somebody.ask("OPTIONS", f"sip:{site.realm}").code == 200
        return
    with (
        channel,
        Site(tmp_path / "sctp", users=USERS, listen=text["listen"] | {"port": free_port()}) as other,
    ):
        channel.settimeout(5.0)
        channel.connect((other.address, other.port))
        channel.send(options(channel.getsockname()[1]).encode())
        assert channel.recv(65_535).startswith(b"SIP/2.0 200 ")


@pytest.mark.item(6, "the configuration for SCTP is one that Kamailio takes", "kamailio -c")
def test_the_configuration_for_sctp_is_right(tmp_path: Path, site: Site) -> None:
    configuration = in_place(site.folder)
    assert configuration is not None
    shutil.copytree(configuration, tmp_path / "sctp")
    with (tmp_path / "sctp" / "site.cfg").open("a") as file:
        file.write(f"#!define WITH_SCTP\nlisten=sctp:{site.proxy}\n")
    check = [program(), "-c", "-f", str(tmp_path / "sctp" / "kamailio.cfg")]
    done = subprocess.run(check, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr


def days_left(certificate: x509.Certificate) -> int:
    return (certificate.not_valid_after_utc - datetime.now(UTC)).days


def options(port: int) -> str:
    return (
        f"OPTIONS sip:site.example SIP/2.0\r\nVia: SIP/2.0/SCTP 127.0.0.1:{port};branch=z9hG4bK1;rport\r\n"
        "From: <sip:a@127.0.0.1>;tag=1\r\nTo: <sip:site.example>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n"
        "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )
