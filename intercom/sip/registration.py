"""Keeps one account registered: finds its servers, asks one, goes on to the next, and never gives up.

Rule: one server is in use at a time. One that is silent or cannot be reached is left at once for the next;
one that refuses has answered, and is asked again later; none is sent more than one registration a second,
whatever it says. pjsua2's own refresh and retry are off: it waits five minutes, never comes back after a 403
or 404, and lets a registrar set the pace.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from intercom.sip.explain import explain_refusal, explain_silence
from intercom.sip.targets import NotFound, Server

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 2.0
LONGEST_RETRY_SECONDS = 60.0
LONGEST_WISH_SECONDS = 300.0
"""A server may wish to be left alone for longer (Retry-After); a bell cannot."""
SHORTEST_SECONDS = 1.0
"""Between two registrations with one server."""
RETURN_SECONDS = 4.0
"""How often a server that was away is looked for, and a name that leads nowhere is asked for."""
PATIENCE_SECONDS = 3.0
"""How long a server may be silent while there is another; twice as long each time that none has answered."""
LONGEST_PATIENCE_SECONDS = 30.0
"""pjsip itself gives up after 12 s."""
WATCH_SECONDS = {"udp": 5.0, "tcp": 30.0, "tls": 30.0}
"""How often the server in use is asked whether it is there. TCP tells its death."""
ONLY_WATCH_SECONDS = 10.0
"""The same where nobody could take its place."""
LOOK_SECONDS = 30.0
"""How often the name server, and servers that are preferred to the one in use, are asked."""
LONGEST_LOOK_SECONDS = 600.0
REQUEST_TIMEOUT = 408
SILENCE = frozenset({REQUEST_TIMEOUT, 503})
"""pjsip's words for no answer and for a transport that fails; a server that says 503 means the same."""


@dataclass(frozen=True, slots=True)
class RegistrationChanged:
    """A server's last word.

    Attributes:
        server: whose.
        status: of SIP.
        reason: in its words.
        expires_seconds: for how long it holds; 0 for none.
        retry_after_seconds: how long it wishes to be left alone; 0 if it does not say.
    """

    server: Server
    status: int
    reason: str
    expires_seconds: int
    retry_after_seconds: int = 0

    @property
    def registered(self) -> bool:
        """Whether the binding stands."""
        return 200 <= self.status < 300 and self.expires_seconds > 0


@dataclass(frozen=True, slots=True)
class ServerSilent:
    """A call got no word out of a server."""

    server: Server


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The connection to a server has ended."""

    server: Server


@dataclass(frozen=True, slots=True)
class NotTrusted:
    """A server was not spoken to, and `reason` says why: its certificate is not believed, or it has none."""

    server: Server
    reason: str


@dataclass(frozen=True, slots=True)
class _Preferred:
    """A server that is preferred to the one in use is there again."""

    server: Server
    better: Server


@dataclass(frozen=True, slots=True)
class _Back:
    """A server that was away answers again, or a name leads somewhere."""

    server: Server


News = RegistrationChanged | ServerSilent | ConnectionLost | NotTrusted
_Heard = News | _Preferred | _Back


@dataclass(frozen=True, slots=True)
class AccountNews:
    """News of one account among several, which is known by its name."""

    account: str
    news: News


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """An account as `intercom status` shows it.

    Attributes:
        name: how it is called.
        uri: its address of record.
        registrar: the registrar's URI.
        server: the server in use, or tried last; empty while none is known.
        state: `registering`, `registered` or `unregistered`.
        reason: why it is not registered.
        expires_s: seconds that the registration was granted for.
    """

    name: str
    uri: str
    registrar: str
    server: str
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


def refresh_delay(expires_seconds: int) -> float:
    """Return the seconds after which to renew a registration: with room for lost packets, without hurry."""
    ahead = 30.0 if expires_seconds > 60 else expires_seconds / 2
    return max(expires_seconds - ahead, SHORTEST_SECONDS)


@dataclass(frozen=True, slots=True)
class _End:
    """How a registration, or the attempt to have one, came to its end.

    Attributes:
        fault: why; empty if only for a better server.
        next: the servers to ask at once, the first first.
        held_seconds: how long it stood; None if it never did.
        silent: the server that says nothing, if that is why.
    """

    fault: str
    next: Sequence[Server] = ()
    held_seconds: float | None = None
    silent: Server | None = None


class Supervisor:
    """One account's registration. Lives on the event loop; `register` hands the work to the SIP thread."""

    def __init__(
        self,
        status: AccountStatus,
        *,
        find: Callable[[bool], Awaitable[Sequence[Server]]],
        admit: Callable[[Sequence[Server]], None],
        register: Callable[[Server], None],
        answers: Callable[[Server], Awaitable[bool | None]],
        quiet: Callable[[], bool],
        health: Callable[[str | None], object],
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Prepare; nothing happens before `run`.

        Args:
            status: the account's names; its state is kept up to date in `self.status`.
            find: returns the servers, the best first, told whether some are known; raises NotFound.
            admit: told whenever the servers are others than before.
            register: called with the server for each attempt.
            answers: tells whether a server is there, or None if that cannot be known now.
            quiet: tells whether there is no call, so that the server may be changed for a better one.
            health: called with a fault in words, or None once registered.
            chance: returns a number from 0 to 1.
        """
        self.status = status
        self._find = find
        self._admit = admit
        self._register = register
        self._answers = answers
        self._quiet = quiet
        self._health = health
        self._chance = chance
        self._servers: Sequence[Server] = ()
        self._name_fault: str | None = None
        self._talkative: set[Server] = set()
        self._failures = 0
        self._vain_returns = 0
        self._not_before: dict[Server, float] = {}
        self._news: asyncio.Queue[_Heard] = asyncio.Queue()

    def hear(self, news: News) -> None:
        """Take what the SIP side tells, asked or not."""
        self._news.put_nowait(news)

    async def run(self) -> None:
        """Register and stay registered until cancelled."""
        silent: Server | None = None
        told = ""
        while True:
            end = await self._round(silent)
            self._failures += 1
            delay = self._delay()
            self._health(end.fault)
            if end.fault != told or self._servers:  # a name that leads nowhere for days is said once
                log.warning("account %s: %s; next try in %.0f s", self.status.name, end.fault, delay)
            told = end.fault
            silent = await self._pause(delay, end.silent)

    def _delay(self) -> float:
        """How long to wait after a round in which nobody registered us."""
        chance = self._chance()
        ordinary = retry_delay(self._failures, chance)
        if not self._servers:
            return min(ordinary, RETURN_SECONDS)
        if all(map(self._wishes_quiet, self._servers)):
            soonest = min(self._not_before[server] for server in self._servers)
            return (soonest - _now()) * (1.0 + 0.2 * chance)
        return ordinary

    async def _round(self, silent: Server | None) -> _End:
        """Ask one server after the other until one refuses or none is left; return how the last was lost.

        Args:
            silent: the one to ask last.
        """
        if not await self._look_up():
            assert self._name_fault is not None
            self._show("", "unregistered", self._name_fault, 0)
            return _End(self._name_fault)
        left: Sequence[Server] = sorted(self._servers, key=lambda server: server == silent)
        left = [server for server in left if not self._wishes_quiet(server)] or left
        returning = False
        while True:
            server, *others = left
            end = await self._use(server, others, returning)
            if end.fault:
                self._show(str(server), "unregistered", end.fault, 0)
            if end.held_seconds is not None and end.held_seconds >= FIRST_RETRY_SECONDS:
                self._failures = 0
                if returning or end.fault:
                    self._vain_returns = 0
            elif end.held_seconds is not None:
                if self._failures:
                    return end  # servers that take a registration and drop it are not asked without end
                self._failures = 1
            elif returning:
                self._vain_returns += 1
            if not end.next:
                return end
            left, returning = end.next, not end.fault
            why = end.fault or f"{left[0]} is back"
            log.warning("account %s: %s; going on to %s", self.status.name, why, left[0])

    async def _look_up(self) -> bool:
        """Bring the servers up to date; the last good ones stay if none are found. False if none is known."""
        try:
            servers = await self._find(bool(self._servers))
        except NotFound as error:
            if self._servers and self._name_fault is None:
                log.warning("account %s: %s; going on with what was known", self.status.name, error)
            self._name_fault = str(error)
            return bool(self._servers)
        self._name_fault = None
        if set(servers) != set(self._servers):
            self._admit(servers)
        self._servers = servers
        return True

    async def _use(self, server: Server, others: Sequence[Server], returning: bool) -> _End:
        """Register with a server and hold the registration; return why it was lost or never came.

        Args:
            server: the one.
            others: whom to ask next.
            returning: whether the first of the others was left for it, and has us back if this one refuses.
        """
        await self._ask(server)
        patience = min(PATIENCE_SECONDS * 2.0 ** min(self._failures, 10), LONGEST_PATIENCE_SECONDS)
        news = await self._answer(server, patience if others else LONGEST_PATIENCE_SECONDS)
        if not isinstance(news, RegistrationChanged):
            return _End(self._lost(news), others)
        if not news.registered:
            return self._refused(news, others, returning)
        log.info("account %s: registered for %d s at %s", self.status.name, news.expires_seconds, server)
        since = _now()
        with _beside(self._watch(server), self._look(server)):
            end = await self._hold(server, news)
        return replace(end, held_seconds=_now() - since)

    async def _ask(self, server: Server) -> None:
        """Have a REGISTER sent, not before the server may be asked again."""
        await asyncio.sleep(self._not_before.get(server, 0.0) - _now())
        while not self._news.empty():  # what is left of the attempt before
            self._news.get_nowait()
        self._not_before[server] = _now() + SHORTEST_SECONDS
        self._register(server)

    def _wishes_quiet(self, server: Server) -> bool:
        """Whether the server has asked to be left alone for a while, and it is not over."""
        return self._not_before.get(server, 0.0) > _now() + SHORTEST_SECONDS

    def _refused(self, news: RegistrationChanged, others: Sequence[Server], returning: bool) -> _End:
        """What follows an answer that registers nobody: the next server if it may help."""
        wish = min(news.retry_after_seconds, LONGEST_WISH_SECONDS)
        self._not_before[news.server] = max(self._not_before.get(news.server, 0.0), _now() + wish)
        fault = self._explain(news.server, news.status, news.reason)
        silent = news.server if news.status in SILENCE else None
        return _End(fault, others if returning or silent else (), silent=silent)

    async def _hold(self, server: Server, news: _Heard) -> _End:
        """Take refreshes until the registration is lost, or a better server is there."""
        while isinstance(news, RegistrationChanged) and news.registered:
            self._show(str(server), "registered", "", news.expires_seconds)
            self._health(None)
            news = await self._renewed(server, refresh_delay(news.expires_seconds))
        others = [other for other in self._servers if other != server]
        match news:
            case _Preferred(better=better):
                return _End("", [better, server, *(other for other in others if other != better)])
            case ConnectionLost():
                return _End(self._lost(news), [server, *others])
            case ServerSilent():
                return _End(self._lost(news), others, silent=server)
            case NotTrusted():
                return _End(self._lost(news), others)
            case RegistrationChanged():
                return self._refused(news, others, returning=False)
            case _Back():
                raise AssertionError("nobody waits for a server that is in use")

    async def _renewed(self, server: Server, seconds: float) -> _Heard:
        """The next news of a server, which is asked for it when the registration needs to be renewed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._next(server)
        await self._ask(server)
        return await self._answer(server, LONGEST_PATIENCE_SECONDS)

    async def _answer(self, server: Server, seconds: float) -> _Heard:
        """The next news of a server, which is silence if there are none in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._next(server)
        return RegistrationChanged(server, REQUEST_TIMEOUT, f"nothing in {seconds:.0f} s", 0)

    async def _watch(self, server: Server) -> None:
        """Notice that the server is gone. One that never answered OPTIONS is not judged by its silence."""
        while True:
            answer = await self._answers(server)
            if answer:
                self._talkative.add(server)
            elif answer is False and server in self._talkative:
                self.hear(ServerSilent(server))
                return
            seconds = WATCH_SECONDS[server.transport]
            await asyncio.sleep(seconds if len(self._servers) > 1 else max(seconds, ONLY_WATCH_SECONDS))

    async def _look(self, server: Server) -> None:
        """Notice that the name server knows others, or that one preferred to this is there."""
        while True:
            wait = min(LOOK_SECONDS * 2.0 ** min(self._vain_returns, 10), LONGEST_LOOK_SECONDS)
            await asyncio.sleep(wait)
            await self._look_up()
            for better in self._preferred_to(server):
                if self._wishes_quiet(better):
                    continue
                if self._quiet() and await self._answers(better) and self._quiet():
                    self._news.put_nowait(_Preferred(server, better))
                    return

    def _preferred_to(self, server: Server) -> Sequence[Server]:
        listed = [known for known in self._servers if known == server]
        if not listed:  # it was taken out of service
            return self._servers
        return [other for other in self._servers if other.priority < listed[0].priority]

    async def _next(self, server: Server) -> _Heard:
        """The next news of a server; what comes late of one that was left is dropped."""
        while True:
            news = await self._news.get()
            if news.server == server:
                return news

    async def _pause(self, seconds: float, silent: Server | None) -> Server | None:
        """Wait. Ended early by a call that gets no word out of a server, and by a server that is back.

        Args:
            seconds: how long at most.
            silent: the server that says nothing, if that is why we wait.
        """
        with _beside(*([self._await_return(silent)] if silent else [])), suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    news = await self._news.get()
                    if isinstance(news, ServerSilent):
                        return news.server
                    if isinstance(news, _Back):
                        return None
        return None

    async def _await_return(self, silent: Server) -> None:
        """Notice that a server was away and is back. One that is there all the time has its reasons."""
        away: set[Server] = set()
        servers = [server for server in self._servers if not self._wishes_quiet(server)]
        while True:
            answers = await asyncio.gather(*map(self._answers, servers))
            there = {server for server, answer in zip(servers, answers, strict=True) if answer}
            if away & there:
                self._news.put_nowait(_Back(silent))
                return
            away |= {*servers} - there
            if silent in there:
                fault = explain_silence(self.status.uri, silent.label)
                self._show(str(silent), "unregistered", fault, 0)
                self._health(fault)
            if not away:
                return
            await asyncio.sleep(RETURN_SECONDS)

    def _lost(self, news: _Heard) -> str:
        if isinstance(news, ConnectionLost):
            return self._explain(news.server, 503, "the connection was lost")
        reason = news.reason if isinstance(news, NotTrusted) else "does not answer any more"
        return f"{news.server.label} {reason}"

    def _explain(self, server: Server, status: int, reason: str) -> str:
        return explain_refusal(status, reason, self.status.uri, server.label)

    def _show(self, server: str, state: str, reason: str, expires_s: int) -> None:
        self.status = replace(self.status, server=server, state=state, reason=reason, expires_s=expires_s)


def _now() -> float:
    return asyncio.get_running_loop().time()


@contextmanager
def _beside(*work: Coroutine[None, None, None]) -> Iterator[None]:
    """Have work done until the body ends."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
