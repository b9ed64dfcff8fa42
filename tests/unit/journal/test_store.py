"""The record of calls and accesses on a real disk, and what happens when that disk fails."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from intercom.core.actions import RecordAccess, RecordCall
from intercom.core.ringing import Outcome
from intercom.journal.store import LARGEST_ROWS, Journal
from tests.fakes import FLAT, Ear

CALL = RecordCall("out", "bell", FLAT, Outcome.BUSY, "Busy Here", 0.0)
ACCESS = RecordAccess("front", "dtmf", FLAT, True, "")

Opened = Callable[[Path], tuple[Journal, Ear[str | None]]]


@pytest.fixture
def opened() -> Iterator[Opened]:
    journals = []

    def opened(file: Path) -> tuple[Journal, Ear[str | None]]:
        health: Ear[str | None] = Ear()
        journals.append(Journal(file, health))
        return journals[-1], health

    yield opened
    for journal in journals:
        if journal._thread.is_alive():
            journal.close()


def test_records_are_kept_in_order_with_their_time(opened: Opened, tmp_path: Path) -> None:
    journal, health = opened(tmp_path / "new" / "folder" / "journal.db")
    before = datetime.now(UTC)
    journal.append(CALL)
    journal.append(ACCESS)
    journal.close()
    call, access = journal.newest(50)
    assert before.replace(microsecond=0) <= datetime.fromisoformat(call.pop("at")) <= datetime.now(UTC)
    assert access.pop("at").endswith("+00:00")
    assert call == {
        "id": 1,
        "kind": "call",
        "direction": "out",
        "button": "bell",
        "peer": FLAT,
        "outcome": "busy",
        "reason": "Busy Here",
        "seconds": 0.0,
        "diverted_by": "",
    }
    assert access == {
        "id": 2,
        "kind": "access",
        "door": "front",
        "how": "dtmf",
        "peer": FLAT,
        "granted": True,
        "reason": "",
    }
    assert health.rest() == []


def test_the_newest_are_shown_the_oldest_of_them_first(opened: Opened, tmp_path: Path) -> None:
    journal, _ = opened(tmp_path / "journal.db")
    for number in range(10):
        journal.append(RecordAccess(f"door {number}", "operator", "", True, ""))
    journal.close()
    assert [record["door"] for record in journal.newest(3)] == ["door 7", "door 8", "door 9"]


def test_records_outlive_the_service(opened: Opened, tmp_path: Path) -> None:
    for _ in range(3):
        journal, _ = opened(tmp_path / "journal.db")
        journal.append(CALL)
        journal.close()
    assert [record["id"] for record in journal.newest(50)] == [1, 2, 3]


def test_odd_names_of_files_and_odd_texts_are_kept(opened: Opened, tmp_path: Path) -> None:
    journal, health = opened(tmp_path / "a ?#% b" / "journal.db")
    journal.append(RecordCall("in", None, "sip:\udce9@x", Outcome.FAILED, "'); DROP TABLE record; --\n", 1.5))
    journal.close()
    (record,) = journal.newest(1)
    assert (record["peer"], record["reason"]) == ("sip:\udce9@x", "'); DROP TABLE record; --\n")
    assert health.rest() == []


def test_reading_before_anything_was_written_is_an_error_of_the_database(
    opened: Opened, tmp_path: Path
) -> None:
    journal, _ = opened(tmp_path / "journal.db")
    with pytest.raises(sqlite3.OperationalError):
        journal.newest(1)


def test_only_the_newest_hundred_thousand_are_kept(opened: Opened, tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    journal, _ = opened(file)
    journal.append(CALL)
    journal.close()
    with closing(sqlite3.connect(file)) as database, database:
        database.executemany(
            "INSERT INTO record (at, kind, data) VALUES ('', 'call', '{}')", (() for _ in range(LARGEST_ROWS))
        )
    journal, _ = opened(file)
    journal.append(CALL)
    journal.close()
    with closing(sqlite3.connect(file)) as database:
        ids = database.execute("SELECT count(*), min(id), max(id) FROM record").fetchone()
    assert ids == (LARGEST_ROWS, 3, LARGEST_ROWS + 2)


# Faults


def test_a_place_that_cannot_be_written_is_told_once_and_the_bell_goes_on(
    opened: Opened, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    journal, health = opened(tmp_path / "file" / "journal.db")
    for _ in range(3):
        journal.append(CALL)
    journal.close()
    (fault,) = health.rest()
    assert fault is not None
    assert fault.startswith(f"records cannot be written to {tmp_path}/file/journal.db: ")
    assert len([record for record in caplog.records if "not recorded" in record.message]) == 3
    assert FLAT in caplog.text, "what is not on the disk is at least in the log"


def test_records_are_kept_again_once_the_place_is_there(opened: Opened, tmp_path: Path) -> None:
    obstacle = tmp_path / "file"
    obstacle.write_text("in the way")
    journal, health = opened(obstacle / "journal.db")
    journal.append(CALL)
    assert health.next() is not None
    obstacle.unlink()
    journal.append(ACCESS)
    assert health.next() is None
    assert [record["kind"] for record in journal.newest(9)] == ["access"]


def test_a_file_that_is_no_database_is_told(opened: Opened, tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    file.write_bytes(b"\xff" * 4096)
    journal, health = opened(file)
    journal.append(CALL)
    fault = health.next()
    assert fault is not None
    assert "not a database" in fault
    journal.append(CALL)
    journal.close()
    assert file.read_bytes() == b"\xff" * 4096, "it is left for whoever wants to look at it"


def test_a_database_of_another_shape_is_told(opened: Opened, tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE record (wrong INTEGER)")
    journal, health = opened(file)
    journal.append(CALL)
    fault = health.next()
    assert fault is not None
    assert "no column" in fault


def test_a_place_where_nothing_can_be_written_is_told(opened: Opened) -> None:
    journal, health = opened(Path("/proc/journal.db"))
    journal.append(CALL)
    assert health.next() == "records cannot be written to /proc/journal.db: unable to open database file"


FULL_DISK = """
import json, resource, sys
from pathlib import Path
from intercom.core.actions import RecordAccess
from intercom.journal.store import Journal
from tests.fakes import Ear

health = Ear()
journal = Journal(Path(sys.argv[1]), health)
journal.append(RecordAccess("first", "operator", "", True, ""))
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))
for _ in range(40):
    journal.append(RecordAccess("x" * 4000, "operator", "", True, ""))
fault = health.next()
for _ in range(3):
    journal.append(RecordAccess("x" * 100_000, "operator", "", True, ""))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append(RecordAccess("last", "operator", "", True, ""))
journal.close()
print(json.dumps([fault, health.rest()[-1:], [record["door"][:5] for record in journal.newest(999)]]))
"""


def test_a_full_disk_is_told_and_records_are_kept_again_once_there_is_room(tmp_path: Path) -> None:
    # In a process of its own: the limit on the size of files, which stands for the full disk, holds for all.
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path / "journal.db"], capture_output=True, text=True, check=True
    )
    fault, last_word, doors = json.loads(done.stdout)
    assert fault.startswith(f"records cannot be written to {tmp_path}/journal.db: ")
    assert last_word == [None]
    assert (doors[0], doors[-1]) == ("first", "last")
