"""Messages on their way to people: each is tried a few times and never holds anything up.

Rule: what cannot be delivered is counted and said; it is kept nowhere, since old news at a door is none.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from intercom.sip.wire import printable

log = logging.getLogger(__name__)

RETRY_SECONDS = (5.0, 30.0)
"""How long to wait before the second and the third attempt."""
ANSWER_SECONDS = 30.0
"""When no answer comes any more: pjsip gives up after 12 s, and may send twice, for the password."""
MOST_A_MINUTE = 30
LONGEST_TEXT = 500
TEMPORARY = frozenset({408, 430, 480, 503, 504, 500, 502})

Send = Callable[[str, str], Awaitable[tuple[int, str]]]


@dataclass(frozen=True, slots=True)
class MessageAnswered:
    """The last word on a message that was sent, under the number that it was given."""

    number: int
    status: int
    reason: str


class Outbox:
    """Sends messages, several at a time. Lives on the event loop."""

    def __init__(
        self,
        name: str,
        send: Send,
        clock: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        """Prepare.

        Args:
            name: of the station; every message begins with it.
            send: sends a line to an address once; returns the final SIP status and its reason.
            clock: tells the local time.
        """
        self._name = name
        self._send = send
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun: deque[float] = deque(maxlen=MOST_A_MINUTE)
        self._sent = 0
        self._failed = 0
        self._numbers = itertools.count()
        self._faults: dict[str, tuple[int, str]] = {}

    def put(self, to: str, text: str) -> None:
        """Send a line to somebody, with the station's name and the time. Returns at once."""
        now, number = asyncio.get_running_loop().time(), next(self._numbers)
        if len(self._begun) == MOST_A_MINUTE and now - self._begun[0] < 60.0:
            self._fail(number, to, f"more than {MOST_A_MINUTE} messages in a minute")
            return
        self._begun.append(now)
        line = printable(f"{self._name}, {self._clock():%Y-%m-%d %H:%M}: {text}", LONGEST_TEXT)
        task = asyncio.create_task(self._deliver(number, to, line), name="message")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()

    @property
    def status(self) -> dict[str, Any]:
        """How many were sent, were lost and are under way, and who did not get his last, with the reason."""
        return {
            "sent": self._sent,
            "failed": self._failed,
            "waiting": len(self._tasks),
            "faults": {to: reason for to, (_, reason) in self._faults.items()},
        }

    async def _deliver(self, number: int, to: str, line: str) -> None:
        for pause in (*RETRY_SECONDS, None):
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    status, reason = await self._send(to, line)
            except TimeoutError:
                status, reason = 408, "no answer"
            if 200 <= status < 300:
                self._sent += 1
                if to in self._faults and self._faults[to][0] < number:
                    del self._faults[to]
                return
            if pause is None or status not in TEMPORARY:
                break
            log.info("message to %s: %d %s; next try in %.0f s", to, status, reason, pause)
            await asyncio.sleep(pause)
        self._fail(number, to, f"{status} {reason}")

    def _fail(self, number: int, to: str, reason: str) -> None:
        self._failed += 1
        if to not in self._faults or self._faults[to][1] != reason:
            log.warning("message to %s not delivered: %s", to, reason)
        self._faults[to] = number, reason
