"""What the control interface can ask of the station, and what it answers."""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from intercom import __version__
from intercom.control.server import Answer, Handler, Refused
from intercom.core.actions import Dial, HangUp, RecordAccess, Release
from intercom.core.events import (
    CallRequested,
    DigitReceived,
    HangUpRequested,
    MessageReceived,
    OpenRequested,
)
from intercom.core.notices import presence_of
from intercom.core.policy import Mode
from intercom.core.state import Calling, Ending, Moving, Offered, Talking
from intercom.journal.reader import Wanted
from intercom.journal.records import KINDS
from intercom.journal.store import Journal
from intercom.runtime import Runtime, Step
from intercom.settings.schema import Settings, is_address
from intercom.sip.line import Line
from intercom.sip.outbox import Outbox

log = logging.getLogger(__name__)

BAD_REQUEST, NOT_FOUND, CONFLICT, BROKEN = 400, 404, 409, 500
MOST_RECORDS = 10_000
MOST_AT_ONCE = 1000
LARGEST_NUMBER = 2**53
STATISTICS_SECONDS = 2.0
RECORD_SECONDS = 1.0
WATCHED_STEPS = 1000


class Snapshot(Protocol):
    """The panel, as far as status needs it."""

    def snapshot(self) -> Mapping[str, Any]:
        """Return buttons, lamps and doors at this moment, ready for JSON."""


class Controls:
    """The requests of the control interface. Lives on the event loop's thread."""

    def __init__(
        self,
        settings: Settings,
        runtime: Runtime,
        line: Line,
        journal: Journal,
        panel: Snapshot | None,
        outbox: Outbox,
        counters: Counter[str],
        press: Callable[[str], Awaitable[None]],
    ) -> None:
        """Take the running parts; `press` presses a button that exists."""
        self._settings = settings
        self._runtime = runtime
        self._line = line
        self._journal = journal
        self._panel = panel
        self._outbox = outbox
        self._counters = counters
        self._press = press

    def handlers(self) -> dict[tuple[str, str], Handler]:
        """Return the handler of each request."""
        return {
            ("GET", "/status"): self.status,
            ("GET", "/log"): self.log,
            ("GET", "/log/follow"): self.follow_log,
            ("GET", "/watch"): self.watch,
            ("POST", "/press"): self.press,
            ("POST", "/call"): self.call,
            ("POST", "/hangup"): self.hang_up,
            ("POST", "/open"): self.open,
        }

    async def status(self, _: Mapping[str, Any]) -> Answer:
        """The whole status. Keys are stable; times are seconds."""
        state = self._runtime.state
        shown = presence_of(state)
        return {
            "version": __version__,
            "name": self._settings.station.name,
            "uptime_s": round(time.monotonic() - self._runtime.since, 3),
            "state": type(state.phase).__name__.lower(),
            "accounts": [asdict(account) for account in self._line.accounts],
            "call": await self._call(),
            "panel": self._panel.snapshot() if self._panel else {"buttons": {}, "lamps": {}, "doors": {}},
            "audio": {"device": self._settings.sound.device, "fault": state.faults.get("sound")},
            "presence": {"state": shown.presence.value, "note": shown.note},
            "messages": self._outbox.status,
            "faults": dict(state.faults),
            "counters": {
                name: self._counters[name]
                for name in ("calls_placed", "calls_accepted", "calls_refused", "releases")
            },
        }

    async def _call(self) -> dict[str, Any] | None:
        phase = self._runtime.state.phase
        ended = phase.ended if isinstance(phase, Ending) else phase
        if not isinstance(ended, Calling | Offered | Talking | Moving):
            return None
        try:
            async with asyncio.timeout(STATISTICS_SECONDS):
                flow = await self._line.statistics(ended.call)
        except Exception as error:  # a status without figures is better than none
            log.warning("no figures of call %d: %r", ended.call, error)
            flow = None
        since = None
        if isinstance(ended, Talking):
            talked = asyncio.get_running_loop().time() - ended.since
            since = (datetime.now(UTC) - timedelta(seconds=talked)).isoformat(timespec="seconds")
        incoming = isinstance(ended, Offered) or (isinstance(ended, Talking) and ended.direction == "in")
        others = ended.others if isinstance(ended, Talking) else ()
        return {
            "id": ended.call,
            "state": type(phase).__name__.lower(),
            "direction": "in" if incoming else "out",
            "peer": ended.peer,
            "mode": (ended.mode if isinstance(ended, Offered | Talking | Moving) else Mode.TALK).value,
            "diverted_by": ended.diverted_by if isinstance(ended, Offered | Talking) else "",
            "since": since,
            "held": isinstance(ended, Talking) and ended.held_until is not None,
            "others": [{"id": other.call, "peer": other.peer} for other in others],
            **(flow or {"codec": None, "secure": False, "rx": None, "tx": None}),
        }

    async def log(self, query: Mapping[str, Any]) -> Answer:
        """The newest records that fit, the oldest of them first; with `after`, those that follow it."""
        return {"records": await self._records(_wanted(query))}

    async def follow_log(self, query: Mapping[str, Any]) -> Answer:
        """Records as `log` shows them, and then each new one that fits."""
        wanted = _wanted(query)
        last = [record["id"] for record in await self._records(Wanted(1))]
        newest = await self._records(replace(wanted, after=None))

        async def lines() -> AsyncIterator[dict[str, Any]]:
            loop, written = asyncio.get_running_loop(), asyncio.Event()

            def told() -> None:
                loop.call_soon_threadsafe(written.set)

            unfollow = self._journal.follow(told)
            after = max([*last, *(record["id"] for record in newest)], default=0)
            try:
                for record in newest:
                    yield record
                while True:
                    written.clear()
                    while records := await self._records(replace(wanted, after=after, count=MOST_AT_ONCE)):
                        for record in records:
                            yield record
                        after = records[-1]["id"]
                    await written.wait()
            finally:
                unfollow()

        return lines()

    async def _records(self, wanted: Wanted) -> list[dict[str, Any]]:
        try:
            return await asyncio.to_thread(self._journal.records, wanted)
        except sqlite3.OperationalError:  # nothing was ever recorded
            return []
        except sqlite3.Error as error:
            raise Refused(BROKEN, f"the records cannot be read: {error}") from None

    async def watch(self, _: Mapping[str, Any]) -> Answer:
        """Every step from now on, as `{at, event, before, after, actions}`; `at` is monotonic seconds."""
        steps: asyncio.Queue[Step] = asyncio.Queue(WATCHED_STEPS)

        def put(step: Step) -> None:
            if not steps.full():  # a client that does not read loses steps, never the station
                steps.put_nowait(step)

        async def lines() -> AsyncIterator[dict[str, Any]]:
            unwatch = self._runtime.watch(put)  # here: a stream that is never begun leaves nobody behind
            try:
                yield {"watching": self._settings.station.name}
                while True:
                    yield _shown(await steps.get())
            finally:
                unwatch()

        return lines()

    async def press(self, body: Mapping[str, Any]) -> Answer:
        """Press a button; the first one if none is named."""
        names = [button.name for button in self._settings.button]
        button = body.get("button", names[0])
        if button not in names:
            raise Refused(NOT_FOUND, f"there is no button {button!r}; there is {', '.join(names)}")
        await self._press(button)
        return {"pressed": button}

    async def call(self, body: Mapping[str, Any]) -> Answer:
        """Call an address."""
        to = body.get("to")
        if not isinstance(to, str) or not is_address(to):
            raise Refused(BAD_REQUEST, "'to' must be a SIP address such as sip:flat1@site.example")
        for action in self._runtime.post(CallRequested(to)):
            if isinstance(action, Dial):
                return {"call": action.call, "to": to}
        raise Refused(CONFLICT, "the station is busy with another call")

    async def hang_up(self, _: Mapping[str, Any]) -> Answer:
        """End the call."""
        for action in self._runtime.post(HangUpRequested()):
            if isinstance(action, HangUp):
                return {"call": action.call}
        raise Refused(CONFLICT, "there is no call to hang up")

    async def open(self, body: Mapping[str, Any]) -> Answer:
        """Release a door; the only one if none is named."""
        names = [door.name for door in self._settings.door]
        door = body.get("door", names[0] if len(names) == 1 else None)
        if door not in names:
            raise Refused(NOT_FOUND, f"there is no door {door!r}; there is {', '.join(names) or 'none'}")
        for action in self._runtime.post(OpenRequested(door)):
            if isinstance(action, Release):
                await self._recorded()
                return {"door": door, "seconds": action.seconds}
            if isinstance(action, RecordAccess):
                raise Refused(CONFLICT, f"door '{door}': {action.reason}")
        raise Refused(CONFLICT, "the service is going down")

    async def _recorded(self) -> None:
        """Wait until the record is on the disk, or will not be for now: the door is open in any case."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not told.done():
                told.set_result(None)

        def done(_: bool) -> None:
            loop.call_soon_threadsafe(tell)

        self._journal.flush(done)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECORD_SECONDS):
                await told


def _wanted(query: Mapping[str, Any]) -> Wanted:
    """What a query asks of the record."""
    numbers: dict[str, int | None] = {}
    for name, default, least, most in (
        ("count", 50, 1, MOST_RECORDS),
        ("after", None, 0, LARGEST_NUMBER),
        ("since", None, 0, LARGEST_NUMBER),
        ("until", None, 0, LARGEST_NUMBER),
    ):
        text = query.get(name)
        if text is not None and not (text.isascii() and text.isdigit() and least <= int(text[:20]) <= most):
            raise Refused(BAD_REQUEST, f"{name} must be a number from {least} to {most}")
        numbers[name] = default if text is None else int(text)
    kind = query.get("kind")
    if kind is not None and kind not in KINDS.values():
        raise Refused(BAD_REQUEST, f"there is no kind {kind!r}; there is {', '.join(KINDS.values())}")
    count = numbers.pop("count")
    assert count is not None
    return Wanted(count, kind=kind, door=query.get("door"), who=query.get("who"), **numbers)


def _shown(step: Step) -> dict[str, Any]:
    event = asdict(step.event)
    if isinstance(step.event, DigitReceived):
        event["digit"] = "*"  # it may belong to a code
    elif isinstance(step.event, MessageReceived):
        event["text"] = "*"  # it may be one
    return {
        "at": step.at,
        "event": {"type": type(step.event).__name__, **event},
        "before": step.before,
        "after": step.after,
        "actions": [{"type": type(action).__name__, **asdict(action)} for action in step.actions],
    }
