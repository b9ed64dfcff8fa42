"""What to type into a phone, as text, as a QR code and as settings of a door station.

Rule: here alone a password is in the clear, once, on its way to the person who types it.
"""

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO
from xml.sax.saxutils import escape

import segno

from intercom.site import server
from intercom.site.settings import SiteSettings, Transport

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that looks like another
_LENGTH = 20  # 99 bits


def new_password() -> str:
    """A password for one device."""
    return "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))


@dataclass(frozen=True)
class Sheet:
    """All that a phone must know to be a user.

    Attributes:
        user: also the name for authentication.
        password: of this device.
        domain: of the users.
        display: his name for people.
        server: the address to connect to: the phone's proxy.
        port: of the server.
        transport: as it was chosen for this phone.
        expires: seconds between two registrations.
        authority: the certificate that the phone must trust; None if there is none to give it.
    """

    user: str
    password: str = field(repr=False)
    domain: str
    display: str
    server: str
    port: int
    transport: Transport
    expires: int
    authority: Path | None = None

    def facts(self) -> dict[str, str | int]:
        """What is typed, under the names that most phones use."""
        facts: dict[str, str | int] = {
            "domain": self.domain,
            "user name": self.user,
            "authentication name": self.user,
            "password": self.password,
            "proxy": f"{self.server}:{self.port}",
            "transport": self.transport.upper(),
            "expiry": self.expires,
        }
        if self.transport in ("ws", "wss"):
            del facts["proxy"], facts["transport"]
            facts["WebSocket"] = f"{self.transport}://{self.server}:{self.port}/ws"
        if self.transport in ("tls", "wss") and self.domain != self.server:
            # What the certificate is for in any case. Some phones take no address for it: in these the domain
            # is typed as the proxy too, and a name server must know it.
            facts["TLS server name"] = self.domain
        if self.authority is not None:
            facts["CA certificate"] = str(self.authority)
        return facts

    def qr_text(self) -> str:
        """The account as Grandstream Wave reads it from a QR code; empty if that cannot say what is meant.

        There is no common form: Linphone, Zoiper and others read the web address of a provisioning server.
        """
        if self.transport != "udp":
            return ""
        fields = {
            "RegisterServer": self.domain,
            "OutboundServer": f"{self.server}:{self.port}",
            "UserID": self.user,
            "AuthID": self.user,
            "AuthPass": self.password,
            "AccountName": f"{self.user} at {self.domain}",
            "DisplayName": self.display or self.user,
        }
        account = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
        return (
            '<?xml version="1.0" encoding="utf-8"?><AccountConfig version="1">'
            f"<Account>{account}</Account></AccountConfig>"
        )

    def show_qr(self, terminal: TextIO) -> None:
        """Draw the QR code with letters."""
        segno.make(self.qr_text(), error="l").terminal(out=terminal, compact=True)

    def station(self) -> str:
        """The account as it stands in a door station's settings; the password stands in a file of its own."""
        return (
            "[[account]]\n"
            f'uri = "sip:{self.user}@{self.domain}"\n'
            f'registrar = "sip:{self.server}:{self.port};transport={self.transport}"\n'
            f'username = "{self.user}"\n'
            'password_file = "/etc/intercom/door.secret"\n'
            f"expires_seconds = {max(self.expires, 30)}\n"
        )


def make(
    folder: Path, settings: SiteSettings, user: str, password: str, display: str, transport: Transport
) -> Sheet:
    """The sheet of a user. Blocks on the disk where a certificate belongs to it.

    Raises:
        WrongCertificate: there is none that can be used.
    """
    secure = transport in ("tls", "wss")
    return Sheet(
        user,
        password,
        settings.site.domain,
        display,
        server.addresses(settings)[0],
        settings.listen.port_of(transport),
        transport,
        settings.registration.default,
        server.authority(folder, settings) if secure else None,
    )
