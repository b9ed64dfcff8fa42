"""SQLite files that must survive whatever happens to a small computer.

Rule: a file that cannot be read is set aside, never removed.
"""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

LOCK_SECONDS = 5.0
_LOG = ("-wal", "-shm")

# Locked, full, not readable, an error of the disk: the database itself may be in order.
_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
}


def whole(path: Path, table: str) -> bool:
    """Tell whether SQLite can read all of a database and finds a table in it. Blocks on the disk.

    Raises:
        OperationalError: it cannot tell now.
    """
    try:
        with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as database:
            (answer,) = database.execute("PRAGMA quick_check").fetchone()
            found = database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in _PASSING:
            raise
        return False
    return bool(answer == "ok" and found)


def set_aside(path: Path) -> Path:
    """Move a database that cannot be read out of the way, with its log; returns where it is now."""
    broken = path.with_name(path.name + ".broken")
    remove_log(broken)
    for rest in ("", *_LOG):
        with suppress(FileNotFoundError):
            path.with_name(path.name + rest).replace(broken.with_name(broken.name + rest))
    return broken


def remove_log(path: Path) -> None:
    """Remove what an earlier database of this name has left: SQLite would play it into the next one."""
    for rest in _LOG:
        path.with_name(path.name + rest).unlink(missing_ok=True)


def empty(path: Path) -> Path:
    """Make an empty file that its owner alone may read, in the place of any other; returns it."""
    path.unlink(missing_ok=True)
    path.touch(0o600)
    return path
