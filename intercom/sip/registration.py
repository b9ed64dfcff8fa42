"""Keeps one account registered: finds the registrar, asks, explains refusals, and never gives up.

pjsua2's own retry is off: it waits five minutes and never comes back after a 403 or 404.
"""

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from intercom.sip.explain import explain_refusal

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 2.0
LONGEST_RETRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RegistrationChanged:
    """The registrar's last word: its SIP status and reason, and for how many seconds it holds (0: none)."""

    status: int
    reason: str
    expires_seconds: int

    @property
    def registered(self) -> bool:
        """Whether the binding stands."""
        return 200 <= self.status < 300 and self.expires_seconds > 0


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """An account as `intercom status` shows it."""

    name: str
    uri: str
    registrar: str
    state: str
    reason: str
    expires_s: int


def retry_delay(failures: int, chance: float) -> float:
    """Return the seconds to wait after so many failures in a row: 2, 4, 8 … 60, each ± 20 %.

    Args:
        failures: 1 after the first failure.
        chance: a number from 0 to 1 that spreads many stations over time after a common power cut.
    """
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 10), LONGEST_RETRY_SECONDS) * (
        0.8 + 0.4 * chance
    )


async def resolve(host: str, port: int) -> str:
    """Return a numeric IPv4 address of a host, without blocking the caller. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM)
    return str(found[0][4][0])


class Supervisor:
    """One account's registration. Lives on the event loop; `register` hands the work to the SIP thread."""

    def __init__(
        self,
        status: AccountStatus,
        host: str,
        port: int,
        register: Callable[[str], None],
        health: Callable[[str | None], object],
        *,
        resolve: Callable[[str, int], Awaitable[str]] = resolve,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Prepare; nothing happens before `run`.

        Args:
            status: the account's names; its state is kept up to date in `self.status`.
            host: the registrar's name or address.
            port: its port.
            register: called with the registrar's numeric address for each attempt.
            health: called with a fault in words, or None once registered.
            resolve: finds the numeric address.
            chance: returns a number from 0 to 1.
        """
        self.status = status
        self._host = host
        self._port = port
        self._register = register
        self._health = health
        self._resolve = resolve
        self._chance = chance
        self._answers: asyncio.Queue[RegistrationChanged] = asyncio.Queue()

    def answered(self, answer: RegistrationChanged) -> None:
        """Take the registrar's answer, also one that comes unasked when a refresh fails."""
        self._answers.put_nowait(answer)

    async def run(self) -> None:
        """Register and stay registered until cancelled."""
        failures = 0
        while True:
            fault = await self._attempt()
            if self.status.state == "registered":
                failures = 0
            failures += 1
            delay = retry_delay(failures, self._chance())
            self._show("unregistered", fault, 0)
            self._health(fault)
            log.warning("account %s: %s; next try in %.0f s", self.status.name, fault, delay)
            await asyncio.sleep(delay)

    async def _attempt(self) -> str:
        """Register and hold the registration; return why it was lost or never came."""
        try:
            address = await self._resolve(self._host, self._port)
        except (OSError, UnicodeError) as error:  # the second: a label that is empty or too long
            return f"the name {self._host} does not resolve: {getattr(error, 'strerror', None) or error}"
        while not self._answers.empty():  # what is left of the attempt before
            self._answers.get_nowait()
        self._register(address)
        while True:
            answer = await self._answers.get()
            if not answer.registered:
                return explain_refusal(
                    answer.status, answer.reason, self.status.uri, f"{self._host}:{self._port}"
                )
            if self.status.state != "registered":
                log.info("account %s: registered for %d s", self.status.name, answer.expires_seconds)
            self._show("registered", "", answer.expires_seconds)
            self._health(None)

    def _show(self, state: str, reason: str, expires_s: int) -> None:
        names = self.status
        self.status = AccountStatus(names.name, names.uri, names.registrar, state, reason, expires_s)
