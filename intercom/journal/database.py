"""One SQLite file that only grows at one end and shrinks at the other. For one thread at a time.

Rule: triggers refuse what is not an appended record or a sealed drop, and a file whose ends do not hold is
set aside as it is: nothing is ever built on it.
"""

import hmac
import json
import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from intercom.journal.chain import DROPPED, NEWEST, Seal, content, link
from intercom.journal.records import KINDS, SURE, Record, RecordSettings
from intercom.system.clock import FREE

SHAPE = 2  # PRAGMA user_version; the first shape had none and no hashes
KEY_BYTES = 32
MOST_ASIDE = 9
DROP_AT_ONCE = 1000
DAY = 86_400_000  # milliseconds
MEGABYTE = 1_000_000

_TABLES = """
CREATE TABLE record (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, clock TEXT NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;
CREATE INDEX record_at ON record (at);
CREATE INDEX record_settings ON record (id) WHERE kind = 'settings';
CREATE TABLE seal (
    name TEXT PRIMARY KEY, number INTEGER NOT NULL, hash BLOB NOT NULL, data TEXT NOT NULL, mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER record_fixed BEFORE UPDATE ON record
    BEGIN SELECT RAISE(ABORT, 'a record is never changed'); END;
CREATE TRIGGER record_kept BEFORE DELETE ON record
    WHEN OLD.id > (SELECT number FROM seal WHERE name = 'dropped')
    BEGIN SELECT RAISE(ABORT, 'a record is never removed'); END;
CREATE TRIGGER record_next BEFORE INSERT ON record
    WHEN NEW.id <= (SELECT number FROM seal WHERE name = 'newest')
    BEGIN SELECT RAISE(ABORT, 'a record is only ever appended'); END;
CREATE TRIGGER seal_kept BEFORE DELETE ON seal
    BEGIN SELECT RAISE(ABORT, 'a seal is never removed'); END;
CREATE TRIGGER seal_onward BEFORE UPDATE ON seal WHEN NEW.number < OLD.number OR NEW.name <> OLD.name
    BEGIN SELECT RAISE(ABORT, 'a seal never goes back'); END;
"""


class Broken(Exception):
    """The file cannot be continued; the reason is one line."""


@dataclass(slots=True)
class Entry:
    """A record with the time it belongs to: milliseconds since 1970, and how far the clock is believed.

    `told` means that it could not be written and was logged, `late` that it waited in memory meanwhile,
    `tried` is the number and the hash it was to have.
    """

    at: int
    clock: str
    record: Record
    told: bool = False
    late: bool = False
    tried: tuple[int, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept."""

    days: int = 365
    megabytes: int = 100


def key_file(file: Path) -> Path:
    """Where the device's key is: beside the database."""
    return file.with_name("journal.key")


def iso(at: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")


def settings_digest(key: bytes, text: bytes) -> str:
    """A keyed digest of settings: without the key nobody can try door codes against it."""
    return hmac.digest(key, b"settings\n" + text, "sha256").hex()[:16]


class Database:
    """The open file, its key, and the number and hash that the next record follows."""

    def __init__(self, file: Path) -> None:
        """Open the file, or make it with its key. Blocks on the disk.

        Raises:
            Broken: it is of another shape, or its ends do not hold.
            OSError, sqlite3.Error: it cannot be used now.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        self.key = _device_key(key_file(file))
        self._database = sqlite3.connect(file, isolation_level=None)
        try:
            self._prepare()
            self.newest, self.dropped = self._ends()
        except BaseException:
            self._database.close()
            raise
        self._settings: str | None = None

    def _prepare(self) -> None:
        run = self._database.execute
        run("PRAGMA journal_mode=WAL")
        # Small: the defaults take 3 MB of memory, most of it at the first checkpoint.
        run("PRAGMA wal_autocheckpoint=64")
        run("PRAGMA cache_size=-128")
        run("PRAGMA synchronous=FULL")
        (shape,) = run("PRAGMA user_version").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if shape == SHAPE:
            return
        if tables:
            raise Broken(
                "it is of an older shape, without hashes" if shape == 0 else f"it is of shape {shape}"
            )
        begin = os.urandom(32)
        with self._transaction():
            for statement in _statements(_TABLES):
                run(statement)
            for seal in (Seal(DROPPED, 0, begin, "{}"), Seal(NEWEST, 0, begin, "")):
                run(
                    "INSERT INTO seal VALUES (?, ?, ?, ?, ?)",
                    (seal.name, seal.number, seal.hash, seal.data, seal.mac(self.key)),
                )
            run(f"PRAGMA user_version={SHAPE}")

    def _ends(self) -> tuple[Seal, Seal]:
        seals = {}
        for name, number, digest, data, mac in self._database.execute("SELECT * FROM seal"):
            seals[name] = Seal(name, number, digest, data)
            if not seals[name].is_signed(self.key, mac):
                raise Broken(f"the seal of its {name} record is not of this device's key")
        if seals.keys() != {NEWEST, DROPPED}:
            raise Broken("a seal is missing")
        newest, dropped = seals[NEWEST], seals[DROPPED]
        rows = self._database.execute(
            "SELECT id, at, clock, kind, data, hash FROM record ORDER BY id DESC LIMIT 2"
        ).fetchall()
        before = rows[1][-1] if len(rows) == 2 else dropped.hash
        if newest.number != (rows[0][0] if rows else dropped.number):
            raise Broken(f"its newest record is not number {newest.number}")
        if rows:
            number, *columns, _ = rows[0]
            if link(before, number, content(*columns)) != newest.hash:
                raise Broken(f"record {number} does not hold")
        return newest, dropped

    def close(self) -> None:
        """Close the file. Blocks on the disk."""
        self._database.close()

    def add(self, entries: Iterable[Entry]) -> None:
        """Append records in one step, all or none. Blocks on the disk: for kinds in `SURE` until it has them.

        Entries that were tried before may be there nevertheless: a disk that fails to sync can still have the
        bytes, and SQLite finds them when it opens the file again. They are not appended twice.

        Raises:
            sqlite3.Error: nothing was appended, and the database must be opened again.
        """
        number, digest, settings = self.newest.number, self.newest.hash, self._settings
        rows = []
        for entry in entries:
            if entry.tried is not None and self._has(*entry.tried):
                continue
            kind = KINDS[type(entry.record)]
            if isinstance(entry.record, RecordSettings):
                said = {"digest": settings_digest(self.key, entry.record.text)}
                if said["digest"] == (settings or self._last_settings()):
                    continue
                settings = said["digest"]
            else:
                said = asdict(entry.record)
            data = json.dumps(said, separators=(",", ":"))
            number += 1
            digest = link(digest, number, content(entry.at, entry.clock, kind, data))
            entry.tried = number, digest
            rows.append((number, entry.at, entry.clock, kind, data, digest))
        if not rows:
            return
        sure = any(row[3] in SURE for row in rows)
        self._database.execute(f"PRAGMA synchronous={'FULL' if sure else 'NORMAL'}")
        newest = Seal(NEWEST, number, digest, "")
        with self._transaction():
            self._database.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._put(newest)
        self.newest, self._settings = newest, settings

    def trim(self, bounds: Bounds, now: int, clock: str) -> bool:
        """Drop up to a thousand of the oldest records that are out of bounds; returns whether any were.

        A clock that runs free drops nothing by age, and no record goes by a time that such a clock gave it.

        Raises:
            sqlite3.Error: nothing was dropped, and the database must be opened again.
        """
        through = max(self._too_old(bounds, now, clock), self._too_many(bounds))
        if through <= self.dropped.number:
            return False
        run = self._database.execute
        (digest,) = run("SELECT hash FROM record WHERE id = ?", (through,)).fetchone()
        first, last = run("SELECT min(at), max(at) FROM record WHERE id <= ?", (through,)).fetchone()
        said = json.loads(self.dropped.data)
        kinds = said.get("kinds", {})
        for kind, count in run(
            "SELECT kind, count(*) FROM record WHERE id <= ? GROUP BY kind", (through,)
        ).fetchall():
            kinds[kind] = kinds.get(kind, 0) + count
        said = {
            "count": through,
            "kinds": kinds,
            "since": min(said.get("since", first), first),
            "until": max(said.get("until", last), last),
        }
        dropped = Seal(DROPPED, through, digest, json.dumps(said))
        with self._transaction():
            self._put(dropped)
            run("DELETE FROM record WHERE id <= ?", (through,))
        self.dropped = dropped
        return True

    def _too_old(self, bounds: Bounds, now: int, clock: str) -> int:
        if clock == FREE:
            return 0
        (through,) = self._database.execute(
            "SELECT max(id) FROM (SELECT id, at, clock FROM record ORDER BY id LIMIT ?)"
            " WHERE at < ? AND clock <> ?",
            (DROP_AT_ONCE, now - bounds.days * DAY, FREE),
        ).fetchone()
        return int(through or 0)

    def _too_many(self, bounds: Bounds) -> int:
        pages, free, size = (
            self._database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size <= bounds.megabytes * MEGABYTE:
            return 0
        return min(self.dropped.number + DROP_AT_ONCE, self.newest.number - 1)

    def _has(self, number: int, digest: bytes) -> bool:
        row = self._database.execute("SELECT hash FROM record WHERE id = ?", (number,)).fetchone()
        return row is not None and bool(row[0] == digest)

    def _last_settings(self) -> str | None:
        row = self._database.execute(
            "SELECT data FROM record WHERE kind = 'settings' ORDER BY id DESC LIMIT 1"
        ).fetchone()
        return None if row is None else str(json.loads(row[0])["digest"])

    def _put(self, seal: Seal) -> None:
        self._database.execute(
            "UPDATE seal SET number = ?, hash = ?, data = ?, mac = ? WHERE name = ?",
            (seal.number, seal.hash, seal.data, seal.mac(self.key), seal.name),
        )

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._database)


class _Transaction:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._database.execute("COMMIT")
        else:
            with suppress(sqlite3.Error):  # a full disk has rolled it back already
                self._database.execute("ROLLBACK")


def _statements(script: str) -> Iterable[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _device_key(file: Path) -> bytes:
    """The key of this device, made at the first use: whole or not at all, and for its owner alone."""
    try:
        key = file.read_bytes()
    except FileNotFoundError:
        key = os.urandom(KEY_BYTES)
        new = file.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(key)
            opened.flush()
            os.fsync(opened.fileno())
        new.replace(file)
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    if len(key) != KEY_BYTES:
        raise OSError(f"{file} is not a key of {KEY_BYTES} bytes")
    return key


def set_aside(file: Path) -> Path:
    """Rename a database with what belongs to it, so that it stays as it is. Blocks on the disk.

    Raises:
        OSError: it cannot be renamed, or too many lie there already.
    """
    for count in range(1, MOST_ASIDE + 1):
        aside = file.with_name(f"{file.name}.aside-{count}")
        if not aside.exists():
            for suffix in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    Path(f"{file}{suffix}").rename(f"{aside}{suffix}")
            return aside
    raise OSError(f"{MOST_ASIDE} databases were set aside already: look at them, and remove them")
