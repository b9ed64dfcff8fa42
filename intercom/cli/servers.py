"""Where the registrar's name leads, and whether anybody is there: two steps of `intercom check`."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from intercom.cli.step import Found, Step, words
from intercom.settings.schema import Account, Network
from intercom.sip.certificate import Certificate, Trust
from intercom.sip.config import trust_of
from intercom.sip.names import NameServers
from intercom.sip.probe import Distrusted, NotSip, ask_options
from intercom.sip.relays import Absent, Nat, look
from intercom.sip.targets import NotFound, Server, find, is_numeric, service_name

NEAR_DAYS = 14


def name(account: Account, network: Network) -> Found[Sequence[Server]]:
    """Look the registrar's servers up, as the service does; one entry for each, the best first."""
    host, started = account.host, time.monotonic()
    names = NameServers(network.servers)
    try:
        found = asyncio.run(
            find(host, account.port, account.named_transport, names, random.random, known=False)
        )
    except NotFound as error:
        advice = f"correct account.registrar, or the name server: getent hosts {host}"
        yield Step("name", False, str(error).removeprefix("the name "), advice)
        return ()
    took = f"({(time.monotonic() - started) * 1000:.0f} ms)"
    if is_numeric(host):
        yield Step("name", True, f"{host} is an address, no name is looked up")
    elif any(server.name != host for server in found):
        for number, server in enumerate(found, 1):
            service = service_name(host, server.transport)
            detail = f"{service}: number {number} is {server}, priority {server.priority} {took}"
            yield Step("name", True, detail)
    else:
        yield Step("name", True, f"{host} is {', '.join(server.address for server in found)} {took}")
    return found


def registrar(account: Account, found: Sequence[Server], folder: Path) -> Found[bool]:
    """Ask each server whether it is there; returns whether any of them is.

    Args:
        account: from the settings.
        found: its servers.
        folder: of the settings file.
    """
    there = False
    trust = trust_of(account, folder)
    for server in found:
        step = _ask(account, server, trust)
        there = there or bool(step.ok)
        yield step
    return there


def relays(nat: Nat, network: Network) -> Iterator[Step]:
    """Ask the STUN and TURN servers, as the service does."""
    names = NameServers(network.servers)
    for relay in nat.relays:
        place = f"the {relay.kind} server {relay.host}:{relay.port}"
        try:
            found = asyncio.run(look(relay, names))
        except Absent as absent:
            advice = f"correct network.{relay.kind.lower()}, or start the server; calls go without it"
            yield Step("relay", False, f"{place} {absent}", advice)
        else:
            said = "and takes the password" if relay.kind == "TURN" else "with our address"
            yield Step("relay", True, f"{place} answers at {found} {said}")


def _ask(account: Account, server: Server, trust: Trust | None) -> Step:
    place = f"{server} over {server.transport.upper()}"
    other = {"udp": "tcp", "tcp": "udp", "tls": "tcp"}[server.transport]
    try:
        answer = asyncio.run(
            ask_options(server.address, server.port, server.transport, account.registrar, account.uri, trust)
        )
    except Distrusted as error:
        detail, advice = f"{place}: it {error}", "is it a TLS port (5061), and does it know TLS 1.2 or later?"
        if error.certificate:
            detail += f"; {_shown(error.certificate)}"
            advice = (
                "correct the server's certificate, or name its authority in account.ca_file, "
                "or this one in account.fingerprint"
            )
    except ConnectionRefusedError:
        detail = f"{place}: the computer is there, but nobody listens on this port"
        advice = f"start the registrar, correct the port in account.registrar, or try ;transport={other}"
    except TimeoutError:
        detail = f"{place}: no answer to OPTIONS in 3 s"
        advice = f"is it switched on, is the address right, does a firewall stop us? ping {server.address}"
    except NotSip as error:
        detail = f"{place}: answers, but not in SIP: {error}"
        advice = "correct the port in account.registrar"
    except OSError as error:
        detail = f"{place}: cannot be reached: {words(error)}"
        advice = "look at cable, address and route: ip address, ip route"
    else:
        said = f"{answer.status} {answer.reason} in {answer.seconds * 1000:.0f} ms"
        software = answer.software or "software that does not name itself"
        detail = f"{place}: OPTIONS is answered with {said}, by {software}"
        if trust is not None:
            detail += f"; {_shown(answer.certificate)}"
        return Step("registrar", True, detail, _end(answer.certificate, trust))
    return Step("registrar", False, detail, advice)


def _shown(der: bytes) -> str:
    try:
        certificate = Certificate.read(der)
    except ValueError:
        return "its certificate cannot be read"
    return (
        f"its certificate is of '{certificate.subject}' by '{certificate.issuer}', "
        f"ends on {certificate.ends:%Y-%m-%d}, SHA-256 {certificate.fingerprint}"
    )


def _end(der: bytes, trust: Trust | None) -> str:
    """A warning while there is time. A certificate that is pinned never ends."""
    if trust is None or trust.fingerprint:
        return ""
    try:
        days = (Certificate.read(der).ends - datetime.now(UTC)).days
    except ValueError:
        return ""
    return f"have it renewed: the station refuses it in {days} days" if days < NEAR_DAYS else ""
