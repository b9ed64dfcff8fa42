"""The record of calls and accesses on a real disk, and what happens when that disk fails."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from intercom.core.actions import RecordAccess, RecordCall
from intercom.core.ringing import Outcome
from intercom.journal.database import Bounds, Database, Entry, key_file
from intercom.journal.reader import Wanted, verify
from intercom.journal.records import RecordService, RecordSettings
from intercom.journal.store import MOST_WAITING, Journal
from intercom.system.clock import clock_source
from tests.fakes import FLAT, Ear

CALL = RecordCall("out", "bell", FLAT, Outcome.BUSY, "Busy Here", 0.0)
ACCESS = RecordAccess("front", "dtmf", FLAT, True, "")

Opened = Callable[..., tuple[Journal, Ear[str | None]]]


@pytest.fixture
def opened() -> Iterator[Opened]:
    journals = []

    def opened(file: Path, bounds: Bounds | None = None) -> tuple[Journal, Ear[str | None]]:
        health: Ear[str | None] = Ear()
        journals.append(Journal(file, health, bounds))
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
    call, access = journal.records(Wanted(50))
    assert before.replace(microsecond=0) <= datetime.fromisoformat(call.pop("at")) <= datetime.now(UTC)
    assert access.pop("at").endswith("+00:00")
    assert call.pop("clock") == access.pop("clock") == clock_source()
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
    assert [record["door"] for record in journal.records(Wanted(3))] == ["door 7", "door 8", "door 9"]


def test_records_outlive_the_service(opened: Opened, tmp_path: Path) -> None:
    for _ in range(3):
        journal, _ = opened(tmp_path / "journal.db")
        journal.append(CALL)
        journal.close()
    assert [record["id"] for record in journal.records(Wanted(50))] == [1, 2, 3]


def test_odd_names_of_files_and_odd_texts_are_kept(opened: Opened, tmp_path: Path) -> None:
    journal, health = opened(tmp_path / "a ?#% b" / "journal.db")
    journal.append(RecordCall("in", None, "sip:\udce9@x", Outcome.FAILED, "'); DROP TABLE record; --\n", 1.5))
    journal.close()
    (record,) = journal.records(Wanted(1))
    assert (record["peer"], record["reason"]) == ("sip:\udce9@x", "'); DROP TABLE record; --\n")
    assert health.rest() == []


def test_reading_before_anything_was_written_is_an_error_of_the_database(
    opened: Opened, tmp_path: Path
) -> None:
    journal, _ = opened(tmp_path / "journal.db")
    with pytest.raises(sqlite3.OperationalError):
        journal.records(Wanted(1))


def test_settings_are_recorded_when_they_change_and_never_as_text(opened: Opened, tmp_path: Path) -> None:
    for text in (b"codes = 471150", b"codes = 471150", b"codes = 4711"):
        journal, _ = opened(tmp_path / "journal.db")
        journal.append(RecordService("started", "0.1.0"))
        journal.append(RecordSettings(text))
        journal.close()
    kinds = [record["kind"] for record in journal.records(Wanted(9))]
    assert kinds == ["service", "settings", "service", "service", "settings"]
    first, second = journal.records(Wanted(9, kind="settings"))
    assert len(first["digest"]) == 16
    assert first["digest"] != second["digest"]
    assert b"4711" not in (tmp_path / "journal.db").read_bytes()
    assert "4711" not in repr(RecordSettings(b"codes = 4711"))


def test_what_was_appended_before_is_on_the_disk_when_told_so(opened: Opened, tmp_path: Path) -> None:
    journal, _ = opened(tmp_path / "journal.db")
    told: Ear[bool] = Ear()
    journal.append(ACCESS)
    journal.flush(told)
    assert told.next() is True
    assert len(journal.records(Wanted(9))) == 1
    journal.flush(told)
    assert told.next() is True, "also when there is nothing to write"


# Bounds


def test_the_oldest_go_when_there_is_too_much_and_the_rest_still_holds(
    opened: Opened, tmp_path: Path
) -> None:
    file = tmp_path / "journal.db"
    journal, _ = opened(file)
    told: Ear[bool] = Ear()
    for number in range(2500):
        journal.append(RecordAccess("front", "dtmf", "x" * 600, True, ""))
        if number % 200 == 0:  # no more than the memory holds
            journal.flush(told)
            told.next()
    journal.close()
    assert verify(file).count == 2500
    journal, _ = opened(file, Bounds(megabytes=1))
    journal.append(CALL)
    journal.close()
    verdict = verify(file)
    assert verdict.holds
    assert verdict.signed
    assert verdict.last == 2501
    assert 500 < verdict.count < 2000
    assert verdict.dropped["count"] == verdict.first - 1 == verdict.dropped["kinds"]["access"]
    assert verdict.dropped["since"] <= verdict.dropped["until"]


def test_the_oldest_go_by_age_but_not_by_a_clock_that_runs_free(tmp_path: Path) -> None:
    day = 86_400_000
    database = Database(tmp_path / "journal.db")
    database.add([Entry(number * day, "synchronized", CALL) for number in range(100)])
    database.add([Entry(0, "free", CALL), Entry(101 * day, "synchronized", CALL)])
    assert not database.trim(Bounds(days=50), 4000 * day, "free"), "a jump of the clock empties nothing"
    assert database.trim(Bounds(days=50), 110 * day, "synchronized")
    assert not database.trim(Bounds(days=50), 110 * day, "synchronized")
    assert database.dropped.number == 60
    assert database.trim(Bounds(days=50), 140 * day, "synchronized")
    assert database.dropped.number == 90, "a record with a wrong time goes with its neighbours"
    database.close()
    verdict = verify(tmp_path / "journal.db")
    assert (verdict.holds, verdict.first, verdict.dropped["kinds"]) == (True, 91, {"call": 90})


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
    assert len([record for record in caplog.records if "not recorded yet" in record.message]) == 3
    assert FLAT in caplog.text, "what is not on the disk is at least in the log"


def test_records_are_kept_again_once_the_place_is_there(opened: Opened, tmp_path: Path) -> None:
    obstacle = tmp_path / "file"
    obstacle.write_text("in the way")
    journal, health = opened(obstacle / "journal.db")
    journal.append(CALL)
    assert health.next() is not None
    told: Ear[bool] = Ear()
    journal.flush(told)
    assert told.next() is False
    obstacle.unlink()
    journal.append(ACCESS)
    assert health.next() is None
    gap, late, access = journal.records(Wanted(9))
    assert (late["kind"], access["kind"]) == ("call", "access")
    assert (gap["kind"], gap["late"], gap["lost"]) == ("gap", 1, 0)
    assert gap["since"] == late["at"] <= gap["until"] == gap["at"]
    assert gap["reason"]


def test_more_than_the_memory_holds_is_given_up_oldest_first_and_counted(
    opened: Opened, tmp_path: Path
) -> None:
    obstacle = tmp_path / "file"
    obstacle.write_text("in the way")
    journal, health = opened(obstacle / "journal.db")
    for number in range(MOST_WAITING + 50):
        journal.append(RecordAccess(str(number), "dtmf", FLAT, True, ""))
    assert health.next() is not None
    obstacle.unlink()
    journal.close()
    gap, *kept = journal.records(Wanted(2000))
    assert (gap["kind"], gap["lost"]) == ("gap", 50)
    assert [record["door"] for record in kept] == [str(number) for number in range(50, MOST_WAITING + 50)]
    assert verify(journal.file).holds


def set_aside(opened: Opened, file: Path) -> tuple[str, str]:
    """Why a database was set aside, and where it is; a new one holds what comes."""
    journal, health = opened(file)
    journal.append(CALL)
    journal.close()
    assert health.rest() == []
    begun, call = journal.records(Wanted(9))
    assert (begun["kind"], call["kind"]) == ("begun", "call")
    assert verify(file).holds
    return begun["reason"], begun["aside"]


def test_a_file_that_is_no_database_is_set_aside_as_it_is(opened: Opened, tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    file.write_bytes(b"\xff" * 4096)
    assert set_aside(opened, file) == ("file is not a database", "journal.db.aside-1")
    assert (tmp_path / "journal.db.aside-1").read_bytes() == b"\xff" * 4096


def test_a_database_without_hashes_is_set_aside(opened: Opened, tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE record (id INTEGER PRIMARY KEY, at TEXT, kind TEXT, data TEXT)")
    assert set_aside(opened, file)[0] == "it is of an older shape, without hashes"


def test_a_database_of_a_shape_to_come_is_set_aside(opened: Opened, tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE record (wrong INTEGER)")
        database.execute("PRAGMA user_version=3")
    assert set_aside(opened, file)[0] == "it is of shape 3"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("DROP TRIGGER record_fixed; UPDATE record SET data = '{}' WHERE id = 3", "record 3 does not hold"),
        ("DROP TRIGGER record_kept; DELETE FROM record WHERE id = 3", "its newest record is not number 3"),
        (
            "UPDATE seal SET number = 9 WHERE name = 'dropped'",
            "the seal of its dropped record is not of this device's key",
        ),
        ("DROP TRIGGER seal_kept; DELETE FROM seal WHERE name = 'newest'", "a seal is missing"),
    ],
)
def test_a_database_whose_ends_do_not_hold_is_not_built_upon(
    opened: Opened, tmp_path: Path, change: str, reason: str
) -> None:
    file = tmp_path / "journal.db"
    journal, _ = opened(file)
    for _ in range(3):
        journal.append(CALL)
    journal.close()
    with closing(sqlite3.connect(file)) as database:
        database.executescript(change)
    assert set_aside(opened, file)[0] == reason


def test_another_device_s_database_is_set_aside(opened: Opened, tmp_path: Path) -> None:
    journal, _ = opened(tmp_path / "journal.db")
    journal.append(CALL)
    journal.close()
    key_file(journal.file).unlink()
    assert "not of this device's key" in set_aside(opened, journal.file)[0]
    assert key_file(journal.file).stat().st_mode & 0o777 == 0o600


def test_a_database_that_is_damaged_while_it_is_written_is_set_aside(opened: Opened, tmp_path: Path) -> None:
    journal, health = opened(tmp_path / "journal.db")
    told: Ear[bool] = Ear()
    journal.append(CALL)
    journal.flush(told)
    told.next()
    with closing(sqlite3.connect(journal.file)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damaged = bytearray(journal.file.read_bytes())
    damaged[4096:] = b"\xff" * (len(damaged) - 4096)
    journal.file.write_bytes(damaged)
    for _ in range(50):
        journal.append(ACCESS)
        journal.flush(told)
        told.next()
    journal.close()
    begun, *others = journal.records(Wanted(99))
    assert begun["kind"] == "begun"
    assert "malformed" in begun["reason"]
    assert len(others) == 50
    assert health.rest() == []


def test_a_record_that_cannot_be_kept_at_all_does_not_end_the_thread(opened: Opened, tmp_path: Path) -> None:
    journal, health = opened(tmp_path / "journal.db")
    journal.append(RecordAccess(cast("str", object()), "operator", "", True, ""))
    assert "not JSON serializable" in (health.next() or "")
    told: Ear[bool] = Ear()
    journal.flush(told)
    assert told.next() is False


def test_many_databases_set_aside_are_a_fault(opened: Opened, tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    file.write_bytes(b"\xff" * 4096)
    for number in range(1, 10):
        Path(f"{file}.aside-{number}").touch()
    journal, health = opened(file)
    journal.append(CALL)
    assert "9 databases were set aside already" in (health.next() or "")
    assert file.read_bytes() == b"\xff" * 4096


def test_a_key_that_is_none_is_a_fault(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "journal.key").write_bytes(b"short")
    journal, health = opened(tmp_path / "journal.db")
    journal.append(CALL)
    assert "is not a key of 32 bytes" in (health.next() or "")


def test_a_place_where_nothing_can_be_written_is_told(opened: Opened) -> None:
    journal, health = opened(Path("/proc/journal.db"))
    journal.append(CALL)
    assert (health.next() or "").startswith("records cannot be written to /proc/journal.db: ")


FULL_DISK = """
import json, resource, sys
from pathlib import Path
from intercom.core.actions import RecordAccess
from intercom.journal.reader import Wanted, verify
from intercom.journal.store import Journal
from tests.fakes import Ear

health, told = Ear(), Ear()
journal = Journal(Path(sys.argv[1]), health)
journal.append(RecordAccess("first", "operator", "", True, ""))
journal.flush(told)
told.next()
resource.setrlimit(resource.RLIMIT_FSIZE, (131072, resource.RLIM_INFINITY))
for number in range(80):
    journal.append(RecordAccess(f"{number:05}" + "x" * 4000, "operator", "", True, ""))
    journal.flush(told)
    kept = told.next()
fault = health.next()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append(RecordAccess("last", "operator", "", True, ""))
journal.close()
records = journal.records(Wanted(999))
doors = [record["door"][:5] for record in records if record["kind"] == "access"]
gaps = [(record["late"], record["lost"]) for record in records if record["kind"] == "gap"]
print(json.dumps([fault, kept, health.rest()[-1:], doors, gaps, verify(journal.file).holds]))
"""


def test_nothing_is_lost_on_a_full_disk_and_a_record_tells_of_the_gap(tmp_path: Path) -> None:
    # In a process of its own: the limit on the size of files, which stands for the full disk, holds for all.
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path / "journal.db"], capture_output=True, text=True, check=True
    )
    fault, kept, last_word, doors, gaps, holds = json.loads(done.stdout)
    assert fault.startswith(f"records cannot be written to {tmp_path}/journal.db: ")
    assert kept is False, "what only waits in memory is not said to be kept"
    assert last_word == [None]
    assert doors == ["first", *(f"{number:05}" for number in range(80)), "last"]
    assert holds
    assert sum(late for late, _ in gaps) > 40
    assert sum(lost for _, lost in gaps) == 0
