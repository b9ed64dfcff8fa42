"""Certificates: made once, renewed in time, checked with one clear line, and no key for everybody to read."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import verification

from intercom.site import certificates
from intercom.site.certificates import Certificate, WrongCertificate, given, own, problem

DOMAIN, ADDRESSES = "site.example", ["192.168.1.2"]
NOW = datetime(2026, 7, 1, tzinfo=UTC)


def verify(certificate: Certificate, name: x509.verification.Subject, now: datetime = NOW) -> None:
    """As a phone does: raises when the authority does not vouch for the name."""
    assert certificate.authority is not None
    store = verification.Store(x509.load_pem_x509_certificates(certificate.authority.read_bytes()))
    verifier = verification.PolicyBuilder().store(store).time(now).build_server_verifier(name)
    verifier.verify(x509.load_pem_x509_certificate(certificate.chain.read_bytes()), [])


def test_a_phone_that_trusts_the_authority_accepts_the_domain_and_the_addresses(tmp_path: Path) -> None:
    certificate = own(tmp_path, DOMAIN, ["192.168.1.2", "fd00::2"], NOW)
    verify(certificate, x509.DNSName(DOMAIN))
    verify(certificate, x509.IPAddress(ip_address("192.168.1.2")))
    verify(certificate, x509.IPAddress(ip_address("fd00::2")))
    for other in (x509.DNSName("other.example"), x509.IPAddress(ip_address("192.168.1.3"))):
        with pytest.raises(verification.VerificationError):
            verify(certificate, other)
    assert problem(certificate, DOMAIN, NOW) == ""


def test_a_domain_may_be_an_address(tmp_path: Path) -> None:
    certificate = own(tmp_path, "192.168.1.2", ADDRESSES, NOW)
    verify(certificate, x509.IPAddress(ip_address("192.168.1.2")))
    assert problem(certificate, "192.168.1.2", NOW) == ""


def test_a_server_can_load_it(tmp_path: Path) -> None:
    certificate = own(tmp_path, DOMAIN, ADDRESSES)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate.chain, certificate.key)


def test_a_stolen_authority_can_name_no_other_domain(tmp_path: Path) -> None:
    own(tmp_path, DOMAIN, ADDRESSES, NOW)
    authority = Certificate(tmp_path / "ca.pem", tmp_path / "ca.key")
    signer, key = certificates._read(authority)
    forged = Certificate(tmp_path / "forged.pem", tmp_path / "forged.key", authority.chain)
    certificates._make_server(forged, signer, key, [x509.DNSName("bank.example")], NOW)  # type: ignore[arg-type]
    with pytest.raises(verification.VerificationError):
        verify(forged, x509.DNSName("bank.example"))


def test_keys_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    own(tmp_path / "tls", DOMAIN, ADDRESSES, NOW)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()}
    assert modes == {"ca.key": 0o600, "server.key": 0o600, "ca.pem": 0o644, "server.pem": 0o644}


def test_a_key_left_open_by_somebody_is_replaced_by_a_closed_one(tmp_path: Path) -> None:
    for name in ("server.key", "server.key.new"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o666)
    own(tmp_path, DOMAIN, ADDRESSES, NOW)
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600


def test_nothing_changes_while_nothing_has_to(tmp_path: Path) -> None:
    own(tmp_path, DOMAIN, ADDRESSES, NOW)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    own(
        tmp_path,
        DOMAIN,
        ADDRESSES,
        NOW + timedelta(days=certificates.SERVER_DAYS - certificates.RENEW_DAYS - 1),
    )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("days", "addresses"),
    [(certificates.SERVER_DAYS - certificates.RENEW_DAYS + 1, ADDRESSES), (1, ["192.168.1.3"])],
    ids=["near its end", "another address"],
)
def test_a_new_certificate_from_the_same_authority(tmp_path: Path, days: int, addresses: list[str]) -> None:
    first = own(tmp_path, DOMAIN, ADDRESSES, NOW)
    authority, old = (tmp_path / "ca.pem").read_bytes(), first.chain.read_bytes()
    later = NOW + timedelta(days=days)
    second = own(tmp_path, DOMAIN, addresses, later)
    assert second.chain.read_bytes() != old
    assert (tmp_path / "ca.pem").read_bytes() == authority
    verify(second, x509.IPAddress(ip_address(addresses[0])), later)
    assert certificates.days_left(second, later) == certificates.SERVER_DAYS


@pytest.mark.parametrize(
    "damage", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_damaged_server_certificate_is_made_anew(tmp_path: Path, damage: str) -> None:
    own(tmp_path, DOMAIN, ADDRESSES, NOW).chain.write_text(damage)
    verify(own(tmp_path, DOMAIN, ADDRESSES, NOW), x509.DNSName(DOMAIN))


def test_an_authority_of_another_domain_is_refused_and_kept(tmp_path: Path) -> None:
    own(tmp_path, DOMAIN, ADDRESSES, NOW)
    before = (tmp_path / "ca.pem").read_bytes()
    with pytest.raises(WrongCertificate, match="authority of another domain"):
        own(tmp_path, "other.example", ADDRESSES, NOW)
    assert (tmp_path / "ca.pem").read_bytes() == before


def test_a_damaged_or_old_authority_is_refused_and_kept(tmp_path: Path) -> None:
    own(tmp_path, DOMAIN, ADDRESSES, NOW)
    with pytest.raises(WrongCertificate, match=r"ca\.pem has expired"):
        own(tmp_path, DOMAIN, ADDRESSES, NOW + timedelta(days=21 * 365))
    (tmp_path / "ca.key").write_text("")
    with pytest.raises(WrongCertificate, match=r"ca\.key holds no private key"):
        own(tmp_path, DOMAIN, ADDRESSES, NOW)
    assert (tmp_path / "ca.key").read_text() == ""


def test_a_clock_that_was_never_set_makes_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    boot = datetime(1970, 1, 1, tzinfo=UTC)
    with pytest.raises(WrongCertificate, match="the clock says 1970-01-01"):
        own(tmp_path, DOMAIN, ADDRESSES, boot)
    assert list(tmp_path.iterdir()) == []
    before = own(tmp_path, DOMAIN, ADDRESSES, NOW).chain.read_bytes()
    assert own(tmp_path, DOMAIN, ADDRESSES, boot).chain.read_bytes() == before


def test_a_given_certificate_stays_where_and_as_it_is(tmp_path: Path) -> None:
    made = own(tmp_path, DOMAIN, ADDRESSES, NOW)
    made.key.chmod(0o640)
    certificate = given(made.chain, made.key)
    assert certificate == Certificate(made.chain, made.key, None)
    assert made.key.stat().st_mode & 0o777 == 0o640
    assert problem(certificate, DOMAIN, NOW) == ""


@pytest.mark.parametrize(
    ("when", "line"),
    [
        (NOW + timedelta(days=366), "server.pem has expired on 2027-07-01"),
        (NOW - timedelta(days=2), "server.pem is not valid before 2026-06-30"),
    ],
)
def test_a_certificate_of_another_time_is_named(tmp_path: Path, when: datetime, line: str) -> None:
    made = own(tmp_path, DOMAIN, ADDRESSES, NOW)
    assert problem(given(made.chain, made.key), DOMAIN, when).endswith(line)


def test_a_certificate_of_another_name_is_named(tmp_path: Path) -> None:
    made = own(tmp_path, DOMAIN, ADDRESSES, NOW)
    text = problem(given(made.chain, made.key), "other.example", NOW)
    assert text.endswith("server.pem is not for other.example, but for site.example, 192.168.1.2")


def test_an_open_key_is_named(tmp_path: Path) -> None:
    made = own(tmp_path, DOMAIN, ADDRESSES, NOW)
    made.key.chmod(0o644)
    assert problem(made, DOMAIN, NOW).endswith("server.key can be read by every user of this machine")


def locked_key() -> bytes:
    return rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def other_key() -> bytes:
    return rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("server.pem", None, "server.pem cannot be read: No such file or directory"),
        ("server.pem", b"\x00\xff", "server.pem holds no certificate in PEM form"),
        ("server.key", None, "server.key cannot be read: No such file or directory"),
        ("server.key", b"", "server.key holds no private key in PEM form"),
        ("server.key", locked_key(), "server.key has a password: no server can start with it"),
        ("server.key", other_key(), "server.key is not the key of"),
    ],
    ids=["no certificate", "garbage", "no key", "empty key", "locked key", "key of another"],
)
def test_what_no_server_can_use_is_named(tmp_path: Path, name: str, content: bytes | None, line: str) -> None:
    made = own(tmp_path, DOMAIN, ADDRESSES, NOW)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WrongCertificate, match=line) as refused:
        given(made.chain, made.key)
    assert "\n" not in str(refused.value)


def test_authorities_to_trust_are_looked_at(tmp_path: Path) -> None:
    made = own(tmp_path, DOMAIN, ADDRESSES, NOW)
    assert certificates.authorities(made.chain) == made.chain.read_text()
    with pytest.raises(WrongCertificate, match=r"server\.key holds no certificate"):
        certificates.authorities(made.key)
    with pytest.raises(WrongCertificate, match="none cannot be read"):
        certificates.authorities(tmp_path / "none")


def test_every_cut_of_the_files_is_one_line(tmp_path: Path) -> None:
    made = own(tmp_path, DOMAIN, ADDRESSES, NOW)
    for path in (made.chain, made.key):
        whole = path.read_bytes()
        for length in range(len(whole) - 40):
            path.write_bytes(whole[:length])
            with pytest.raises(WrongCertificate, match=path.name):
                given(made.chain, made.key)
        path.write_bytes(whole)
