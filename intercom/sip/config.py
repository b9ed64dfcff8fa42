"""What the SIP side is built from: plain data, made from the settings by the application."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from intercom.settings.schema import Account


@dataclass(frozen=True, slots=True)
class AccountConfig:
    """The account to register.

    Attributes:
        name: how status, log and messages call it.
        uri: its address of record.
        registrar: the registrar's SIP URI.
        host: the registrar's name or IPv4 address.
        port: the registrar's port; None if its URI names none.
        transport: `udp` or `tcp`.
        username: for digest authentication (RFC 8760).
        password: its secret.
        expires_seconds: how long a registration is asked to last.
    """

    name: str
    uri: str
    registrar: str
    host: str
    port: int | None
    transport: str
    username: str
    password: str = field(repr=False)
    expires_seconds: int

    @classmethod
    def of(cls, account: Account, password: str) -> Self:
        """Make it from the settings and the password that they do not hold."""
        return cls(
            name=account.name,
            uri=account.uri,
            registrar=account.registrar,
            host=account.host,
            port=account.port,
            transport=account.transport,
            username=account.username,
            password=password,
            expires_seconds=account.expires_seconds,
        )


@dataclass(frozen=True, slots=True)
class LineConfig:
    """The SIP side as a whole.

    Attributes:
        name: the station's display name.
        account: its registration.
        port: local UDP port, 0 for any free one.
        name_servers: addresses and ports of name servers to ask instead of the system's.
        device: finds the sound device's ALSA PCM name each time that it is to be opened, so that a card
            may come back; raises OSError or ValueError with the reason. None for a station without sound.
            Called on the SIP thread.
        permits: tells whether a peer (`sip:user@host`) may call the station. Called on the SIP thread.
        agent: the User-Agent (RFC 3261 section 20.41).
    """

    name: str
    account: AccountConfig
    port: int
    name_servers: Sequence[tuple[str, int]]
    device: Callable[[], str] | None
    permits: Callable[[str], bool]
    agent: str
