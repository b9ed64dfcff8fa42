"""Asks name servers without holding up the one who asks: records by dnspython, addresses as the system does.

Rule: every question ends within `LONGEST_SECONDS`, with an answer, NoRecord or an OSError.
"""

import asyncio
import contextlib
import functools
import importlib
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, TypeVar

from intercom.sip.targets import NoRecord, Service, Way

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver
    from dns.resolver import Answer

T = TypeVar("T")

LONGEST_SECONDS = 2.0
DNS_PORT = 53


class NameServers:
    """The system's name servers, or those that the settings name."""

    def __init__(self, servers: Sequence[tuple[str, int]] = ()) -> None:
        """Prepare.

        Args:
            servers: addresses and ports to ask instead of those of the system.
        """
        self._servers = servers

    async def ways(self, host: str) -> list[Way]:
        """Return the NAPTR records of a host. Raises NoRecord and OSError."""
        return [
            Way(
                record.order,
                record.preference,
                record.flags.decode("ascii", "replace"),
                record.service.decode("ascii", "replace"),
                record.replacement.to_text(omit_final_dot=True),
            )
            for record in await self._ask(host, "NAPTR")
        ]

    async def services(self, name: str) -> list[Service]:
        """Return the SRV records of a name. Raises NoRecord and OSError."""
        return [
            Service(record.priority, record.weight, record.port, record.target.to_text(omit_final_dot=True))
            for record in await self._ask(name, "SRV")
        ]

    async def addresses(self, host: str) -> list[str]:
        """Return the addresses of a host, those of IPv4 first. Raises NoRecord and OSError.

        Without name servers of its own the system answers: it also knows its hosts file and mDNS.
        """
        if self._servers:
            answers = await asyncio.gather(
                self._ask(host, "A"), self._ask(host, "AAAA"), return_exceptions=True
            )
            faults = [answer for answer in answers if isinstance(answer, BaseException)]
            if len(faults) == len(answers):
                raise next((fault for fault in faults if isinstance(fault, OSError)), faults[0])
            return [
                record.address
                for answer in answers
                if not isinstance(answer, BaseException)
                for record in answer
            ]
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                found = await _in_thread(
                    lambda: socket.getaddrinfo(host, None, socket.AF_UNSPEC, socket.SOCK_DGRAM)
                )
        except UnicodeError as error:  # a label that is empty or too long
            raise NoRecord(str(error)) from None
        except TimeoutError:
            raise _silence() from None
        found.sort(key=lambda each: each[0] != socket.AF_INET)
        return list(dict.fromkeys(str(address[0]) for *_, address in found if "%" not in str(address[0])))

    async def _ask(self, name: str, kind: str) -> "Answer":
        # Imported when a name is first asked for: it costs 5 MB that a registrar with an address saves.
        if "dns.asyncresolver" not in sys.modules:
            await _in_thread(lambda: importlib.import_module("dns.asyncresolver"))
        import dns.exception
        import dns.name
        import dns.resolver

        try:
            resolver = self._resolver()
            # With its last dot: the system's search list is none of a SIP server's business.
            return await resolver.resolve(dns.name.from_text(name), kind, lifetime=LONGEST_SECONDS)
        except dns.resolver.NXDOMAIN:
            raise NoRecord("the name server knows no such name") from None
        except dns.resolver.NoAnswer:
            raise NoRecord(f"the name has no {kind} record") from None
        except dns.resolver.LifetimeTimeout:
            raise _silence() from None
        except dns.resolver.NoNameservers:
            raise OSError("no name server has a usable answer") from None
        except dns.exception.DNSException as error:
            raise OSError(str(error) or type(error).__name__) from None

    def _resolver(self) -> "Resolver":
        """Made anew each time: DHCP may have brought other name servers."""
        import dns.asyncresolver
        import dns.nameserver

        resolver = dns.asyncresolver.Resolver(configure=not self._servers)
        if self._servers:
            resolver.nameservers = [dns.nameserver.Do53Nameserver(*server) for server in self._servers]
        resolver.timeout = LONGEST_SECONDS / 2
        return resolver


def _silence() -> TimeoutError:
    return TimeoutError(f"no answer from the name server in {LONGEST_SECONDS:.0f} s")


async def _in_thread(work: Callable[[], T]) -> T:
    """Have work done that may block for long, on a thread that nobody waits for at the end."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            result = work()
        except Exception as error:
            settle = functools.partial(outcome.set_exception, error)
        else:
            settle = functools.partial(outcome.set_result, result)
        with contextlib.suppress(InvalidStateError, RuntimeError):  # given up, or the loop is closed
            settle()

    threading.Thread(target=run, name="names", daemon=True).start()
    return await asyncio.wrap_future(outcome)
