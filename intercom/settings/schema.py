"""What may stand in `intercom.toml`. Unknown keys are errors; every default is here and nowhere else.

Times are seconds, pins are BCM numbers. The password never stands in the file: it names where that is kept.
Door codes do, so nobody else may read it.
"""

import ipaddress
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

_ADDRESS = r"sip:[\w.!~*'()&=+$,;?/%-]+@([\w.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?(;transport=(udp|tcp))?"
_REGISTRAR = re.compile(
    r"sip:(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:(?P<port>\d{1,5}))?(;transport=(?P<transport>udp|tcp|tls))?",
    re.ASCII,
)
SIP_PORT = 5060
SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
DNS_PORT = 53
MOST_TOGETHER = 6
"""As many calls as the SIP side can end and place anew at the same time."""


def _matching(pattern: str, reason: str) -> AfterValidator:
    """A check that answers with our own words instead of a pattern nobody can read."""
    form = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if form.fullmatch(value) is None:
            raise ValueError(reason)
        return value

    return AfterValidator(check)


def is_address(value: str) -> bool:
    """Tell whether a text is a SIP address that can be called."""
    return re.fullmatch(_ADDRESS, value, re.ASCII) is not None and _has_port(value)


def _has_port(value: str) -> bool:
    port = re.search(r":(\d{1,5})(;|$)", value.rpartition("@")[2])
    return port is None or 0 < int(port[1]) < 65536


def _callable(value: str) -> str:
    if not _has_port(value):
        raise ValueError("names a port that is not between 1 and 65535")
    return value


def _check_host(host: str) -> None:
    """Refuse what no name server could be asked for, and no socket could reach.

    Raises:
        ValueError: in words for the installer.
    """
    if host.startswith("["):
        if ipaddress.IPv6Address(host[1:-1]).is_link_local:  # its own words fit where it is none
            raise ValueError("is a link-local address (fe80::), for which no interface can be given")
        return
    labels = host.removesuffix(".").split(".")
    if not all(0 < len(label) <= 63 for label in labels):
        raise ValueError("a label of the name is empty or longer than 63")
    if labels[-1].isdigit():
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"{host} looks like an IPv4 address and is none") from None


def _port(value: str) -> str:
    match = _REGISTRAR.fullmatch(value)
    if match is not None:
        _check_host(match["host"])
    if match is not None and not 0 < int(match["port"] or SIP_PORT) < 65536:
        raise ValueError(f"names port {match['port']}, which is not between 1 and 65535")
    return value


def _name_server(value: str) -> str:
    address, port = _split(value)
    if ipaddress.ip_address(address).version == 6:  # its own words fit
        _check_host(f"[{address}]")
    if not 0 < port < 65536:
        raise ValueError(f"names port {port}, which is not between 1 and 65535")
    return value


def _relay(value: str) -> str:
    host, _, port = value.rpartition(":")
    _check_host(host)
    if not 0 < int(port) < 65536:
        raise ValueError(f"names port {port}, which is not between 1 and 65535")
    return value


def _place(relay: str) -> tuple[str, int]:
    """Host and port of a STUN or TURN server."""
    host, _, port = relay.rpartition(":")
    return host.strip("[]"), int(port)


def _split(name_server: str) -> tuple[str, int]:
    """Address and port of a name server."""
    address, _, port = name_server.partition("]:" if name_server.startswith("[") else ":")
    return address.strip("[]"), int(port or DNS_PORT)


Name = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,31}", "must be 1 to 32 letters, digits, spaces, '_', '.' or '-'"
    ),
]
Address = Annotated[
    str,
    Field(max_length=255),
    _matching(_ADDRESS, "is not a SIP address such as sip:flat1@site.example"),
    AfterValidator(_callable),
]
Permit = Annotated[
    str,
    _matching(
        r"sip:[^@;\s]+@([\w.-]+|\[[0-9a-fA-F:.]+\])",
        "is not sip:user@host without a port, or sip:*@host for everyone of a domain",
    ),
    AfterValidator(str.lower),
]
Registrar = Annotated[
    str,
    _matching(
        _REGISTRAR.pattern,
        "is not sip:HOST or sip:HOST:PORT, with ;transport=udp, tcp or tls if wanted",
    ),
    AfterValidator(_port),
]
NameServer = Annotated[
    str,
    _matching(
        r"(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-fA-F:.]+\])(:\d{1,5})?",
        "is not the address of a name server, with :PORT if wanted; one of IPv6 stands in brackets",
    ),
    AfterValidator(_name_server),
]
RelayServer = Annotated[
    str,
    _matching(
        r"([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\]):\d{1,5}",
        "is not HOST:PORT, such as stun.site.example:3478; an address of IPv6 stands in brackets",
    ),
    AfterValidator(_relay),
]
Fingerprint = Annotated[
    str,
    _matching(
        r"([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}", "is not the SHA-256 of a certificate: 64 hexadecimal digits"
    ),
    AfterValidator(lambda value: value.replace(":", "").lower()),
]
Line = Annotated[str, _matching(r"[^\x00-\x1f]{1,255}", "must be one line of text")]
Device = Annotated[
    str, _matching(r"(?!\d+$)[^\x00-\x1f]{1,255}", "is a card's number, which moves at a reboot: give its id")
]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Clock = Annotated[
    str, _matching(r"([01]\d|2[0-3]):[0-5]\d|24:00", "is not a time of day such as 07:30; 24:00 is midnight")
]
Pin = Annotated[int, Field(ge=0, le=27)]  # those of the 40-pin header
Code = Annotated[str, _matching(r"[0-9*]{1,15}#", "must be 1 to 15 digits or '*', and '#' at the end")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Station(_Section):
    """Who and on what board the station is."""

    name: Name = "Front door"
    board: Name


class Account(_Section):
    """A registration with a PBX or registrar (RFC 3261 section 10)."""

    uri: Address
    registrar: Registrar
    proxy: Registrar | None = None
    label: Annotated[Name | None, Field(alias="name")] = None
    username: Line
    password_file: Line
    expires_seconds: Annotated[int, Field(ge=30, le=86400)] = 300
    ca_file: Line | None = None
    fingerprint: Fingerprint | None = None
    srtp: Literal["off", "optional", "mandatory"] | None = None
    srtp_keys: Literal["sdes", "dtls"] = "sdes"
    presence: bool = False

    @model_validator(mode="after")
    def _protected(self) -> Self:
        if self.transport != "tls":
            if self.ca_file or self.fingerprint:
                raise ValueError("ca_file and fingerprint are for a registrar with ;transport=tls")
            if self.sound != "off" and self.srtp_keys == "sdes":
                raise ValueError(
                    "srtp sends its keys in the clear without ;transport=tls: use that, or srtp_keys = 'dtls'"
                )
        elif self.ca_file and self.fingerprint:
            raise ValueError(
                "fingerprint pins one certificate, so ca_file says nothing: leave one of them out"
            )
        return self

    @property
    def authorities(self) -> str | None:
        """The file of those that a certificate must come from; None where none is asked."""
        if self.transport != "tls" or self.fingerprint:
            return None
        return self.ca_file or SYSTEM_AUTHORITIES

    @property
    def sound(self) -> Literal["off", "optional", "mandatory"]:
        """Whether sound is encrypted; where the settings do not say, it may be if signalling is."""
        return self.srtp or ("optional" if self.transport == "tls" else "off")

    @property
    def name(self) -> str:
        """The account's name in status, log and messages: its user at its host where it has no other."""
        return self.label or self.uri.partition(":")[2].partition(";")[0]

    @property
    def domain(self) -> str:
        """The domain of the account's address."""
        host = self.uri.rpartition("@")[2].partition(";")[0]
        return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]

    @property
    def hosts(self) -> frozenset[str]:
        """The domain and the server as they stand in addresses: in lower case, IPv6 in brackets."""
        return frozenset({self.domain.lower(), self._parts["host"].lower()})

    @property
    def host(self) -> str:
        """Host name or address of the outbound proxy, or of the registrar where there is none."""
        return self._parts["host"].strip("[]")

    @property
    def port(self) -> int | None:
        """The port of the same; None where it names none, so that SRV records may."""
        return int(self._parts["port"]) if self._parts["port"] else None

    @property
    def transport(self) -> Literal["udp", "tcp", "tls"]:
        """The transport to the same; UDP where it names none."""
        return self.named_transport or "udp"

    @property
    def named_transport(self) -> Literal["udp", "tcp", "tls"] | None:
        """The transport that it names; None where it names none, so that NAPTR records may."""
        match self._parts["transport"]:
            case "udp" | "tcp" | "tls" as named:
                return named
        return None

    @property
    def _parts(self) -> re.Match[str]:
        match = _REGISTRAR.fullmatch(self.proxy or self.registrar)
        assert match is not None, "checked when the settings were read"
        return match


class Sip(_Section):
    """The station's own SIP socket. Port 0 takes any free one."""

    port: Annotated[int, Field(ge=0, le=65535)] = 0


class Turn(_Section):
    """A server that relays sound (RFC 8656)."""

    server: RelayServer
    username: Line
    password_file: Line
    transport: Literal["udp", "tcp"] = "udp"

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        return _place(self.server)


class Network(_Section):
    """Name servers to ask instead of the system's, and what helps sound through address translators."""

    nameservers: Annotated[list[NameServer], Field(max_length=3)] = []
    ice: bool = False
    stun: RelayServer | None = None
    turn: Turn | None = None

    @model_validator(mode="after")
    def _by_ice(self) -> Self:
        if not self.ice and (self.stun or self.turn):
            raise ValueError(f"{'stun' if self.stun else 'turn'} is used by ICE only: it needs ice = true")
        return self

    @property
    def stun_place(self) -> tuple[str, int] | None:
        """Host and port of the STUN server, if there is one."""
        return None if self.stun is None else _place(self.stun)

    @property
    def servers(self) -> tuple[tuple[str, int], ...]:
        """Address and port of each."""
        return tuple(map(_split, self.nameservers))


class Resort(_Section):
    """An address, and for how long it is rung."""

    to: Address
    seconds: Annotated[float, Field(ge=1, le=300)] = 30


class Ring(Resort):
    """One address that a button rings: after the one before it, or together with it."""

    together: bool = False


def _ringable(rings: list[Ring]) -> list[Ring]:
    count = 0
    for number, ring in enumerate(rings, 1):
        count = count + 1 if ring.together else 1
        if number == 1 and ring.together:
            raise ValueError("begins with together = true, but there is none before it")
        if count > MOST_TOGETHER:
            raise ValueError(
                f"has more than {MOST_TOGETHER} that ring together: let a group of the PBX do that"
            )
    group: set[str] = set()
    for ring in rings:
        group = group if ring.together else set()
        if ring.to.lower() in group:
            raise ValueError(f"rings {ring.to} twice at once: name it once in those that ring together")
        group.add(ring.to.lower())
    return rings


class Plan(_Section):
    """Whom a button rings, how often, whom at the end, and when an answer counts."""

    ring: Annotated[list[Ring], Field(min_length=1, max_length=16), AfterValidator(_ringable)]
    repeat: Annotated[int, Field(ge=1, le=5)] = 1
    last_resort: Resort | None = None
    confirm: Literal["key"] | None = None

    @property
    def addresses(self) -> list[str]:
        """All whom it may ring."""
        return [each.to for each in (*self.ring, *filter(None, [self.last_resort]))]


class Hours(Plan):
    """Whom a button rings at certain hours of certain days, by the clock of this machine.

    Hours that pass midnight belong to the day on which they begin.
    """

    days: Annotated[list[Day], Field(min_length=1)] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    begin: Annotated[Clock, Field(alias="from")] = "00:00"
    to: Clock = "24:00"

    @model_validator(mode="after")
    def _lasting(self) -> Self:
        if self.begin == self.to:
            raise ValueError("from and to are the same: leave both out for the whole day")
        if (self.begin, self.to) == ("24:00", "00:00"):
            raise ValueError("from 24:00 to 00:00 is no time at all: leave both out for the whole day")
        return self


class Button(Plan):
    """A bell button. Its own plan counts where none of its hours does."""

    name: Name
    pin: Pin
    hours: Annotated[list[Hours], Field(max_length=16)] = []

    @property
    def rung(self) -> list[str]:
        """All whom it may ring at any time of day."""
        return list(dict.fromkeys(to for plan in (self, *self.hours) for to in plan.addresses))


class Redirect(_Section):
    """Where calls may be redirected to beside the domains and servers of the accounts."""

    permit: list[Permit] = []


class Lamp(_Section):
    """A lamp that shows what the station does."""

    name: Name
    pin: Pin


class DtmfCode(_Section):
    """A code a resident types on the telephone."""

    dtmf: Code


class Door(_Section):
    """A door strike: for how long it is released, how it is wired, and by which codes.

    The guardian (`hardware/guardian.py`) reads its part of it for itself, with the same defaults.
    """

    name: Name
    pin: Pin
    release_seconds: Annotated[float, Field(ge=0.2, le=60)] = 5
    active_high: bool = True
    energise_to: Literal["open", "lock"] = "open"
    duty_percent: Annotated[float, Field(gt=0, le=100)] | None = None
    open_by_message: bool = False
    codes: Annotated[list[DtmfCode], Field(max_length=100)] = []

    @model_validator(mode="after")
    def _bears_it(self) -> Self:
        if self.duty_percent is not None:
            if self.energise_to == "lock":
                raise ValueError("duty_percent is for a strike that is energised to open")
            if self.duty_percent * 0.6 < self.release_seconds:
                raise ValueError("one release takes more than duty_percent of a minute")
        return self


class Message(_Section):
    """People who are written to, and when (RFC 3428)."""

    to: Annotated[list[Address], Field(min_length=1, max_length=16)]
    on: Annotated[list[Literal["press", "missed", "released", "refused", "fault"]], Field(min_length=1)]
    buttons: list[Name] = []


class Sound(_Section):
    """The sound device: an ALSA PCM name, a card id, or `none`."""

    device: Device = "none"


class _Taken(_Section):
    answer: Literal["press", "automatic"] = "press"
    mode: Literal["talk", "listen", "announce"] = "talk"


class Peer(_Taken):
    """Somebody whose calls are taken in a way of their own."""

    uri: Permit


class Incoming(_Taken):
    """Who may call the station, how he is answered, and what becomes of a second call."""

    permit: list[Permit] = []
    peer: list[Peer] = []
    waiting: Literal["busy", "join"] = "busy"

    @model_validator(mode="after")
    def _once(self) -> Self:
        named = [*self.permit, *(peer.uri for peer in self.peer)]
        for uri in named:
            if named.count(uri) > 1:
                raise ValueError(f"{uri} may call in one way only: name it once")
        return self


class Timing(_Section):
    """How long things last."""

    settle_seconds: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    repeat_seconds: Annotated[float, Field(ge=0, le=10)] = 2
    talk_seconds: Annotated[float, Field(ge=10, le=3600)] = 300


class Record(_Section):
    """How much of the record of calls and accesses is kept; what is older than either bound is dropped."""

    keep_days: Annotated[int, Field(ge=1, le=3650)] = 365
    keep_megabytes: Annotated[int, Field(ge=1, le=1000)] = 100


class Settings(_Section):
    """The whole file."""

    station: Station
    sip: Sip = Sip()
    network: Network = Network()
    account: Annotated[list[Account], Field(min_length=1, max_length=4)]
    button: Annotated[list[Button], Field(min_length=1)]
    lamp: list[Lamp] = []
    door: list[Door] = []
    message: Annotated[list[Message], Field(max_length=16)] = []
    sound: Sound = Sound()
    incoming: Incoming = Incoming()
    redirect: Redirect = Redirect()
    timing: Timing = Timing()
    record: Record = Record()
