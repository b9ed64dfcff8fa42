"""What may stand in `site.toml`. Unknown keys are errors; every default is here and nowhere else.

Nothing secret stands in it. What passes can be written into Kamailio's configuration as it is.
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from intercom.settings.loading import WrongSettings, read, schema_mistakes
from intercom.site import forms, places

Digest = Literal["MD5", "SHA-256"]
Transport = Literal["udp", "tcp", "tls", "ws", "wss", "sctp"]
Port = Annotated[int, Field(ge=1, le=65535)]


def _address(value: str) -> str:
    try:
        address = ipaddress.IPv4Address(value)
    except ValueError:
        raise ValueError(f"{value!r} is not an IPv4 address") from None
    if address.is_unspecified or address.is_multicast or address.is_reserved:
        raise ValueError(f"{value} is not the address of one machine")  # others are told to come back to it
    return str(address)


def _once(values: list[str]) -> list[str]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value} stands there more than once")
    return values


def _node(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{value!r} is not ADDRESS:PORT")
    return f"{_address(host)}:{int(port)}"


def _file(value: str) -> str:
    if not value.isprintable() or '"' in value or not value.startswith("/"):
        raise ValueError("is not the full path of a file")
    return value


Address = Annotated[str, AfterValidator(_address)]
Node = Annotated[str, AfterValidator(_node)]
File = Annotated[str, AfterValidator(_file)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Site(_Section):
    """Whose site it is.

    Attributes:
        domain: of the users; also the realm of their passwords.
        digest: of new users.
        remembers: whether locations outlive the server.
    """

    domain: Annotated[str, AfterValidator(forms.domain)] = "site.example"
    digest: Digest = "MD5"
    remembers: bool = True


class Listen(_Section):
    """Where it listens. No address: the one this machine reaches others from."""

    addresses: Annotated[list[Address], AfterValidator(_once)] = []
    transports: Annotated[list[Transport], Field(min_length=1), AfterValidator(_once)] = ["udp", "tcp"]
    port: Port = 5060
    tls_port: Port = 5061
    ws_port: Port = 8088
    wss_port: Port = 8089

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        taken: dict[int, str] = {}
        for transport in self.transports:
            if transport in ("udp", "sctp"):
                continue  # these have ports of their own
            port = self.port_of(transport)
            if taken.setdefault(port, transport) != transport:
                raise ValueError(f"{transport} and {taken[port]} cannot both have port {port}")
        return self

    def port_of(self, transport: Transport) -> int:
        """The port that phones of a transport are given."""
        return {"tls": self.tls_port, "ws": self.ws_port, "wss": self.wss_port}.get(transport, self.port)


class Tls(_Section):
    """The certificates.

    Attributes:
        certificate: for phones, one that was given. Without it the site's own authority makes one.
        key: of the certificate.
        trunk_authority: which trunks over TLS must have theirs from. Without it none is connected to.
    """

    certificate: File | None = None
    key: File | None = None
    trunk_authority: File | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        return self


class Registration(_Section):
    """For how long a phone may register, in seconds."""

    shortest: Annotated[int, Field(ge=1, le=3600)] = 10
    default: Annotated[int, Field(ge=1, le=86400)] = 300
    longest: Annotated[int, Field(ge=1, le=86400)] = 3600

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.shortest <= self.default <= self.longest:
            raise ValueError("shortest, default and longest must be in this order")
        return self


class Limits(_Section):
    """How many requests one address may send that has not proved who it is."""

    requests_per_second: Annotated[int, Field(ge=1, le=100_000)] = 200


class Numbers(_Section):
    """Which country a number that begins with one 0 belongs to: `49`. None: such numbers stay as they are."""

    country: Annotated[str, AfterValidator(forms.country)] | None = None


class Nodes(_Section):
    """The servers of this site that share locations: this one's own address for it, and the others'."""

    own: Node | None = None
    others: Annotated[list[Node], Field(max_length=3), AfterValidator(_once)] = []

    @model_validator(mode="after")
    def _own_first(self) -> Self:
        if (self.own is None) != (not self.others):
            raise ValueError("own and others belong together")
        if self.own in self.others:
            raise ValueError("the own address stands among the others")
        return self


class SiteSettings(_Section):
    """The whole file."""

    site: Site = Site()
    listen: Listen = Listen()
    tls: Tls = Tls()
    registration: Registration = Registration()
    limits: Limits = Limits()
    numbers: Numbers = Numbers()
    nodes: Nodes = Nodes()


def load(path: Path) -> SiteSettings:
    """Read and check the settings of a site. Blocks on the disk.

    The system's file need not be there: every setting has a default.

    Raises:
        WrongSettings: with every mistake in the file.
    """
    if path == places.SETTINGS and not path.exists():
        return SiteSettings()
    try:
        return SiteSettings.model_validate(read(path))
    except ValidationError as error:
        raise WrongSettings(schema_mistakes(path, error)) from None
