"""Whom a certificate is for, and why it is not believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from intercom.sip.certificate import Certificate, Trust, is_for, names_of, objection

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
TRUST = Trust("site.example", "")


def certificate(
    *names: str,
    subject: str = "site.example",
    issuer: str = "house CA",
    ends: datetime = NOW + timedelta(days=30),
) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(ends - timedelta(days=60))
        .not_valid_after(ends)
    )
    if names:
        listed = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(listed, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def said(der: bytes, trust: Trust = TRUST, *, unknown: bool = False, other: str = "") -> str:
    return objection(der, trust, NOW, unknown=unknown, other=other)


@pytest.mark.parametrize(
    ("host", "names", "good"),
    [
        ("site.example", ["site.example"], True),
        ("SITE.example", ["site.EXAMPLE"], True),
        ("192.0.2.1", ["site.example", "192.0.2.1"], True),
        ("site.example", ["www.site.example"], False),
        ("pbx.site.example", ["*.site.example"], False),
        ("site.example", [], False),
    ],
)
def test_a_certificate_is_for_the_very_name(host: str, names: list[str], good: bool) -> None:
    assert is_for(host, names) is good


def test_the_common_name_counts_only_without_others() -> None:
    subject = ((("commonName", "site.example"),),)
    assert names_of({"subject": subject}) == ["site.example"]
    assert names_of({"subject": subject, "subjectAltName": (("DNS", "other.example"),)}) == ["other.example"]
    assert Certificate.read(certificate()).names == ("site.example",)
    assert Certificate.read(certificate("other.example")).names == ("other.example",)


def test_each_reason_in_words() -> None:
    expired = certificate("site.example", ends=NOW - timedelta(days=1))
    assert said(expired) == "shows a certificate that has expired on 2026-04-30"
    early = certificate("site.example", ends=NOW + timedelta(days=90))
    assert said(early) == "shows a certificate that is not valid before 2026-05-31, and here it is 2026-05-01"
    wrong = certificate("evil.example", "*.example")
    assert said(wrong) == "shows a certificate that is not for site.example but for evil.example, *.example"
    stranger = certificate("site.example")
    assert said(stranger, unknown=True) == (
        "shows a certificate that was made by 'house CA', an authority that is not trusted here"
    )
    own = certificate("site.example", issuer="site.example")
    assert "made by itself" in said(own, unknown=True)


def test_several_reasons_are_all_said() -> None:
    bad = certificate("evil.example", ends=NOW - timedelta(days=1))
    words = said(bad, unknown=True)
    assert all(part in words for part in ("has expired", "not for site.example", "not trusted here"))


def test_what_is_not_known_is_said_as_the_library_says_it() -> None:
    assert said(certificate("site.example"), other="weak signature").endswith("not believed: weak signature")
    assert "cannot be read" in said(b"nothing")


def test_a_pinned_certificate_is_compared_and_nothing_else() -> None:
    other = certificate("site.example")
    words = said(other, Trust("site.example", "", "00" * 32))
    assert words.startswith("shows another certificate than the pinned one")
    assert words.endswith(Certificate.read(other).fingerprint)


def test_a_name_cannot_move_the_cursor() -> None:
    assert "\x1b" not in said(certificate(subject="a\x1b[2J", issuer="\x1b[2J"), unknown=True)
