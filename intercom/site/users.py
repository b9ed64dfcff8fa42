"""The users, groups and gateways of a site: `deploy/site/users.sql`, written here and nowhere else.

Rule: a change is one transaction with a safety copy after it; Kamailio is told of it afterwards and never
writes the file.
"""

import hashlib
import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from intercom.settings.loading import schema_mistakes
from intercom.site import forms, places
from intercom.site.database import LOCK_SECONDS, empty, remove_log, set_aside, whole
from intercom.site.export import Export, User
from intercom.site.settings import Digest, Transport

MOST_MEMBERS = 30  # max_branches in targets.cfg
_log = logging.getLogger(__name__)


class Refused(ValueError):
    """A change that makes no sense; the text says why. Nothing was changed."""


class Unwritable(RuntimeError):
    """The database is locked, full or not ours to write; the text says which. Nothing was changed."""


def ha1(user: str, domain: str, password: str, digest: Digest = "MD5") -> str:
    """The digest a server stores instead of the password (RFC 3261 22.4, RFC 8760)."""
    text = f"{user}:{domain}:{password}".encode()
    return hashlib.new("md5" if digest == "MD5" else "sha256", text).hexdigest()


class Users:
    """The users' database. Blocks on the disk, and for another writer at most 5 s.

    Every change may raise Refused or Unwritable.

    Args:
        path: the SQLite file; created when missing, or taken from its safety copy.
        domain: of the users.
        may_begin: whether an empty one may be made where neither the file nor its copy can be read.

    Attributes:
        changed: whether there was a change.

    Raises:
        Unwritable: it cannot be opened.
        Refused: it holds users of another domain, whose passwords are good for that one only.
    """

    def __init__(self, path: Path, domain: str, *, may_begin: Callable[[], bool] = lambda: True) -> None:
        self.path = path
        self.domain = domain
        self.changed = False
        self._open_change: sqlite3.Connection | None = None
        with _explained(path):
            if not path.exists() or not whole(path, "user"):
                self._make(may_begin)
            with closing(self._open()) as database:
                self._must_be_of_our_domain(database)
                _renew_views(database)

    # Users

    def add(
        self,
        name: str,
        password: str,
        *,
        digest: Digest = "MD5",
        display: str = "",
        transport: Transport = "udp",
    ) -> None:
        """Add a user. Of the password only its digest is kept."""
        with self.together() as database:
            self._must_be_new(database, name)
            database.execute(
                "INSERT INTO user (name, digest, ha1, display, transport) VALUES (?, ?, ?, ?, ?)",
                (
                    name,
                    digest,
                    ha1(name, self.domain, password, digest),
                    _checked(forms.display, display),
                    transport,
                ),
            )

    def set_password(self, name: str, password: str, *, digest: Digest | None = None) -> None:
        """Give a user another password, and another digest if one is named."""
        with self.together() as database:
            (old,) = self._must_exist(database, "user", name, "digest")
            digest = digest or old
            assert digest is not None
            database.execute(
                "UPDATE user SET digest = ?, ha1 = ? WHERE name = ?",
                (digest, ha1(name, self.domain, password, digest), name),
            )

    def remove(self, name: str) -> None:
        """Remove a user, also from the groups he is in. Refused while a forward or a number leads to him."""
        with self.together() as database:
            self._must_exist(database, "user", name)
            self._must_be_no_target(database, name)
            database.execute("DELETE FROM redirect WHERE name = ?", (name,))
            database.execute("DELETE FROM user WHERE name = ?", (name,))

    def names(self) -> list[str]:
        """Every user."""
        return [row["name"] for row in self._rows("SELECT name FROM user ORDER BY name")]

    def user(self, name: str) -> dict[str, Any]:
        """All that is known about a user but the password.

        Raises:
            Refused: there is no such user.
        """
        for user in self.facts()["users"]:
            if user["name"] == name:
                return dict(user)
        raise Refused(f"there is no user {name}")

    def set_forward(
        self, name: str, *, busy: str = "", unanswered: str = "", away: str = "", seconds: int = 20
    ) -> None:
        """Say where calls for a user go when he is busy, does not answer in time, or is not registered.

        Args:
            name: of the user.
            busy: a user, a group or a number; empty for nowhere. So are `unanswered` and `away`.
            unanswered: where a call goes that has rung for `seconds`.
            away: where a call goes when the user is not registered.
            seconds: of ringing.
        """
        _seconds(seconds)
        with self.together() as database:
            self._must_exist(database, "user", name)
            for target in (busy, unanswered, away):
                if target and not forms.is_number(target):
                    self._must_be_known(database, target)
            database.execute(
                "UPDATE user SET busy = ?, unanswered = ?, away = ?, seconds = ? WHERE name = ?",
                (busy, unanswered, away, seconds, name),
            )
            self._must_not_circle(database)

    def permit(self, name: str, prefixes: Iterable[str]) -> None:
        """Say how the numbers begin that a user may call; [""] for every number, [] for none."""
        with self.together() as database:
            self._must_exist(database, "user", name)
            database.execute("DELETE FROM permission WHERE user = ?", (name,))
            database.executemany(
                "INSERT INTO permission (user, prefix) VALUES (?, ?)",
                [(name, _checked(forms.prefix, prefix)) for prefix in sorted(set(prefixes))],
            )

    # Groups

    def set_group(
        self, name: str, members: Sequence[str], *, serial: bool = False, seconds: int = 20, display: str = ""
    ) -> None:
        """Make a group, or another one of it: all members ring at once, or one after another."""
        _seconds(seconds)
        with self.together() as database:
            if not self._has(database, "ring_group", name):
                self._must_be_new(database, name)
            if not members:
                raise Refused(f"group {name} needs a member")
            if len(set(members)) < len(members):
                raise Refused(f"a member stands twice in group {name}")
            if len(members) > MOST_MEMBERS:
                raise Refused(f"one call rings {MOST_MEMBERS} telephones at most: group {name} is too large")
            for member in members:
                self._must_exist(database, "user", member)
            database.execute(
                "INSERT INTO ring_group (name, display, serial, seconds) VALUES (?, ?, ?, ?) ON CONFLICT DO "
                "UPDATE SET display = excluded.display, serial = excluded.serial, seconds = excluded.seconds",
                (name, _checked(forms.display, display), int(serial), seconds),
            )
            database.execute("DELETE FROM member WHERE ring_group = ?", (name,))
            database.executemany(
                "INSERT INTO member (ring_group, position, user) VALUES (?, ?, ?)",
                [(name, position, member) for position, member in enumerate(members)],
            )
            self._must_not_circle(database)

    def remove_group(self, name: str) -> None:
        """Remove a group; its members stay. Refused while a forward or a number leads to it."""
        with self.together() as database:
            self._must_exist(database, "ring_group", name)
            self._must_be_no_target(database, name)
            database.execute("DELETE FROM redirect WHERE name = ?", (name,))
            database.execute("DELETE FROM ring_group WHERE name = ?", (name,))

    # Redirects

    def set_redirect(self, name: str, uris: Sequence[str], *, permanent: bool = False) -> None:
        """Tell callers of a name or number to call these addresses instead, the first one first."""
        if not forms.is_number(name):
            _checked(forms.name, name)
        if not uris:
            raise Refused("a redirect needs an address")
        code = 301 if permanent else 302
        with self.together() as database:
            database.execute("DELETE FROM redirect WHERE name = ?", (name,))
            database.executemany(
                "INSERT INTO redirect (name, position, code, uri) VALUES (?, ?, ?, ?)",
                [(name, place, code, _checked(forms.address, uri)) for place, uri in enumerate(uris)],
            )

    def remove_redirect(self, name: str) -> None:
        """Let a name or number ring again."""
        with self.together() as database:
            self._must_exist(database, "redirect", name)
            database.execute("DELETE FROM redirect WHERE name = ?", (name,))

    # Gateways and numbers

    def set_gateway(
        self,
        name: str,
        uri: str,
        *,
        priority: int = 0,
        username: str = "",
        password: str = "",
        registers: bool = False,
        ranges: Sequence[str] = ("",),
    ) -> None:
        """Add a gateway, or another one of its name. The one with the highest priority is tried first.

        The password is kept as it is, since a trunk's challenge can be answered only with it.
        """
        _checked(forms.name, name)
        _checked(forms.server, uri)
        if username:
            _checked(forms.username, username)
        if password:
            _checked(forms.password, password)
        if not 0 <= priority <= 100:
            raise Refused("priority must be 0 to 100")
        if bool(username) != bool(password):
            raise Refused("a gateway's user name and password belong together")
        if registers and not username:
            raise Refused("to register there, a gateway needs a user name and a password")
        if not ranges:
            raise Refused("a gateway needs a range of numbers; '' for every number")
        with self.together() as database:
            others = database.execute("SELECT name, uri FROM gateway WHERE name <> ?", (name,))
            for other, place in others.fetchall():
                if forms.place(place) == forms.place(uri):
                    raise Refused(f"{uri} is already gateway {other}")
            database.execute(
                "INSERT INTO gateway (name, uri, priority, username, password, registers) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
                "SET uri = excluded.uri, priority = excluded.priority, username = excluded.username, "
                "password = excluded.password, registers = excluded.registers",
                (name, uri, priority, username, password, int(registers)),
            )
            database.execute("DELETE FROM gateway_range WHERE gateway = ?", (name,))
            for prefix in sorted(set(ranges)):
                _checked(forms.prefix, prefix)
                database.execute(
                    "INSERT INTO number_range (prefix) VALUES (?) ON CONFLICT DO NOTHING", (prefix,)
                )
                database.execute(
                    "INSERT INTO gateway_range (gateway, number_range) "
                    "SELECT ?, id FROM number_range WHERE prefix = ?",
                    (name, prefix),
                )
            self._drop_unused_ranges(database)

    def remove_gateway(self, name: str) -> None:
        """Remove a gateway."""
        with self.together() as database:
            self._must_exist(database, "gateway", name)
            database.execute("DELETE FROM gateway WHERE name = ?", (name,))
            self._drop_unused_ranges(database)

    def set_number(self, number: str, target: str) -> None:
        """Say which user or group a call from a trunk to one of our own numbers rings."""
        _checked(forms.e164, number)
        with self.together() as database:
            self._must_be_known(database, target)
            database.execute(
                "INSERT INTO own_number (number, target) VALUES (?, ?) "
                "ON CONFLICT DO UPDATE SET target = excluded.target",
                (number, target),
            )
            self._must_not_circle(database)

    def remove_number(self, number: str) -> None:
        """A number is no longer ours."""
        with self.together() as database:
            self._must_exist(database, "own_number", number)
            database.execute("DELETE FROM own_number WHERE number = ?", (number,))

    # Everything at once

    def facts(self, *, secrets: bool = False) -> dict[str, Any]:
        """All that is known, as JSON can hold it.

        Args:
            secrets: also the digests of the passwords, and the passwords towards gateways.
        """
        with self._reading() as database:
            facts = {name: _rows(database, query) for name, query in _FACTS.items()}
        if not secrets:
            for key, column in (("users", "ha1"), ("gateways", "password")):
                for row in facts[key]:
                    del row[column]
        return {"domain": self.domain, **facts}

    def replace(self, facts: Any) -> None:
        """Put what `facts` returned, here or on another machine, in the place of everything.

        Users without a digest, and gateways without a password, keep the one they have here.

        Raises:
            Refused: it cannot be used; nothing was changed.
        """
        try:
            export = Export.model_validate(facts)
        except ValidationError as error:
            (first, *_) = schema_mistakes(self.path, error)
            raise Refused(f"it is no export of a site: {first.key or 'the whole'}: {first.reason}") from None
        if export.domain != self.domain:
            raise Refused(f"it is for {export.domain!r}, and this site is {self.domain}")
        with self.together() as database:
            old = self.facts(secrets=True)
            digests = {user["name"]: (user["digest"], user["ha1"]) for user in old["users"]}
            passwords = {gateway["name"]: gateway["password"] for gateway in old["gateways"]}
            for table in ("user", "ring_group", "redirect", "gateway", "number_range", "own_number"):
                database.execute(f"DELETE FROM {table}")  # noqa: S608
            for user in export.users:
                self._put_user(database, user, digests.get(user.name))
            for group in export.groups:
                self.set_group(**group.model_dump())
            for user in export.users:
                self.permit(user.name, user.may_call)
                self.set_forward(user.name, **user.model_dump(include=_FORWARD))
            for redirect in export.redirects:
                self.set_redirect(**redirect.model_dump())
            for gateway in export.gateways:
                known = {"password": passwords.get(gateway.name, "")}
                self.set_gateway(**known | gateway.model_dump(exclude_none=True))
            for number in export.numbers:
                self.set_number(**number.model_dump())

    def _put_user(self, database: sqlite3.Connection, user: User, before: tuple[str, str] | None) -> None:
        kept = user.ha1 or (before[1] if before is not None and before[0] == user.digest else None)
        if kept is None:
            raise Refused(f"the password of {user.name} is missing: it needs an export with --secrets")
        self._must_be_new(database, user.name)
        database.execute(
            "INSERT INTO user (name, digest, ha1, display, transport) VALUES (?, ?, ?, ?, ?)",
            (user.name, user.digest, kept, _checked(forms.display, user.display), user.transport),
        )

    # The file

    @contextmanager
    def together(self) -> Iterator[sqlite3.Connection]:
        """Make every change inside of it one: all of them, or none when one fails."""
        if self._open_change is not None:
            yield self._open_change
            return
        with _explained(self.path):
            with closing(self._open()) as database:
                database.execute("BEGIN IMMEDIATE")
                self._open_change = database
                try:
                    self._must_be_of_our_domain(database)
                    database.execute("DELETE FROM site")
                    database.execute("INSERT INTO site (domain) VALUES (?)", (self.domain,))
                    yield database
                    database.execute("COMMIT")
                    self.changed = True
                finally:
                    self._open_change = None
            self._copy()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if self._open_change is not None:
            yield self._open_change
            return
        with _explained(self.path), closing(self._open()) as database:
            database.execute("BEGIN")  # one state of it, for as many questions as there are
            yield database

    def _rows(self, query: str) -> list[dict[str, Any]]:
        with self._reading() as database:
            return _rows(database, query)

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=LOCK_SECONDS, isolation_level=None)
        database.execute("PRAGMA foreign_keys = ON")
        return database

    @property
    def _safety_copy(self) -> Path:
        return self.path.with_name(self.path.name + ".bak")

    def _copy(self) -> None:
        """The safety copy; the change itself is safe already, so a failure is told and no more."""
        fresh = self.path.with_name(self.path.name + ".new")
        try:
            empty(fresh)
            with closing(sqlite3.connect(self.path)) as source, closing(sqlite3.connect(fresh)) as target:
                source.backup(target)
            fresh.replace(self._safety_copy)
        except (OSError, sqlite3.Error) as error:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            _log.warning("no safety copy of %s was made: %s", self.path, error)

    def _make(self, may_begin: Callable[[], bool]) -> None:
        """A database where there is none that can be read: from the safety copy, or an empty one."""
        was_there = self.path.exists()
        from_copy = self._safety_copy.exists() and whole(self._safety_copy, "user")
        if not from_copy and not may_begin():
            raise Unwritable(
                f"{self.path} and its safety copy are gone or broken, and the running site alone knows "
                "the users: put back a copy, or stop the site to begin with none"
            )
        if was_there:
            _log.warning("%s cannot be read; it is %s now", self.path, set_aside(self.path).name)
        remove_log(self.path)
        fresh = empty(self.path.with_name(self.path.name + ".new"))
        with closing(sqlite3.connect(fresh)) as database:
            if from_copy:
                with closing(sqlite3.connect(self._safety_copy)) as source:
                    source.backup(database)
                _log.warning("the users were taken from the safety copy %s", self._safety_copy)
            else:
                database.executescript(places.data("users.sql").read_text())
                if was_there:
                    _log.warning("there is no safety copy: %s is new and has no users", self.path)
            # With a write-ahead log a change waits for no reader and no reader for a change.
            database.execute("PRAGMA journal_mode = WAL")
        fresh.replace(self.path)

    def _must_be_of_our_domain(self, database: sqlite3.Connection) -> None:
        """The domain is part of every password's digest, so it can change only while there is no user."""
        row = database.execute("SELECT domain FROM site WHERE domain <> ?", (self.domain,)).fetchone()
        if row is not None and database.execute("SELECT 1 FROM user").fetchone() is not None:
            raise Refused(
                f"the passwords in {self.path} are for {row[0]}: nobody could register at {self.domain}"
            )

    # What must hold

    @staticmethod
    def _has(database: sqlite3.Connection, table: str, name: str) -> bool:
        key = "number" if table == "own_number" else "name"
        return database.execute(f"SELECT 1 FROM {table} WHERE {key} = ?", (name,)).fetchone() is not None  # noqa: S608

    def _must_exist(
        self, database: sqlite3.Connection, table: str, name: str, column: str = "1"
    ) -> tuple[Digest]:
        key = "number" if table == "own_number" else "name"
        row: tuple[Digest] | None = database.execute(
            f"SELECT {column} FROM {table} WHERE {key} = ?",  # noqa: S608 - both are ours
            (name,),
        ).fetchone()
        if row is None:
            raise Refused(f"there is no {table.rpartition('_')[2]} {name}")
        return row

    def _must_be_new(self, database: sqlite3.Connection, name: str) -> None:
        _checked(forms.name, name)
        if name.isdigit() and (name.startswith("0") or name in _EMERGENCY):
            raise Refused(f"{name} is a number outside the house: nobody here could call it")
        for table in ("user", "ring_group"):
            if self._has(database, table, name):
                raise Refused(f"{name} is already a {table.rpartition('_')[2]}")

    def _must_be_known(self, database: sqlite3.Connection, target: str) -> None:
        if not self._has(database, "user", target) and not self._has(database, "ring_group", target):
            raise Refused(f"there is no user or group {target}")

    @staticmethod
    def _must_be_no_target(database: sqlite3.Connection, name: str) -> None:
        row = database.execute(
            "SELECT 'a forward of ' || name FROM user "
            "WHERE name <> :name AND :name IN (busy, unanswered, away) UNION ALL "
            "SELECT 'number ' || number FROM own_number WHERE target = :name",
            {"name": name},
        ).fetchone()
        if row is not None:
            raise Refused(f"{row[0]} leads to {name}: change that first")

    @staticmethod
    def _must_not_circle(database: sqlite3.Connection) -> None:
        """No forward may lead back to where it comes from, over other forwards and own numbers."""
        leads: dict[str, set[str]] = {}
        for name, *targets in database.execute("SELECT name, busy, unanswered, away FROM user"):
            leads[name] = set(filter(None, targets))
        for number, target in database.execute("SELECT number, target FROM own_number"):
            leads[number] = {target}
        for start, first in leads.items():
            reached, fresh = set[str](), first
            while fresh:
                reached |= fresh
                fresh = set().union(*(leads.get(place, set()) for place in fresh)) - reached
            if start in reached:
                raise Refused(f"a forward of {start} leads back to {start}")

    @staticmethod
    def _drop_unused_ranges(database: sqlite3.Connection) -> None:
        database.execute("DELETE FROM number_range WHERE id NOT IN (SELECT number_range FROM gateway_range)")


def _rows(database: sqlite3.Connection, query: str) -> list[dict[str, Any]]:
    """The rows of a query; a column named after `json_` holds JSON."""
    cursor = database.execute(query)
    names = [column[0] for column in cursor.description]
    return [
        {
            name.removeprefix("json_"): json.loads(value) if name.startswith("json_") else value
            for name, value in zip(names, row, strict=True)
        }
        for row in cursor
    ]


_FORWARD = {"busy", "unanswered", "away", "seconds"}
_FACTS = {
    "users": (
        "SELECT name, display, digest, ha1, transport, busy, unanswered, away, seconds, "
        "(SELECT json_group_array(prefix) FROM permission WHERE user = name) AS json_may_call "
        "FROM user ORDER BY name"
    ),
    "groups": (
        "SELECT name, display, iif(serial, 'true', 'false') AS json_serial, seconds, "
        "(SELECT json_group_array(user) FROM "
        "(SELECT user FROM member WHERE ring_group = name ORDER BY position)) AS json_members "
        "FROM ring_group ORDER BY name"
    ),
    "redirects": (
        "SELECT name, json_group_array(uri) AS json_uris, "
        "iif(min(code) = 301, 'true', 'false') AS json_permanent "
        "FROM (SELECT * FROM redirect ORDER BY name, position) GROUP BY name ORDER BY name"
    ),
    "gateways": (
        "SELECT name, uri, priority, username, password, iif(registers, 'true', 'false') AS json_registers, "
        "(SELECT json_group_array(prefix) FROM gateway_range JOIN number_range ON id = number_range "
        "WHERE gateway = name) AS json_ranges FROM gateway ORDER BY priority DESC, name"
    ),
    "numbers": "SELECT number, target FROM own_number ORDER BY number",
}


_EMERGENCY = {"110", "112", "115", "116117", "118", "911", "999"}


def _checked(form: Callable[[str], str], value: str) -> str:
    try:
        return form(value)
    except ValueError as error:
        raise Refused(str(error)) from None


def _seconds(value: int) -> None:
    if not 3 <= value <= 120:
        raise Refused("seconds must be 3 to 120")


def _renew_views(database: sqlite3.Connection) -> None:
    """The views are what this version of the program wants, also when an older one made the tables."""
    views = "SELECT name, sql FROM sqlite_master WHERE type = 'view'"
    with closing(sqlite3.connect(":memory:")) as model:
        model.executescript(places.data("users.sql").read_text())
        wanted = dict(model.execute(views))
    present = dict(database.execute(views))
    if present == wanted:
        return
    with database:
        database.execute("BEGIN IMMEDIATE")
        for name in present:
            database.execute(f"DROP VIEW {name}")
        for text in wanted.values():
            database.execute(text)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what the disk says into one line."""
    try:
        yield
    except sqlite3.OperationalError as error:
        words = {
            sqlite3.SQLITE_BUSY: f"is locked by another program for {LOCK_SECONDS:g} s; nothing was changed",
            sqlite3.SQLITE_FULL: "cannot be written: the disk is full; nothing was changed",
            sqlite3.SQLITE_READONLY: "may not be written by this user; nothing was changed",
        }
        code = error.sqlite_errorcode & 0xFF
        raise Unwritable(f"{path} {words.get(code, error)}") from None
    except OSError as error:
        raise Unwritable(f"{path} cannot be used: {error.strerror}") from None
