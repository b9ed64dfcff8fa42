"""The certificates of a site: its own authority, made once, and what its server shows to phones.

Rule: a private key is made readable by its owner alone, and no file that was given to us is changed.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_YEARS = 20
SERVER_DAYS = 365
RENEW_DAYS = 60  # so many days before its end the server's certificate is made anew

_YEAR = timedelta(days=365)
_FIRST_YEAR = 2020  # a clock that says less was never set: a Raspberry Pi starts without the time
_SLOW_CLOCK = timedelta(days=1)  # a phone's clock may be behind ours


class WrongCertificate(Exception):
    """A certificate or key that no server can use; the text is one line that names the file."""


@dataclass(frozen=True)
class Certificate:
    """The files of a server certificate.

    Attributes:
        chain: PEM; the server's certificate comes first.
        key: PEM; its private key, without a password.
        authority: PEM; what a phone must trust, None when the certificate was given by somebody else.
    """

    chain: Path
    key: Path
    authority: Path | None = None


def own(folder: Path, domain: str, addresses: Sequence[str], now: datetime | None = None) -> Certificate:
    """The certificate of the site's own authority, for its domain and its addresses.

    The authority is made when the folder holds none, and never again: phones trust this one. The server's
    certificate is made anew when it is near its end or the names have changed; a running server must be told
    (RPC tls.reload). Blocks on the disk, for less than 0.1 s.

    Args:
        folder: for four files; created when missing.
        domain: of the users.
        addresses: IP addresses at which phones connect.
        now: the time; that of the clock when None.

    Raises:
        WrongCertificate: the authority that is there cannot be used or is for another domain, or one must
            be made and the clock is not set.
        OSError: the folder cannot be written.
    """
    now = now or datetime.now(UTC)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Certificate(folder / "ca.pem", folder / "ca.key")
    server = Certificate(folder / "server.pem", folder / "server.key", authority.chain)
    if not authority.chain.exists():
        _require_a_clock(now)
        _make_authority(authority, domain, now)
    signer, key = _read(authority)
    if (expected := _authority_name(domain)) != signer.subject:
        raise WrongCertificate(
            f"{authority.chain} is the authority of another domain ({signer.subject.rfc4514_string()}, not "
            f"{expected.rfc4514_string()}): move it away and give every phone the new one"
        )
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise WrongCertificate(f"{authority.key} is not a key that was made here")
    if now > signer.not_valid_after_utc:
        raise WrongCertificate(
            f"{authority.chain} has expired: move it away and give every phone the new one"
        )
    names = _names(domain, addresses)
    if not _still_good(server, signer, names, now):
        _require_a_clock(now)
        _make_server(server, signer, key, names, now)
    return server


def given(chain: Path, key: Path) -> Certificate:
    """A certificate that comes from elsewhere, in the place where it is.

    Raises:
        WrongCertificate: a file cannot be read, holds something else, or the key does not fit.
    """
    certificate = Certificate(chain, key)
    _read(certificate)
    return certificate


def problem(certificate: Certificate, domain: str, now: datetime | None = None) -> str:
    """Why phones will refuse a certificate that can be read, or why its key is no secret; "" if all is well.

    Raises:
        WrongCertificate: a file cannot be read, holds something else, or the key does not fit.
    """
    now = now or datetime.now(UTC)
    leaf, _ = _read(certificate)
    if now > leaf.not_valid_after_utc:
        return f"{certificate.chain} has expired on {leaf.not_valid_after_utc:%Y-%m-%d}"
    if now < leaf.not_valid_before_utc:
        return f"{certificate.chain} is not valid before {leaf.not_valid_before_utc:%Y-%m-%d}"
    if not _is_for(leaf, domain):
        return f"{certificate.chain} is not for {domain}, but for {', '.join(_texts(leaf)) or 'nobody'}"
    if certificate.key.stat().st_mode & 0o007:
        return f"{certificate.key} can be read by every user of this machine"
    return ""


def authorities(path: Path) -> str:
    """The text of a file of certificates to be trusted.

    Raises:
        WrongCertificate: it cannot be read, or holds something else.
    """
    try:
        text = path.read_text()
        x509.load_pem_x509_certificates(text.encode())
    except OSError as error:
        raise WrongCertificate(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise WrongCertificate(f"{path} holds no certificate in PEM form") from None
    return text


def days_left(certificate: Certificate, now: datetime | None = None) -> int:
    """Whole days until the certificate ends, below 0 when it has ended.

    Raises:
        WrongCertificate: a file cannot be read, holds something else, or the key does not fit.
    """
    leaf, _ = _read(certificate)
    return (leaf.not_valid_after_utc - (now or datetime.now(UTC))).days


def _require_a_clock(now: datetime) -> None:
    if now.year < _FIRST_YEAR:
        raise WrongCertificate(f"the clock says {now:%Y-%m-%d}: no certificate can be made before it is set")


def _make_authority(files: Certificate, domain: str, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _authority_name(domain)
    builder = (
        _builder(name, name, key.public_key(), now, AUTHORITY_YEARS * _YEAR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if not _is_address(domain):
        # Who steals its key can name himself no host outside this domain. RFC 5280 4.2.1.10 wants the
        # extension critical, but then phones that do not know it would refuse the authority altogether.
        permitted = [x509.DNSName(domain)]
        builder = builder.add_extension(x509.NameConstraints(permitted, None), critical=False)
    # The key first: without it the certificate would be there for good and of no use.
    _write(files.key, _pem(key), 0o600)
    _write(files.chain, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), 0o644)


def _make_server(
    files: Certificate,
    signer: x509.Certificate,
    signing_key: ec.EllipticCurvePrivateKey,
    names: list[x509.GeneralName],
    now: datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(names[0].value)[:64])])
    life = min(timedelta(days=SERVER_DAYS), signer.not_valid_after_utc - now)
    authority_key = x509.SubjectKeyIdentifier.from_public_key(signing_key.public_key())
    certificate = (
        _builder(subject, signer.subject, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_key), critical=False
        )
        .sign(signing_key, hashes.SHA256())
    )
    # A certificate and a key that do not belong together are found and made anew by the next call.
    _write(files.key, _pem(key), 0o600)
    _write(files.chain, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLOW_CLOCK)
        .not_valid_after(now + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _still_good(
    files: Certificate, signer: x509.Certificate, names: list[x509.GeneralName], now: datetime
) -> bool:
    """Whether the server's certificate can stay; it can if it is of the future, since our clock is wrong."""
    try:
        leaf, _ = _read(files)
        leaf.verify_directly_issued_by(signer)
        present = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (WrongCertificate, InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return list(present) == names and now < leaf.not_valid_after_utc - timedelta(days=RENEW_DAYS)


def _read(files: Certificate) -> tuple[x509.Certificate, PrivateKeyTypes]:
    try:
        leaf = x509.load_pem_x509_certificates(files.chain.read_bytes())[0]
    except OSError as error:
        raise WrongCertificate(f"{files.chain} cannot be read: {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise WrongCertificate(f"{files.chain} holds no certificate in PEM form") from None
    try:
        key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    except OSError as error:
        raise WrongCertificate(f"{files.key} cannot be read: {error.strerror}") from None
    except TypeError:
        raise WrongCertificate(f"{files.key} has a password: no server can start with it") from None
    except (ValueError, UnsupportedAlgorithm):
        raise WrongCertificate(f"{files.key} holds no private key in PEM form") from None
    if _public(key.public_key()) != _public(leaf.public_key()):
        raise WrongCertificate(f"{files.key} is not the key of {files.chain}")
    return leaf, key


def _public(key: object) -> bytes:
    assert hasattr(key, "public_bytes")
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_bytes(serialization.Encoding.DER, form))


def _is_for(leaf: x509.Certificate, domain: str) -> bool:
    """RFC 5922 7.1 takes the domain from the subject alternative names; a wildcard does not count."""
    return domain.lower() in (text.lower() for text in _texts(leaf))


def _texts(leaf: x509.Certificate) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names if isinstance(name, (x509.DNSName, x509.IPAddress))]


def _names(domain: str, addresses: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [] if _is_address(domain) else [x509.DNSName(domain)]
    found = {ip_address(text) for text in (*addresses, domain) if _is_address(text)}
    return names + [x509.IPAddress(address) for address in sorted(found, key=_order)]


def _order(address: IPv4Address | IPv6Address) -> tuple[int, int]:
    return address.version, int(address)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _authority_name(domain: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{domain} site CA"[-64:])])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replace a file as a whole; nobody ever sees half of it, or a key with the mode of another file."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
