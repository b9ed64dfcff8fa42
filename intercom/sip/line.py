"""The line as the rest of the program sees it: verbs in, events out, nothing of pjsua2.

Rule: every verb returns at once and may be called only on the event loop's thread; what becomes of it is
told later by an event that carries the same call number.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from intercom.core.actions import ShowPresence
from intercom.core.events import (
    CallEnded,
    CallOffered,
    CallReplaced,
    CallTransferred,
    Event,
    HealthChanged,
)
from intercom.core.guide import Hearing, Tone
from intercom.sip.config import AccountConfig, LineConfig
from intercom.sip.names import NameServers
from intercom.sip.outbox import MessageAnswered
from intercom.sip.probe import is_there
from intercom.sip.registration import AccountNews, AccountStatus, Supervisor
from intercom.sip.relays import Relay, follow
from intercom.sip.targets import Server, find
from intercom.sip.worker import Later, Worker

if TYPE_CHECKING:
    from intercom.sip.engine import Engine

log = logging.getLogger(__name__)

T = TypeVar("T")
STOP_SECONDS = 2.5
SILENCE = 408


class Line:
    """A telephone line with some accounts."""

    def __init__(
        self, config: LineConfig, post: Callable[[Event], object], died: Callable[[str], None]
    ) -> None:
        """Prepare; nothing happens before `start`. Needs a running event loop.

        Args:
            config: what to build.
            post: takes every event, on the event loop's thread.
            died: told, on that thread, that the SIP thread has ended by an error.
        """
        self._config = config
        self._post = post
        self._died = died
        self._loop = asyncio.get_running_loop()
        self._worker: Worker[Engine] = Worker(self._build, self._tell_death)
        self._calls: set[int] = set()
        self._messages: dict[int, asyncio.Future[tuple[int, str]]] = {}
        self._written = 0
        self._names = NameServers(config.name_servers)
        self._supervisors = {account.name: self._supervisor(account) for account in config.accounts}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the SIP thread and register."""
        self._worker.start()
        self._tasks = [
            asyncio.create_task(supervisor.run(), name=f"registration of {name}")
            for name, supervisor in self._supervisors.items()
        ]
        self._tasks += [
            asyncio.create_task(self._follow(relay), name=f"{relay.kind} server")
            for relay in self._config.nat.relays
        ]

    async def stop(self) -> None:
        """Hang up, un-register and end the SIP thread; two and a half seconds at most."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not await asyncio.to_thread(self._worker.stop, STOP_SECONDS):
            log.error("the SIP thread did not end in %.1f s", STOP_SECONDS)

    def dial(self, call: int, to: str, via: str = "") -> None:
        """Place a call, through a proxy if one is named.

        It goes by the first account that is registered; by any of them if none is.
        """
        self._calls.add(call)
        names = self._ways()
        self._worker.submit(lambda engine: engine.dial(call, to, via, names))

    def respond(self, call: int, status: int) -> None:
        """Answer an offered call with a SIP status."""
        self._worker.submit(lambda engine: engine.respond(call, status))

    def hang_up(self, call: int) -> None:
        """End a call, whatever its state."""
        self._worker.submit(lambda engine: engine.end(call))

    def mix(self, calls: tuple[int, ...]) -> None:
        """Let calls hear each other, beside the door."""
        self._worker.submit(lambda engine: engine.mix(calls))

    def warn(self, calls: tuple[int, ...]) -> None:
        """Play the warning tone once, at the door and into calls."""
        self._worker.submit(lambda engine: engine.warn(calls))

    def connect(self, call: int, hearing: Hearing) -> None:
        """Join a call's sound to the door so far and no further, until it is hung up or over."""
        self._worker.submit(lambda engine: engine.connect(call, hearing))

    def play(self, tone: Tone) -> None:
        """Play a tone at the door in place of the one before."""
        self._worker.submit(lambda engine: engine.play(tone))

    async def write(self, to: str, text: str) -> tuple[int, str]:
        """Send a line of text to somebody, once; returns the final SIP status and its reason.

        A server that is silent, or has a fault, leaves it to the next account.
        """
        status, reason = 0, ""
        for name in self._ways():
            status, reason = await self._write_by(name, to, text)
            if status != SILENCE and not 500 <= status < 600:
                break
        return status, reason

    def show(self, presence: ShowPresence) -> None:
        """Have those who watch the station told how it is."""
        self._worker.submit(lambda engine: engine.show(presence))

    async def statistics(self, call: int) -> dict[str, Any] | None:
        """Ask for the codec and packet counts of a call; None while no media flows."""
        return await self._ask(lambda engine: engine.statistics(call))

    async def ping(self) -> None:
        """Return once the SIP thread has done a job: it is alive and not blocked."""
        await self._ask(lambda engine: None)

    @property
    def accounts(self) -> Sequence[AccountStatus]:
        """The registration of each account now, in order of preference."""
        return [supervisor.status for supervisor in self._supervisors.values()]

    def _ways(self) -> Sequence[str]:
        """By which accounts to go, the first first: those that are registered, or any."""
        registered = [status.name for status in self.accounts if status.state == "registered"]
        return registered or list(self._supervisors)

    async def _write_by(self, name: str, to: str, text: str) -> tuple[int, str]:
        self._written += 1
        number = self._written
        self._messages[number] = self._loop.create_future()
        self._worker.submit(lambda engine: engine.write(number, to, text, name))
        try:
            return await self._messages[number]
        finally:
            del self._messages[number]
            self._worker.submit(lambda engine: engine.forget(number))

    async def _ask(self, question: "Callable[[Engine], T]") -> T:
        answer: asyncio.Future[T] = self._loop.create_future()

        def settle(result: T) -> None:
            if not answer.done():
                answer.set_result(result)

        def fail(error: Exception) -> None:
            if not answer.done():
                answer.set_exception(error)

        def put(engine: "Engine") -> None:
            try:
                self._call_soon(settle, question(engine))
            except Exception as error:
                self._call_soon(fail, error)
                raise

        self._worker.submit(put)
        return await answer

    def _build(self, later: Later) -> "Engine":
        # Imported here, on the thread that owns it, while the event loop takes the pins.
        from intercom.sip.engine import Engine

        return Engine(self._config, self._tell, later)

    def _tell(self, news: Event | AccountNews | MessageAnswered) -> None:
        self._call_soon(self._received, news)

    def _tell_death(self, reason: str) -> None:
        self._call_soon(self._died, reason)

    def _call_soon(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(function, *arguments)

    def _received(self, news: Event | AccountNews | MessageAnswered) -> None:
        match news:
            case AccountNews(name, said):
                self._supervisors[name].hear(said)
                return
            case MessageAnswered(number, status, reason):
                waiting = self._messages.get(number)
                if waiting is not None and not waiting.done():
                    waiting.set_result((status, reason))
                return
            case CallOffered(call) | CallTransferred(new=call) | CallReplaced(new=call):
                self._calls.add(call)
            case CallEnded(call):
                self._calls.discard(call)
        self._post(news)

    async def _follow(self, relay: Relay) -> None:
        """Use a STUN or TURN server while it answers."""
        await follow(
            relay,
            self._names,
            use=lambda place: self._worker.submit(lambda engine: engine.use(relay.kind, place)),
            health=lambda fault: self._post(HealthChanged(relay.kind, fault)),
        )

    def _supervisor(self, account: AccountConfig) -> Supervisor:
        async def look_up(known: bool) -> Sequence[Server]:
            return await find(
                account.host, account.port, account.transport, self._names, random.random, known=known
            )

        async def answers(server: Server) -> bool | None:
            return await is_there(
                server.address, server.port, server.transport, account.registrar, account.uri, account.trust
            )

        name = account.name
        return Supervisor(
            AccountStatus(name, account.uri, account.registrar, "", "registering", "", 0),
            find=look_up,
            admit=lambda servers: self._worker.submit(lambda engine: engine.serve(name, servers)),
            register=lambda server: self._worker.submit(lambda engine: engine.register(name, server)),
            answers=answers,
            quiet=lambda: not self._calls,
            health=lambda fault: self._post(HealthChanged(f"account {name}", fault)),
        )
