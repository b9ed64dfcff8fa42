"""Where the registrar's name leads: the servers to try, in order (RFC 3263 section 4, RFC 2782).

Rule: nothing here touches the network. Who asks the name server, and what chance says, is passed in.
"""

import asyncio
import ipaddress
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
PORTS = {"udp": 5060, "tcp": 5060, "tls": 5061}
WAYS = {"SIP+D2U": "udp", "SIP+D2T": "tcp"}
MOST_TARGETS = 16
"""What lies behind them in a list is never needed, and admission has a limit of its own."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server. Two are the same if they are at the same place, whatever the name server calls them.

    Attributes:
        address: its IPv4 or IPv6 address.
        port: its port.
        transport: `udp`, `tcp` or `tls`.
        name: what its address was found by, for people.
        priority: of its SRV record; the lowest is tried first.
    """

    address: str
    port: int
    transport: str
    name: str = field(compare=False)
    priority: int = field(compare=False, default=0)

    @property
    def place(self) -> str:
        """Address and port, as they stand in a URI."""
        return _place(self.address, self.port)

    @property
    def label(self) -> str:
        """Name and port, for people."""
        return _place(self.name, self.port)

    def __str__(self) -> str:
        """Name, port and address, the last only where it says more."""
        return self.label if self.name == self.address else f"{self.label} ({self.address})"


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Service:
    """One SRV record (RFC 2782): a host that offers the service, and how it is preferred."""

    priority: int
    weight: int
    port: int
    host: str


@dataclass(frozen=True, slots=True)
class Way:
    """One NAPTR record (RFC 3403): a transport that a host prefers, and the name of its SRV records."""

    order: int
    preference: int
    flags: str
    service: str
    name: str


class NoRecord(Exception):
    """The name server knows of no such record."""


class NotFound(Exception):
    """The registrar's name leads nowhere; the text says why."""


class Names(Protocol):
    """A name server, as it is asked here. All raise NoRecord, or OSError when nobody answers."""

    async def ways(self, host: str) -> list[Way]:
        """Return the NAPTR records of a host."""

    async def services(self, name: str) -> list[Service]:
        """Return the SRV records of a name."""

    async def addresses(self, host: str) -> list[str]:
        """Return the addresses of a host, those of IPv4 first."""


def is_numeric(host: str) -> bool:
    """Tell whether a host is an address already."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def service_name(host: str, transport: str) -> str:
    """Return the name whose SRV records hold the servers of a host."""
    return f"_sips._tcp.{host}" if transport == "tls" else f"_sip._{transport}.{host}"


def ordered(services: Iterable[Service], chance: Callable[[], float]) -> list[Service]:
    """Put SRV records into the order to try them in, by priority and then by weighted lot (RFC 2782).

    Args:
        services: the records.
        chance: returns a number from 0 up to, but not including, 1.
    """
    classes: defaultdict[int, list[Service]] = defaultdict(list)
    for service in services:
        classes[service.priority].append(service)
    order: list[Service] = []
    for priority in sorted(classes):
        left = sorted(classes[priority], key=lambda service: service.weight)  # weight 0 gets its small chance
        while left:
            order.append(left.pop(_draw([service.weight for service in left], chance())))
    return order


def _draw(weights: Sequence[int], chance: float) -> int:
    ticket = int(chance * (sum(weights) + 1))
    for index, weight in enumerate(weights):
        ticket -= weight
        if ticket <= 0:
            return index
    return len(weights) - 1


async def find(
    host: str,
    port: int | None,
    transport: str | None,
    names: Names,
    chance: Callable[[], float],
    *,
    known: bool,
) -> Sequence[Server]:
    """Return the servers of a registrar, the best first.

    A number or a port in the registrar's URI leaves SRV out (RFC 3263 section 4.2), and so does a name
    without SRV records: its addresses are used, at the default port. NAPTR records are asked for only where
    the URI names neither port nor transport (section 4.1), and choose between UDP and TCP: TLS is a matter of
    the settings, which say whom to believe.

    Args:
        host: of the registrar's URI.
        port: of the URI, None if it names none.
        transport: `udp`, `tcp` or `tls`; None if the URI names none.
        names: the name server.
        chance: as for `ordered`.
        known: whether an earlier list is at hand. If not, a name server that is silent about its records is
            no reason not to look for the address: a hosts file may know it.

    Raises:
        NotFound: in words.
    """
    if is_numeric(host):
        transport = transport or "udp"
        return (Server(host, port or PORTS[transport], transport, host),)
    try:
        ways = [] if port is not None else await _ways(host, transport, names)
        for way, name in ways:
            services = await _asked(names.services(name))
            if any(service.host in {"", "."} for service in services):
                raise NotFound(f"{host} says that it has no SIP over {way.upper()}")
            if services:
                return await _places(host, ordered(services, chance)[:MOST_TARGETS], way, names)
    except OSError as error:
        if known:
            raise NotFound(f"the servers of {host} cannot be asked for: {_words(error)}") from None
    try:
        addresses = await names.addresses(host)
    except (NoRecord, OSError) as error:
        raise NotFound(f"the name {host} does not resolve: {_words(error)}") from None
    transport = transport or "udp"
    port = port or PORTS[transport]
    return tuple(Server(address, port, transport, host) for address in addresses[:MOST_TARGETS])


async def _ways(host: str, transport: str | None, names: Names) -> list[tuple[str, str]]:
    """Return transports with the names of their SRV records, the best first."""
    if transport is not None:
        return [(transport, service_name(host, transport))]
    found = await _asked(names.ways(host))
    found.sort(key=lambda way: (way.order, way.preference))
    ways = [
        (WAYS[way.service.upper()], way.name)
        for way in found
        if way.flags.lower() == "s" and way.service.upper() in WAYS
    ]
    return ways or [(each, service_name(host, each)) for each in WAYS.values()]


async def _asked(question: Awaitable[list[T]]) -> list[T]:
    """The records that a name server has, which may be none."""
    try:
        return await question
    except NoRecord:
        return []


async def _places(host: str, services: Sequence[Service], transport: str, names: Names) -> Sequence[Server]:
    """Look up the hosts of SRV records, all at once; those without an address are left out."""
    found = await asyncio.gather(
        *(names.addresses(service.host) for service in services), return_exceptions=True
    )
    targets: dict[Server, None] = {}
    for service, addresses in zip(services, found, strict=True):
        if isinstance(addresses, NoRecord | OSError):
            log.warning("the server %s of %s does not resolve: %s", service.host, host, _words(addresses))
        elif isinstance(addresses, BaseException):
            raise addresses
        else:
            for address in addresses:
                target = Server(address, service.port, transport, service.host, service.priority)
                targets.setdefault(target)
    if not targets:
        hosts = ", ".join(service.host for service in services)
        raise NotFound(f"none of the servers of {host} resolves: {hosts}")
    return tuple(targets)[:MOST_TARGETS]


def _words(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
