"""`intercom log` beside a running station, without one, and on a file that somebody has changed."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from deploy.demo.program import wait_until
from tests.system.conftest import CODE, Door
from tests.system.test_cli import DONE, FAILED, NOT_RUNNING, WRONG, told


@pytest.fixture
def visited(door: Door) -> Door:
    """A door that was in service and was opened twice; now it is out of service."""
    with door.serving():
        for _ in range(2):
            assert door.intercom("open").code in {DONE, FAILED}
    return door


def test_the_record_is_read_without_the_service(visited: Door) -> None:
    records = told(visited, "log")
    assert [record["kind"] for record in records] == ["service", "settings", "access", "access", "service"]
    assert (records[0]["what"], records[-1]["what"], records[-1]["reason"]) == ("started", "stopped", "")
    assert [record["id"] for record in told(visited, "log", "-n", "2", "--kind", "access")] == [3, 4]
    assert [record["id"] for record in told(visited, "log", "--since", "1h", "--door", "front")] == [3, 4]
    for nothing in (("--until", "1h"), ("--since", "2100-01-01"), ("--who", "flat1"), ("--door", "gate")):
        assert told(visited, "log", *nothing) == []
    assert (visited.folder / "journal.key").stat().st_mode & 0o777 == 0o600
    text = visited.intercom("log").out
    for said in ("service started, version", "settings changed: ", "door front by operator: released"):
        assert said in text
    answer = visited.intercom("log", "--follow")
    assert (answer.code, answer.out) == (NOT_RUNNING, "")


def test_the_record_as_csv(visited: Door) -> None:
    rows = list(csv.DictReader(io.StringIO(visited.intercom("log", "--csv").out)))
    assert [row["kind"] for row in rows] == ["service", "settings", "access", "access", "service"]
    assert (rows[2]["door"], rows[2]["how"], rows[2]["granted"], rows[2]["outcome"]) == (
        "front", "operator", "True", "",
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ("--since", "yesterday"),
        ("--since", "99999999999d"),
        ("--since", "999999999w"),
        ("--kind", "visits"),
        ("--csv", "--json"),
        ("--follow", "--file", "journal.db"),
    ],
    ids=" ".join,
)
def test_wrong_questions(door: Door, arguments: tuple[str, ...]) -> None:
    answer = door.intercom("log", *arguments)
    assert (answer.code, answer.out) == (WRONG, "")


def test_new_records_are_followed(door: Door) -> None:
    with door.serving():
        with door.follow("log", "--follow", "--json", "--kind", "access") as follow:
            assert door.intercom("open").code == DONE
            line = follow.wait_for(r'^\{.*"access".*$', 5)[0]
            assert json.loads(line)["door"] == "front"
        with door.follow("log", "--follow") as follow:
            follow.wait_for("door front by operator: released", 5)
            door.intercom("open")
            assert wait_until(lambda: follow.log.read_text().count("door front by operator") == 2, 5)


# The proof


def test_the_record_is_proved(visited: Door) -> None:
    answer = visited.intercom("log", "verify")
    assert (answer.code, answer.out, answer.err) == (DONE, "5 records hold, 1 to 5\n", "")
    with visited.serving():
        answer = visited.intercom("log", "verify")
        assert (answer.code, answer.out) == (DONE, "6 records hold, 1 to 6\n"), "the same settings"
    assert told(visited, "log", "verify")["signed"] is True


def test_one_changed_byte_is_named(visited: Door) -> None:
    file = visited.folder / "journal.db"
    good = file.read_bytes()
    place = good.index(b'"granted":true')
    file.write_bytes(good[:place] + b'"granted":trux' + good[place + 14 :])
    answer = visited.intercom("log", "verify")
    assert answer.code == FAILED
    assert answer.out == (
        "2 records hold, 1 to 2\nDOES NOT HOLD: record 3: its content and its hash do not fit together\n"
    ) or answer.out.startswith("3 records hold, 1 to 3\nDOES NOT HOLD: record 4:"), answer.out
    file.write_bytes(good)
    assert visited.intercom("log", "verify").code == DONE


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda file: file.unlink(), "cannot be read: No such file or directory"),
        (lambda file: file.write_bytes(b"\xff" * 5000), "is no record of ours: file is not a database"),
        (lambda file: file.write_bytes(b""), "is no record of ours: it is of shape 0"),
    ],
    ids=["gone", "garbage", "empty"],
)
def test_what_is_no_record_cannot_be_proved(visited: Door, spoil: Callable[[Path], None], says: str) -> None:
    spoil(visited.folder / "journal.db")
    answer = visited.intercom("log", "verify")
    assert (answer.code, answer.out) == (FAILED, "")
    assert says in answer.err


def test_another_file_is_read_and_proved(visited: Door) -> None:
    copy = visited.folder / "copy.db"
    with (
        closing(sqlite3.connect(visited.folder / "journal.db")) as database,
        closing(sqlite3.connect(copy)) as target,
    ):
        database.backup(target)
    assert visited.intercom("log", "verify", "--file", str(copy)).code == DONE
    assert len(told(visited, "log", "--file", str(copy))) == 5


def test_settings_that_changed_are_recorded_without_their_text(visited: Door) -> None:
    visited.change("release_seconds = 0.5", "release_seconds = 0.6")
    with visited.serving():
        pass
    first, second = told(visited, "log", "--kind", "settings")
    assert first["digest"] != second["digest"]
    for file in visited.folder.glob("journal.*"):
        assert CODE.encode() not in file.read_bytes()
