"""Refusals in the log: what was refused is told, but nobody outside can fill the log with it.

Rule: one line at once, then none for a minute; what was refused meanwhile is counted in the next.
"""

import logging
import time
from collections.abc import Callable

from intercom.sip.wire import LONGEST

log = logging.getLogger(__name__)

QUIET_SECONDS = 60.0
"""How long refusals are only counted after they were told."""


class Tally:
    """The refusals of one kind."""

    def __init__(self, kind: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin at none.

        Args:
            kind: what is refused, such as "call".
            clock: seconds that only go forward.
        """
        self._kind = kind
        self._clock = clock
        self._count = 0
        self._quiet_until = 0.0

    def add(self, named: list[str], reason: object) -> None:
        """Count one refusal, and log it if that is its turn. Belongs to one thread.

        Args:
            named: who is refused, in all the ways in which he names himself.
            reason: why.
        """
        self._count += 1
        if self._clock() < self._quiet_until:
            return
        what = f"a {self._kind}" if self._count == 1 else f"{self._count} {self._kind}s, the last one"
        log.info("refused %s from %s: %s", what, ", ".join(named)[:LONGEST], reason)
        self._count, self._quiet_until = 0, self._clock() + QUIET_SECONDS
