"""What the SIP side is built from: plain data, made from the settings by the application."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from intercom.core.policy import Caller
from intercom.settings.schema import Account, Network
from intercom.sip.certificate import Trust
from intercom.sip.relays import Nat, Relay


@dataclass(frozen=True, slots=True)
class AccountConfig:
    """The account to register.

    Attributes:
        name: how status, log and messages call it.
        uri: its address of record.
        registrar: the registrar's SIP URI.
        host: name or address of the outbound proxy, or of the registrar where there is none.
        port: of the same; None if its URI names none.
        transport: `udp`, `tcp` or `tls`; None if it names none.
        username: for digest authentication (RFC 8760).
        password: its secret.
        expires_seconds: how long a registration is asked to last.
        trust: what its servers must show over TLS; None for another transport.
        sound: whether it is encrypted: `off`, `optional` or `mandatory`.
        sound_keys: how keys for it are offered: `sdes` or `dtls`.
        presence: whether its server is told how the station is (RFC 3903).
    """

    name: str
    uri: str
    registrar: str
    host: str
    port: int | None
    transport: str | None
    username: str
    password: str = field(repr=False)
    expires_seconds: int
    trust: Trust | None = None
    sound: str = "off"
    sound_keys: str = "sdes"
    presence: bool = False

    @classmethod
    def of(cls, account: Account, password: str, folder: Path) -> Self:
        """Make it from the settings, the password that they do not hold, and the folder that they lie in."""
        return cls(
            name=account.name,
            uri=account.uri,
            registrar=account.registrar,
            host=account.host,
            port=account.port,
            transport=account.named_transport,
            username=account.username,
            password=password,
            expires_seconds=account.expires_seconds,
            trust=trust_of(account, folder),
            sound=account.sound,
            sound_keys=account.srtp_keys,
            presence=account.presence,
        )


def trust_of(account: Account, folder: Path) -> Trust | None:
    """What the servers of an account must show; None if it is not reached over TLS.

    Args:
        account: from the settings.
        folder: of the settings file, from which `ca_file` is seen.
    """
    if account.transport != "tls":
        return None
    authorities = str(folder / account.authorities) if account.authorities else ""
    return Trust(account.host, authorities, account.fingerprint or "")


def nat_of(network: Network, password: str) -> Nat:
    """What helps sound through address translators; the password is that of the TURN server."""
    relays = []
    if network.stun_place is not None:
        relays.append(Relay("STUN", *network.stun_place))
    if network.turn is not None:
        turn = network.turn
        relays.append(Relay("TURN", *turn.place, turn.transport, turn.username, password))
    return Nat(network.ice, tuple(relays))


@dataclass(frozen=True, slots=True)
class LineConfig:
    """The SIP side as a whole.

    Attributes:
        name: the station's display name.
        accounts: its registrations, in order of preference; no two have one name.
        port: local UDP port, 0 for any free one.
        name_servers: addresses and ports of name servers to ask instead of the system's.
        device: finds the sound device's ALSA PCM name each time that it is to be opened, so that a card
            may come back; raises OSError or ValueError with the reason. None for a station without sound.
            Called on the SIP thread.
        caller: tells how the call of a peer (`sip:user@host`) is taken; None for one who may not call. Called
            on the SIP thread.
        may_talk: tells whether a visitor may be sent to a peer (`sip:user@host`) by whom he talks with, and
            whether that peer may take over a call. Called on the SIP thread.
        agent: the User-Agent (RFC 3261 section 20.41).
        nat: what helps sound through address translators.
    """

    name: str
    accounts: Sequence[AccountConfig]
    port: int
    name_servers: Sequence[tuple[str, int]]
    device: Callable[[], str] | None
    caller: Callable[[str], Caller | None]
    may_talk: Callable[[str], bool]
    agent: str
    nat: Nat = field(default_factory=Nat)
