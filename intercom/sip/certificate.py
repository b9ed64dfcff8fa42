"""What a server must show over TLS, and why a certificate is not believed (RFC 5922).

Rule: the certificate is for the host in the settings, whatever name or address the name server made of it:
who can lie about names must not be believed for it. A pinned certificate is that one and no other, and
nothing else is asked of it.
"""

import hashlib
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom to believe.

    Attributes:
        host: the name or address that the certificate must be for.
        authorities: PEM file of the authorities that it must come from; empty if it is pinned.
        fingerprint: SHA-256 of the one certificate to believe, in hexadecimal; empty for any that is right.
    """

    host: str
    authorities: str
    fingerprint: str = ""

    def context(self) -> ssl.SSLContext:
        """What a connection starts with. The name or the fingerprint is to be compared when it is made.

        Raises:
            OSError: the file of authorities cannot be read.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False  # it takes wildcards, which RFC 5922 section 7.2 forbids
        if self.fingerprint:
            context.verify_mode = ssl.CERT_NONE
        else:
            context.load_verify_locations(self.authorities)
        return context


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says, as far as a person wants to know it.

    Attributes:
        subject: whose it is.
        issuer: which authority made it.
        names: the hosts that it is for.
        begins: from when it holds.
        ends: until when.
        fingerprint: its SHA-256.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    begins: datetime
    ends: datetime
    fingerprint: str

    @classmethod
    def read(cls, der: bytes) -> Self:
        """Read it. Raises ValueError if it is none."""
        # Imported when there is something to explain: it costs memory that a good connection saves.
        from cryptography import x509

        found = x509.load_der_x509_certificate(der)
        try:
            listed = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            names = _common_names(found.subject)
        else:
            names = tuple(
                str(name.value) for name in listed if isinstance(name, (x509.DNSName, x509.IPAddress))
            )
        return cls(
            subject=_one_line(found.subject),
            issuer=_one_line(found.issuer),
            names=tuple(map(_printable, names)),
            begins=found.not_valid_before_utc,
            ends=found.not_valid_after_utc,
            fingerprint=fingerprint_of(der),
        )


def fingerprint_of(der: bytes) -> str:
    """The SHA-256 of a certificate, in lower-case hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def is_for(host: str, names: Iterable[str]) -> bool:
    """Tell whether a certificate with these names is for a host; a wildcard is for none."""
    return host.lower() in (name.lower() for name in names)


def names_of(certificate: dict[str, Any]) -> list[str]:
    """The names in what `ssl.SSLSocket.getpeercert` returns."""
    listed = certificate.get("subjectAltName")
    if listed is None:
        return [
            value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"
        ]
    return [value for kind, value in listed if kind in {"DNS", "IP Address"}]


def objection(der: bytes, trust: Trust, now: datetime, *, unknown: bool, other: str) -> str:
    """Say why a certificate is not believed, so that it goes on after the server's name.

    Args:
        der: the certificate.
        trust: what it should have been.
        now: the time.
        unknown: whether its authority is not among those to be trusted.
        other: what the TLS library has against it, said if nothing else explains it.
    """
    try:
        shown = Certificate.read(der)
    except ValueError as error:
        return f"shows a certificate that cannot be read ({error})"
    if trust.fingerprint:
        return f"shows another certificate than the pinned one, its fingerprint is {shown.fingerprint}"
    faults = []
    if now > shown.ends:
        faults.append(f"has expired on {shown.ends:%Y-%m-%d}")
    elif now < shown.begins:
        faults.append(f"is not valid before {shown.begins:%Y-%m-%d}, and here it is {now:%Y-%m-%d}")
    if not is_for(trust.host, shown.names):
        faults.append(f"is not for {trust.host} but for {', '.join(shown.names) or 'nobody'}")
    if unknown:
        by = "itself" if shown.issuer == shown.subject else f"'{shown.issuer}'"
        faults.append(f"was made by {by}, an authority that is not trusted here")
    return f"shows a certificate that {' and '.join(faults) or f'is not believed: {other}'}"


def _common_names(name: Any) -> tuple[str, ...]:
    from cryptography.x509.oid import NameOID

    return tuple(str(part.value) for part in name.get_attributes_for_oid(NameOID.COMMON_NAME))


def _one_line(name: Any) -> str:
    return _printable(", ".join(_common_names(name)) or name.rfc4514_string() or "nobody")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:255]
