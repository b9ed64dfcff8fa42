"""Writes records on a thread of its own, so that a slow card never delays a press.

Rule: what cannot be written waits in a bounded memory and is said; the bell and the doors go on, and a
record of the gap says later how many came late or not at all.
"""

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intercom.journal.database import Bounds, Broken, Database, Entry, iso, set_aside
from intercom.journal.reader import Wanted, read
from intercom.journal.records import Record, RecordBegun, RecordGap
from intercom.system.clock import clock_source, wall_milliseconds

log = logging.getLogger(__name__)

MOST_WAITING = 1000
AT_ONCE = 256
RETRY_SECONDS = 5.0
TRIM_EVERY = 100  # records
TOO_SLOW = "the disk is too slow"
_DAMAGED = {11, 26}  # SQLITE_CORRUPT, SQLITE_NOTADB: waiting does not help

Done = Callable[[bool], None]


@dataclass(slots=True)
class _Gap:
    """Since when, why, and how many records were given up."""

    since: int
    reason: str
    lost: int = 0


class Journal:
    """An append-only record, chained and bounded."""

    def __init__(
        self, file: Path, health: Callable[[str | None], None], bounds: Bounds | None = None
    ) -> None:
        """Start the writing thread.

        Args:
            file: the database; its folder is made when missing.
            health: told on the writing thread why records cannot be kept, and None once they can again.
            bounds: how much is kept; the usual if None.
        """
        self.file = file
        self._health = health
        self._bounds = bounds or Bounds()
        self._fault: str | None = None
        self._gap: _Gap | None = None
        self._database: Database | None = None
        self._begun: RecordBegun | None = None
        self._trimmed: int | None = None
        self._changed = threading.Condition()
        self._waiting: deque[Entry | Done] = deque()
        self._followers: set[Callable[[], None]] = set()
        self._closing = self._last_try = self._hopeless = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def append(self, record: Record) -> None:
        """Keep a record under the present time. Never blocks."""
        entry = Entry(wall_milliseconds(), clock_source(), record)
        with self._changed:
            self._waiting.append(entry)
            self._give_up_oldest()
            self._changed.notify()

    def flush(self, done: Done) -> None:
        """Have the fate of all that was appended before told, on the writing thread. Never blocks.

        Args:
            done: told True once it is on the disk, False if it waits in memory.
        """
        with self._changed:
            self._waiting.append(done)
            self._changed.notify()

    def close(self) -> None:
        """Write what is left, or log it, and end the thread; blocks for the disk."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def records(self, wanted: Wanted) -> list[dict[str, Any]]:
        """Return records, the oldest of them first. Blocks; for any thread.

        Raises:
            sqlite3.Error: they cannot be read, or nothing was ever recorded.
        """
        return read(self.file, wanted)

    def follow(self, follower: Callable[[], None]) -> Callable[[], None]:
        """Have it told on the writing thread that there are new records; returns what ends it."""
        self._followers.add(follower)
        return lambda: self._followers.discard(follower)

    def _give_up_oldest(self) -> None:
        while len(self._waiting) > MOST_WAITING:
            oldest = self._waiting.popleft()
            if isinstance(oldest, Entry):
                if self._gap is None:
                    self._gap = _Gap(oldest.at, TOO_SLOW)
                self._gap.lost += 1
            else:
                oldest(False)

    # The writing thread

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            entries = [each for each in batch if isinstance(each, Entry)]
            if entries:
                try:
                    self._write(entries)
                except Exception as error:  # the thread must live: whatever it is, it is said and tried again
                    self._put_back(entries, error)
                else:
                    self._say(None)
                    self._trim()
            for each in batch:
                if not isinstance(each, Entry):
                    each(self._fault is None)
        self._close()

    def _next(self) -> list[Entry | Done] | None:
        """Wait for records; None when all is done. Those that failed are tried again after a while."""
        with self._changed:
            if self._hopeless:
                return None
            if self._fault is None:
                self._changed.wait_for(lambda: self._closing or self._waiting)
            else:
                known = len(self._waiting)
                self._changed.wait_for(lambda: self._closing or len(self._waiting) != known, RETRY_SECONDS)
            if self._closing and not self._waiting:
                return None
            self._last_try = self._closing
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), AT_ONCE))]

    def _write(self, entries: list[Entry]) -> None:
        with self._changed:
            gap, self._gap = self._gap, None
            late = sum(isinstance(each, Entry) and each.late for each in (*entries, *self._waiting))
        try:
            try:
                self._add(entries, gap, late)
            except (Broken, sqlite3.Error) as error:
                if isinstance(error, sqlite3.Error) and not _is_damage(error):
                    raise
                self._set_aside(error)
                self._add(entries, gap, late)
        except BaseException:
            if gap is not None:
                with self._changed:  # others may have been given up meanwhile
                    gap.lost += self._gap.lost if self._gap is not None else 0
                    self._gap = gap
            raise
        self._begun = None
        for follower in tuple(self._followers):
            follower()

    def _add(self, entries: list[Entry], gap: _Gap | None, late: int) -> None:
        if self._database is None:
            self._database = Database(self.file)
            self._trimmed = None
        now, clock = wall_milliseconds(), clock_source()
        before: list[Record] = [] if self._begun is None else [self._begun]
        if gap is not None:
            before.append(RecordGap(iso(gap.since), iso(now), late, gap.lost, gap.reason))
        self._database.add([*(Entry(now, clock, record) for record in before), *entries])

    def _set_aside(self, error: Exception) -> None:
        self._close()
        aside = set_aside(self.file)
        log.error("the records in %s cannot be continued: %s; they are in %s now", self.file, error, aside)
        self._begun = RecordBegun(str(error), aside.name)

    def _put_back(self, entries: list[Entry], error: Exception) -> None:
        for entry in entries:
            if not entry.told:
                log.error("not recorded yet: %s %s: %s", iso(entry.at), entry.record, error)
                entry.told = True
        self._close()
        with self._changed:
            if self._gap is None:
                self._gap = _Gap(entries[0].at, str(error))
            self._waiting.extendleft(reversed(entries))
            self._give_up_oldest()
            for each in self._waiting:
                if isinstance(each, Entry):
                    each.late = True
            self._hopeless = self._last_try
        self._say(f"records cannot be written to {self.file}: {error}")

    def _trim(self) -> None:
        """Drop what is out of bounds: all of it after the start, a little now and then later."""
        database = self._database
        assert database is not None, "something was just written"
        newest = database.newest.number
        if self._trimmed is not None and newest - self._trimmed < TRIM_EVERY:
            return
        try:
            while database.trim(self._bounds, wall_milliseconds(), clock_source()) and self._trimmed is None:
                pass
            self._trimmed = newest
        except sqlite3.Error as error:
            log.warning("old records are not dropped from %s: %s", self.file, error)
            self._close()

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _say(self, fault: str | None) -> None:
        if fault != self._fault:
            self._fault = fault
            self._health(fault)


def _is_damage(error: sqlite3.Error) -> bool:
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _DAMAGED
