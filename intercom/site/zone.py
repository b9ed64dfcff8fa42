"""The lines of the domain's DNS zone by which phones and stations find the servers of a site (RFC 3263).

Rule: a server speaks for itself alone, since it knows no other's addresses. The zone holds the lines of every
server of the site; none contradicts another.
"""

from intercom.site import server
from intercom.site.settings import SiteSettings, Transport

_TTL = 300  # seconds; so long a dead server's address is still used
_SERVICES: dict[Transport, tuple[str, str]] = {  # RFC 3263 4.1, RFC 4168 and, for TLS, sips
    "tls": ("SIPS+D2T", "_sips._tcp"),
    "tcp": ("SIP+D2T", "_sip._tcp"),
    "udp": ("SIP+D2U", "_sip._udp"),
    "sctp": ("SIP+D2S", "_sip._sctp"),
}


def zone(settings: SiteSettings) -> list[str]:
    """NAPTR, SRV and A lines for the addresses that this server listens on."""
    domain = f"{settings.site.domain}."
    hosts = {f"site-{address.replace('.', '-')}.{domain}": address for address in server.addresses(settings)}
    services = [
        (service, f"{name}.{domain}", settings.listen.port_of(transport))
        for transport, (service, name) in _SERVICES.items()
        if transport in settings.listen.transports
    ]
    return [
        *(
            f'{domain} {_TTL} IN NAPTR {10 * order} 50 "s" "{service}" "" {name}'
            for order, (service, name, _) in enumerate(services, 1)
        ),
        *(f"{name} {_TTL} IN SRV 10 50 {port} {host}" for _, name, port in services for host in hosts),
        *(f"{host} {_TTL} IN A {address}" for host, address in hosts.items()),
    ]
