"""Writes records to SQLite on a thread of its own, so that a slow card never delays a press.

Rule: what cannot be written is said, and the bell goes on.
"""

import json
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from intercom.core.actions import RecordAccess, RecordCall, RecordRing

log = logging.getLogger(__name__)

Record = RecordCall | RecordRing | RecordAccess
LARGEST_ROWS = 100_000
_SCHEMA = "CREATE TABLE IF NOT EXISTS record (id INTEGER PRIMARY KEY, at TEXT, kind TEXT, data TEXT)"
_KINDS = {RecordCall: "call", RecordRing: "ring", RecordAccess: "access"}


class Journal:
    """An append-only record, bounded to its newest hundred thousand entries."""

    def __init__(self, file: Path, health: Callable[[str | None], None]) -> None:
        """Start the writing thread.

        Args:
            file: the database; its folder is made when missing.
            health: told on the writing thread why records cannot be kept, and None once they can again.
        """
        self.file = file
        self._health = health
        self._fault: str | None = None
        self._records: queue.SimpleQueue[tuple[str, Record] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def append(self, record: Record) -> None:
        """Keep a record under the present time. Never blocks."""
        self._records.put((datetime.now(UTC).isoformat(timespec="milliseconds"), record))

    def close(self) -> None:
        """Write what is left and end the thread; blocks for the disk."""
        self._records.put(None)
        self._thread.join()

    def newest(self, count: int) -> list[dict[str, Any]]:
        """Return the newest records, the oldest of them first. Blocks; for any thread.

        Raises:
            sqlite3.Error: they cannot be read, or nothing was ever recorded.
        """
        with closing(sqlite3.connect(f"{self.file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute(
                "SELECT id, at, kind, data FROM record ORDER BY id DESC LIMIT ?", (count,)
            )
            return [{"id": n, "at": at, "kind": kind, **json.loads(data)} for n, at, kind, data in rows][::-1]

    def _run(self) -> None:
        database: sqlite3.Connection | None = None
        while (entry := self._records.get()) is not None:
            at, record = entry
            try:
                if database is None:
                    database = self._open()
                self._write(database, at, record)
            except (OSError, sqlite3.Error) as error:
                log.error("not recorded: %s %s: %s", at, record, error)  # noqa: TRY400
                self._say(f"records cannot be written to {self.file}: {error}")
            else:
                self._say(None)
        if database is not None:
            database.close()

    def _open(self) -> sqlite3.Connection:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.file)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        # Small: the defaults take 3 MB of memory, most of it at the first checkpoint.
        database.execute("PRAGMA wal_autocheckpoint=64")
        database.execute("PRAGMA cache_size=-128")
        database.execute(_SCHEMA)
        return database

    def _write(self, database: sqlite3.Connection, at: str, record: Record) -> None:
        with database:
            cursor = database.execute(
                "INSERT INTO record (at, kind, data) VALUES (?, ?, ?)",
                (at, _KINDS[type(record)], json.dumps(asdict(record))),
            )
            database.execute("DELETE FROM record WHERE id <= ?", ((cursor.lastrowid or 0) - LARGEST_ROWS,))

    def _say(self, fault: str | None) -> None:
        if fault != self._fault:
            self._fault = fault
            self._health(fault)
