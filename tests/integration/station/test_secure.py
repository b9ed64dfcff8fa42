"""TLS to the registrar and encrypted sound: what is believed, what is refused, and what is said about it."""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from deploy.demo.counterpart import Counterpart, Stream
from deploy.demo.linphone import Linphone
from deploy.demo.names import Names
from deploy.demo.phone import Phone
from deploy.demo.program import free_port, wait_until
from deploy.demo.scenarios import is_left, rings_forever
from deploy.demo.sipp import Sipp
from deploy.demo.site import Site
from deploy.demo.station import Station, settings
from intercom.site import certificates
from intercom.site.certificates import Certificate
from intercom.site.server import CERTIFICATE, in_place
from tests.integration.conftest import USERS

AUTOMATIC = '[incoming]\npermit = ["sip:flat1@{}"]\nanswer = "automatic"\n'
MANDATORY = 'srtp = "mandatory"\n'
DTLS = 'srtp_keys = "dtls"\n'


@dataclass
class House:
    """A site that takes TLS, and stations and phones at it."""

    folder: Path
    parts: ExitStack

    def site(self, realm: str = "site.example") -> Site:
        """Start the site, with a certificate of its own authority."""
        listen = {"transports": ["udp", "tcp", "tls"], "tls_port": free_port()}
        return self.parts.enter_context(Site(self.folder / "site", realm, users=USERS, listen=listen))

    def text(self, site: Site, protection: str, host: str = "", more: str = "") -> str:
        """Settings of a station that reaches the site over TLS, named by `host` instead of its address."""
        account = site.account("door", "tls")
        if host:
            account = replace(account, proxy=account.proxy.replace(site.address, host))
        automatic = AUTOMATIC.format(site.realm)
        return settings(account, [(site.uri("flat1"), 20)], protection=protection, more=automatic + more)

    def door(self, text: str, *, registered: bool = True) -> Station:
        """Start a station."""
        station = self.parts.enter_context(Station(self.folder / "door", USERS["door"], text))
        if registered:
            station.wait_registered()
        return station

    def baresip(self, site: Site, encrypts: Literal["", "srtp", "srtp-mand", "dtls_srtp"]) -> Phone:
        """Start flat1's telephone, which registers over TLS."""
        account = site.account("flat1", "tls")
        phone = Phone(self.folder / "flat1", account, answer="auto", encrypts=encrypts)
        self.parts.enter_context(phone)
        phone.wait_registered()
        return phone


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with ExitStack() as parts:
        yield House(tmp_path, parts)


def show(site: Site, certificate: Certificate) -> None:
    """Let the running site show another certificate, also one that it would not start with."""
    configuration = in_place(site.folder)
    assert configuration is not None
    both = certificate.chain.read_text() + certificate.key.read_text()
    (configuration / CERTIFICATE).write_text(both)
    assert "error" not in site.ask("tls.reload")


def authority(site: Site) -> str:
    """The account's keys that make it believe the site's own authority."""
    return trusting(site.folder / "tls" / "ca.pem")


def trusting(file: Path | None) -> str:
    return f'ca_file = "{file}"\n'


def pinning(chain: Path) -> str:
    shown = x509.load_pem_x509_certificate(chain.read_bytes())
    return f'fingerprint = "{shown.fingerprint(hashes.SHA256()).hex(":").upper()}"\n'


def refusal(station: Station) -> str:
    """Why the station is not registered; it is in its status and its fault alike."""
    assert wait_until(lambda: station.status()["accounts"][0]["reason"] != "", 10.0)
    status = station.status()
    account = status["accounts"][0]
    assert account["state"] == "unregistered"
    assert status["faults"] == {"account door@site.example": account["reason"]}
    return str(account["reason"])


def check(station: Station) -> dict[str, dict[str, Any]]:
    """What `intercom check` finds, the last step of each name."""
    command = [str(Path(sys.executable).parent / "intercom"), "check", "--json"]
    done = subprocess.run(
        command, env={**os.environ, **station.environment}, capture_output=True, text=True, check=False
    )
    return {step["step"]: step for step in json.loads(done.stdout)}


def secure(station: Station) -> bool:
    """Whether sound flows both ways and is encrypted."""
    call = station.status()["call"]
    return call is not None and call["secure"] and call["rx"]["packets"] > 20 and call["tx"]["packets"] > 20


def sends_secure(station: Station) -> bool:
    """Whether what it sends is encrypted; linphonec sends nothing here."""
    call = station.status()["call"]
    return call is not None and call["secure"] and call["tx"]["packets"] > 20


def kept(station: Station, count: int) -> list[dict[str, Any]]:
    """The records, once there are so many."""
    found: list[dict[str, Any]] = []

    def are_there() -> bool:
        records = station.ask("GET", "/log")["records"]
        found[:] = [record for record in records if record["kind"] in {"call", "access"}]
        return len(found) >= count

    assert wait_until(are_there, 5.0), found
    return found


# Whom it believes


@pytest.mark.item(7, "registers over TLS; check shows the certificate", "Kamailio")
def test_it_registers_over_tls_and_check_shows_the_certificate(house: House) -> None:
    site = house.site()
    station = house.door(house.text(site, authority(site)))
    (contact,) = site.registered("door")
    assert "transport=tls" in contact.lower()
    found = check(station)["registrar"]
    assert found["ok"]
    assert "its certificate is of 'site.example' by 'site.example site CA', ends on 20" in found["detail"]
    assert station.stop() == 0
    assert site.registered("door") == []


def by_name(house: House, site: Site, shown: Certificate) -> str:
    """Let the site show a certificate, and a name server lead to it; settings that know its domain alone."""
    show(site, shown)
    listed = [("one.elsewhere.example", site.settings.listen.tls_port, 10, 0)]
    hosts = {"one.elsewhere.example": site.address}
    names = Names(house.folder / "names", {"_sips._tcp.site.example": listed}, hosts)
    house.parts.enter_context(names)
    text = house.text(site, trusting(shown.authority), more=names.settings)
    return text.replace(f"sip:{site.account('door', 'tls').proxy}", "sip:site.example")


@pytest.mark.item(7, "the certificate must be for the name in the settings", "Kamailio, dnsmasq")
def test_the_certificate_is_for_the_name_in_the_settings(house: House, tmp_path: Path) -> None:
    site = house.site()
    station = house.door(by_name(house, site, certificates.own(tmp_path / "made", "site.example", [])))
    assert "one.elsewhere.example" in station.status()["accounts"][0]["server"]


@pytest.mark.item(7, "the host that a forged name server leads to is not believed", "Kamailio, dnsmasq")
def test_the_place_that_a_name_server_leads_to_proves_nothing(house: House, tmp_path: Path) -> None:
    site = house.site()
    forged = certificates.own(tmp_path / "made", "elsewhere.example", [site.address])
    station = house.door(by_name(house, site, forged), registered=False)
    assert f"is not for site.example but for elsewhere.example, {site.address}" in refusal(station)
    assert site.registered("door") == []


@pytest.mark.item(7, "a pinned certificate is believed", "Kamailio")
def test_a_pinned_certificate_is_believed_whatever_it_says(house: House, tmp_path: Path) -> None:
    years_ago = datetime.now(UTC) - timedelta(days=500)
    other = certificates.own(tmp_path / "other", "other.example", ["192.0.2.1"], years_ago)
    site = house.site()
    show(site, other)
    station = house.door(house.text(site, pinning(other.chain)))
    assert check(station)["registrar"]["ok"]


@pytest.mark.item(7, "another certificate than the pinned one is refused", "Kamailio")
def test_the_authority_cannot_replace_a_pinned_certificate(house: House, tmp_path: Path) -> None:
    site = house.site()
    other = certificates.own(tmp_path / "other", site.realm, [site.address])
    station = house.door(house.text(site, pinning(other.chain)), registered=False)
    assert "shows another certificate than the pinned one" in refusal(station)
    assert site.registered("door") == []
    assert "shows another certificate than the pinned one" in check(station)["registrar"]["detail"]


def wrong_name(folder: Path, site: str, address: str) -> tuple[Certificate | None, Path | None, str]:
    """A certificate of a trusted authority, for another host."""
    shown = certificates.own(folder, "other.example", ["192.0.2.1"])
    return shown, shown.authority, f"is not for {address} but for other.example, 192.0.2.1"


def expired(folder: Path, site: str, address: str) -> tuple[Certificate | None, Path | None, str]:
    """A certificate that was good, until last month."""
    ended = datetime.now(UTC) - timedelta(days=30)
    shown = certificates.own(folder, site, [address], ended - timedelta(days=certificates.SERVER_DAYS))
    return shown, shown.authority, f"has expired on {ended:%Y-%m-%d}"


def unknown(folder: Path, site: str, address: str) -> tuple[Certificate | None, Path | None, str]:
    """The right certificate, but another authority of the same name is trusted."""
    trusted = certificates.own(folder, site, [address]).authority
    return None, trusted, f"was made by '{site} site CA', an authority that is not trusted here"


@pytest.mark.item(7, "a certificate that is not believed: refused with the reason", "Kamailio")
@pytest.mark.parametrize("fault", [wrong_name, expired, unknown])
def test_a_certificate_that_is_not_believed(house: House, tmp_path: Path, fault: Any) -> None:
    shown, trusted, reason = fault(tmp_path / "made", "site.example", "127.0.0.1")
    site = house.site()
    if shown is not None:
        show(site, shown)
    station = house.door(house.text(site, trusting(trusted)), registered=False)
    place = site.account("door", "tls").proxy
    assert refusal(station) == f"{place} shows a certificate that {reason}"
    found = check(station)["registrar"]
    assert found["ok"] is False
    assert reason in found["detail"]
    assert "its certificate is of '" in found["detail"]
    station.press()
    record = station.wait_action("RecordCall")
    assert record["reason"] == f"the server shows a certificate that {reason}"
    assert site.registered("door") == []


@pytest.mark.item(7, "believed as soon as the certificate is right", "Kamailio")
def test_a_server_is_believed_as_soon_as_it_shows_the_right_certificate(house: House, tmp_path: Path) -> None:
    site = house.site()
    show(site, certificates.own(tmp_path / "other", site.realm, [site.address]))
    station = house.door(house.text(site, authority(site)), registered=False)
    assert "not trusted" in refusal(station)
    show(site, certificates.own(site.folder / "tls", site.realm, [site.address]))
    station.wait_registered(15.0)
    assert wait_until(lambda: not station.status()["faults"], 2.0)


@contextmanager
def listener(context: ssl.SSLContext | None) -> Iterator[tuple[int, list[bytes]]]:
    """A server that is none of ours: its port, and what was said to it in the clear or once TLS stood."""
    said: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = door.accept()
                with client, suppress(OSError):
                    client.settimeout(5.0)
                    stream = context.wrap_socket(client, server_side=True) if context else client
                    said.append(stream.recv(65535))
                    stream.close()

    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=serve, name="listener")
        thread.start()
        try:
            yield door.getsockname()[1], said
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.item(7, "a server that is not believed hears nothing", "own TLS server")
def test_nothing_is_said_to_a_server_that_is_not_believed(house: House, tmp_path: Path) -> None:
    site = house.site()
    shown = certificates.own(tmp_path / "made", "other.example", ["192.0.2.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.chain, shown.key)
    with listener(context) as (port, said):
        text = house.text(site, trusting(shown.authority)).replace(
            site.account("door", "tls").proxy, f"127.0.0.1:{port}"
        )
        station = house.door(text, registered=False)
        assert "is not for 127.0.0.1" in refusal(station)
        station.stop()
    assert b"".join(said) == b""


@pytest.mark.item(7, "TLS 1.0 and 1.1 are refused", "own TLS server")
def test_old_tls_is_refused(house: House, tmp_path: Path) -> None:
    site = house.site()
    shown = certificates.own(tmp_path / "made", "site.example", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.chain, shown.key)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with listener(context) as (port, said):
        text = house.text(site, trusting(shown.authority)).replace(
            site.account("door", "tls").proxy, f"127.0.0.1:{port}"
        )
        station = house.door(text, registered=False)
        assert f"127.0.0.1:{port} takes no TLS as it should be" in refusal(station)
        assert "takes no TLS as it should be" in check(station)["registrar"]["detail"]
        station.stop()
    assert b"".join(said) == b""


@pytest.mark.item(7, "a server without TLS hears nothing in the clear", "own server")
def test_a_server_without_tls_hears_nothing_in_the_clear(house: House) -> None:
    site = house.site()
    with listener(None) as (port, said):
        text = house.text(site, authority(site)).replace(
            site.account("door", "tls").proxy, f"127.0.0.1:{port}"
        )
        station = house.door(text, registered=False)
        assert f"127.0.0.1:{port} takes no TLS as it should be" in refusal(station)
        station.stop()
    assert said
    assert not any(b"SIP/2.0" in heard for heard in said)


# Encrypted sound


@pytest.mark.item(7, "TLS and mandatory SRTP, both directions", "baresip, Kamailio")
def test_baresip_and_the_station_call_each_other_with_encrypted_sound(house: House) -> None:
    site = house.site()
    station = house.door(house.text(site, authority(site) + MANDATORY))
    phone = house.baresip(site, "srtp-mand")
    station.press()
    station.wait_state("Talking")
    assert wait_until(lambda: secure(station), 5.0), json.dumps(station.status()["call"])
    assert phone.wait_event("CALL_MENC").text.endswith("AES_CM_128_HMAC_SHA1_80")
    phone.hang_up()
    phone.wait_closed()
    assert kept(station, 1)[0]["outcome"] == "answered"

    phone.dial(site.uri("door"))
    station.wait_state("Talking")
    assert wait_until(lambda: secure(station), 5.0), json.dumps(station.status()["call"])
    phone.hang_up()
    assert [record["outcome"] for record in kept(station, 2)] == ["answered", "answered"]


@pytest.mark.item(7, "DTLS-SRTP, both directions", "baresip, Kamailio")
@pytest.mark.long
def test_keys_by_dtls_both_ways(house: House) -> None:
    site = house.site()
    station = house.door(house.text(site, authority(site) + MANDATORY + DTLS))
    phone = house.baresip(site, "dtls_srtp")
    station.press()
    station.wait_state("Talking")
    assert wait_until(lambda: secure(station), 8.0), json.dumps(station.status()["call"])
    phone.hang_up()
    station.wait_state("Idle")

    phone.dial(site.uri("door"))
    station.wait_state("Talking")
    assert wait_until(lambda: secure(station), 8.0), json.dumps(station.status()["call"])


@pytest.mark.item(7, "TLS and mandatory SRTP, both directions", "linphonec, Kamailio")
@pytest.mark.long
def test_linphone_and_the_station_call_each_other_with_encrypted_sound(house: House) -> None:
    site = house.site("localhost")
    account = site.account("flat1", "tls")
    account = replace(account, proxy=account.proxy.replace(site.address, "localhost"))
    station = house.door(house.text(site, authority(site) + MANDATORY, host="localhost"))
    phone = Linphone(house.folder / "flat1", account, trusts=site.folder / "tls" / "ca.pem", encrypts="srtp")
    house.parts.enter_context(phone)
    phone.wait_registered()
    station.press()
    phone.wait_ringing()
    phone.answer()
    station.wait_state("Talking")
    assert wait_until(lambda: sends_secure(station), 5.0), json.dumps(station.status()["call"])
    phone.hang_up()
    station.wait_state("Idle")

    phone.dial(site.uri("door"))
    phone.wait_established()
    assert wait_until(lambda: sends_secure(station), 5.0), json.dumps(station.status()["call"])


@pytest.mark.item(7, "optional SRTP encrypts where the far side does", "baresip")
@pytest.mark.parametrize(
    ("encrypts", "is_secure"), [("srtp", True), pytest.param("", False, marks=pytest.mark.long)]
)
def test_optional_encrypts_where_the_far_side_does(
    house: House, encrypts: Literal["", "srtp"], is_secure: bool
) -> None:
    site = house.site()
    station = house.door(house.text(site, authority(site)))
    house.baresip(site, encrypts)
    station.press()
    station.wait_state("Talking")
    assert wait_until(lambda: station.status()["call"]["codec"] is not None, 5.0)
    assert station.status()["call"]["secure"] is is_secure


@pytest.mark.item(7, "an answer in the clear is refused with the reason", "SIPp")
@pytest.mark.parametrize("keys", ["", pytest.param(DTLS, marks=pytest.mark.long)])
def test_an_answer_in_the_clear_is_refused(house: House, keys: str) -> None:
    site = house.site()
    station = house.door(house.text(site, authority(site) + MANDATORY + keys))
    phone = house.parts.enter_context(Sipp(house.folder / "sipp", is_left()))
    site.place("flat1", phone.contact)
    station.press()
    record = station.wait_action("RecordCall")
    reason = "the far side does not encrypt sound, which the settings demand: refused"
    assert (record["outcome"], record["reason"]) == ("failed", reason)
    assert station.status()["faults"]["encryption"] == reason
    assert kept(station, 1)[-1]["reason"] == reason
    assert phone.wait().successful == 1, "the phone saw no BYE"


@pytest.mark.item(7, "early media in the clear is refused", "SIPp")
def test_early_media_in_the_clear_is_refused(house: House) -> None:
    site = house.site()
    station = house.door(house.text(site, authority(site) + MANDATORY))
    phone = house.parts.enter_context(Sipp(house.folder / "sipp", rings_forever(early_media=True)))
    site.place("flat1", phone.contact)
    station.press()
    assert "does not encrypt" in station.wait_action("RecordCall")["reason"]
    assert phone.wait().successful == 1, "the phone saw no CANCEL"


@pytest.mark.item(7, "an offer in the clear is refused: 488", "baresip")
def test_an_offer_in_the_clear_is_refused(house: House) -> None:
    site = house.site()
    station = house.door(house.text(site, authority(site) + MANDATORY))
    phone = house.baresip(site, "")
    phone.dial(site.uri("door"))
    assert "488" in phone.wait_closed().text
    assert station.status()["counters"]["calls_accepted"] == 0


@pytest.mark.item(7, "a phone that cannot encrypt is named until a call is encrypted", "baresip")
@pytest.mark.long
def test_a_phone_that_cannot_encrypt_is_named_until_a_call_is_encrypted(house: House) -> None:
    site = house.site()
    station = house.door(house.text(site, authority(site) + MANDATORY))
    phone = house.baresip(site, "")
    station.press()
    assert "takes no call with encrypted sound" in station.wait_action("RecordCall")["reason"]
    assert "takes no call with encrypted sound" in station.status()["faults"]["encryption"]
    station.wait_state("Idle")
    phone.stop()
    house.baresip(site, "srtp-mand")
    station.press()
    station.wait_state("Talking")
    assert not station.status()["faults"]


@dataclass
class Protected:
    """RTP packets under a key (RFC 3711, AES_CM_128_HMAC_SHA1_80)."""

    key: bytes = b"a key of sixteen"
    salt: bytes = b"and fourteen !"

    def crypto(self, offer: str) -> str:
        """The line of SDP that tells the key, in answer to an offer (RFC 4568)."""
        chosen = re.search(r"^a=crypto:(\d+) AES_CM_128_HMAC_SHA1_80 ", offer, re.MULTILINE)
        assert chosen is not None, offer
        told = base64.b64encode(self.key + self.salt).decode()
        return f"a=crypto:{chosen[1]} AES_CM_128_HMAC_SHA1_80 inline:{told}\r\n"

    def packet(self, plain: bytes) -> bytes:
        """Encrypt and sign; for less than a round of sequence numbers."""
        sequence, source = struct.unpack("!2xH4xI", plain[:12])
        at = int.from_bytes(self._derived(2, 14)) ^ source << 48 ^ sequence
        hidden = plain[:12] + _keystream(self._derived(0, 16), at, plain[12:])
        tag = hmac.digest(self._derived(1, 20), hidden + bytes(4), "sha1")
        return hidden + tag[:10]

    def _derived(self, label: int, size: int) -> bytes:
        return _keystream(self.key, int.from_bytes(self.salt) ^ label << 48, bytes(size))


def _keystream(key: bytes, begin: int, text: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR((begin << 16).to_bytes(16))).encryptor().update(text)


@pytest.mark.item(7, "SRTP replayed, of another key or in the clear is not heard", "scripted phone, Kamailio")
def test_encrypted_sound_said_again(house: House) -> None:
    site = house.site()
    station = house.door(house.text(site, authority(site) + MANDATORY))
    phone = house.parts.enter_context(Counterpart(int(site.proxy.rpartition(":")[2])))
    site.place("flat1", f"sip:flat1@{phone.address}")
    keys = Protected()
    station.press()
    invite = phone.wait("INVITE ")
    assert "RTP/SAVP" in invite
    body = phone.answer(invite).replace("RTP/AVP", "RTP/SAVP") + keys.crypto(invite)
    phone.reply(invite, 200, {"Content-Type": "application/sdp"}, body)
    dialog = phone.dialog_of(invite)
    phone.wait("ACK ")
    station.wait_event("CallAnswered")

    def digits() -> int:
        return station.program.log.read_text().count(": a digit by RTP event")

    stream = Stream(event=dialog.event)
    presses = [[keys.packet(packet) for packet in stream.press(digit)] for digit in "1234567890"]
    for press in presses:
        phone.play(dialog, press)
    assert wait_until(lambda: digits() == len(presses), 3.0), digits()
    for press in presses * 10:
        phone.play(dialog, press)
    other = Protected(key=b"of sixteen a key")
    phone.play(dialog, [other.packet(packet) for packet in stream.press("1")])
    phone.play(dialog, stream.press("2"))
    phone.play(dialog, [keys.packet(packet) for packet in stream.press("3")])
    assert wait_until(lambda: digits() > len(presses), 3.0)
    assert digits() == len(presses) + 1
