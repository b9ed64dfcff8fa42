"""Reads records, and proves that none was changed, on any thread and in any process beside the writing one.

Rule: it opens the file for reading only.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intercom.journal.chain import DROPPED, NEWEST, Seal, link
from intercom.journal.database import KEY_BYTES, SHAPE, iso, key_file

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records: the newest `count` of all that fit, or the first `count` with a number over `after`.

    Attributes:
        since: not before these milliseconds since 1970;
        until: before these.
        kind: of this kind.
        door: about this door.
        who: with this text in the other side's address.
    """

    count: int
    after: int | None = None
    since: int | None = None
    until: int | None = None
    kind: str | None = None
    door: str | None = None
    who: str | None = None


@contextmanager
def _open(file: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
        yield database


def read(file: Path, wanted: Wanted) -> list[dict[str, Any]]:
    """Return records, the oldest of them first. Blocks on the disk.

    Raises:
        sqlite3.Error: they cannot be read, or nothing was ever recorded.
    """
    conditions, values = [], []

    def need(condition: str, value: object) -> None:
        if value is not None:
            conditions.append(condition)
            values.extend([value] * condition.count("?"))

    need("id > ?", wanted.after)
    # The clock may have jumped, so times are not in order: the index gives the range of numbers, at no cost.
    need("at >= ? AND id >= (SELECT min(id) FROM record INDEXED BY record_at WHERE at >= ?)", wanted.since)
    need("at < ? AND id <= (SELECT max(id) FROM record INDEXED BY record_at WHERE at < ?)", wanted.until)
    need("kind = ?", wanted.kind)
    need("data ->> 'door' = ?", wanted.door)
    need("instr(lower(data ->> 'peer'), lower(?))", wanted.who)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    order = "DESC" if wanted.after is None else "ASC"
    # Only the constants above are put together; every value is bound.
    query = f"SELECT id, at, clock, kind, data FROM record {where} ORDER BY id {order} LIMIT ?"  # noqa: S608
    with _open(file) as database:
        rows = database.execute(query, (*values, wanted.count)).fetchall()
    records = [
        {"id": number, "at": iso(at), "clock": clock, "kind": kind, **json.loads(data)}
        for number, at, clock, kind, data in rows
    ]
    return records[::-1] if wanted.after is None else records


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found.

    Attributes:
        count: how many records hold, from the oldest on.
        first: the number of the oldest,
        last: and of the newest that holds.
        bad: the number of the first record that does not hold; None if all do.
        why: what is wrong with it, or with the seals.
        dropped: what is said about the records before the oldest.
        signed: whether both ends carry the signature of the device; None without its key.
    """

    count: int
    first: int
    last: int
    bad: int | None
    why: str
    dropped: dict[str, Any]
    signed: bool | None

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.why


def verify(file: Path) -> Verdict:
    """Go along the whole chain. Blocks for some seconds where there are a million records.

    Raises:
        OSError: the file is not there or may not be read.
        sqlite3.Error: it is no record of ours at all.
    """
    with file.open("rb"):
        pass  # sqlite would only say that it is unable to open it
    with _open(file) as database:
        database.text_factory = bytes  # a changed byte need not be text
        (shape,) = database.execute("PRAGMA user_version").fetchone()
        if shape != SHAPE:
            raise sqlite3.DatabaseError(f"it is of shape {shape}, and only {SHAPE} has hashes")
        database.execute("BEGIN")  # one moment, though records may be added meanwhile
        try:
            seals, signed, why = _seals(database, _key(file))
        except (ValueError, KeyError) as error:
            return Verdict(0, 0, 0, None, f"the seals cannot be read: {error}", {}, None)
        return _walk(database, seals[DROPPED], seals[NEWEST], signed, why)


def _walk(
    database: sqlite3.Connection, dropped: Seal, newest: Seal, signed: bool | None, why: str
) -> Verdict:
    number, digest, bad = dropped.number, dropped.hash, None
    try:
        rows = database.execute(
            "SELECT id, at || char(10) || clock || char(10) || kind || char(10) || data, hash"
            " FROM record ORDER BY id"
        )
        while batch := rows.fetchmany(_ROWS_AT_ONCE):
            for row, content, said in batch:
                if row != number + 1:
                    bad, why = number + 1, f"it is missing: {row} comes after {number}"
                    break
                found = link(digest, row, content)
                if found != said:
                    bad, why = row, "its content and its hash do not fit together"
                    break
                number, digest = row, found
            if bad is not None:
                break
        else:
            if number != newest.number:
                bad, why = number + 1, f"it is missing: the seal knows records up to {newest.number}"
            elif digest != newest.hash:
                bad, why = number, "its hash is not the one that was sealed"
    except sqlite3.Error as error:
        bad, why = number + 1, f"it cannot be read: {error}"
    if not why and (damage := _damage(database)):
        why = f"the file is damaged beside the records: {damage}"
    count = number - dropped.number
    said_dropped = {
        key: iso(value) if key in {"since", "until"} else value
        for key, value in json.loads(dropped.data).items()
    }
    return Verdict(count, dropped.number + 1, number, bad, why, said_dropped, signed)


def _damage(database: sqlite3.Connection) -> str:
    try:
        (said,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return "" if said == b"ok" else str(said, errors="replace")


def _key(file: Path) -> bytes | None:
    """The device's key; None where only the service and root may read it."""
    try:
        return key_file(file).read_bytes()
    except (FileNotFoundError, PermissionError):
        return None


def _seals(database: sqlite3.Connection, key: bytes | None) -> tuple[dict[str, Seal], bool | None, str]:
    seals, wrong = {}, []
    for raw, number, digest, data, mac in database.execute("SELECT * FROM seal").fetchall():
        name = raw.decode()
        seals[name] = Seal(name, number, digest, data.decode())
        if key is not None and not (len(key) == KEY_BYTES and seals[name].is_signed(key, mac)):
            wrong.append(name)
    if seals.keys() != {NEWEST, DROPPED}:
        raise KeyError("one is missing")
    why = (
        f"the seal of the {' and the '.join(sorted(wrong))} records is not signed by this device"
        if wrong
        else ""
    )
    return seals, None if key is None else not wrong, why
