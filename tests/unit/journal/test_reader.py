"""What is asked of the record, and the proof that it was not changed: each byte of it, each removal."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from intercom.core.actions import RecordAccess, RecordCall
from intercom.core.ringing import Outcome
from intercom.journal.database import Database, Entry, iso, key_file
from intercom.journal.reader import Wanted, read, verify
from tests.fakes import FLAT, GUARD

HOUR = 3_600_000
COUNT = 40


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Forty records, an hour each: a call to one of two flats, then the door."""
    file = tmp_path / "journal.db"
    database = Database(file)
    for number in range(1, COUNT + 1):
        record = (
            RecordAccess("front" if number % 4 else "gate", "dtmf", FLAT, True, "")
            if number % 2 == 0
            else RecordCall("out", "bell", GUARD, Outcome.BUSY, "Busy Here", 0.0)
        )
        database.add([Entry(number * HOUR, "synchronized", record)])
    database.close()
    return file


def change(file: Path, script: str) -> None:
    """What somebody with the file, SQL and no key can do."""
    with closing(sqlite3.connect(file)) as database:
        triggers = database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        database.executescript("".join(f"DROP TRIGGER {name};" for (name,) in triggers) + script)


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Wanted(3), [38, 39, 40]),
        (Wanted(3, after=0), [1, 2, 3]),
        (Wanted(99, since=38 * HOUR), [38, 39, 40]),
        (Wanted(99, until=3 * HOUR), [1, 2]),
        (Wanted(2, since=10 * HOUR, until=13 * HOUR), [11, 12]),
        (Wanted(99, since=10 * HOUR, until=13 * HOUR, after=10), [11, 12]),
        (Wanted(99, since=99 * HOUR), []),
        (Wanted(99, kind="access", since=37 * HOUR), [38, 40]),
        (Wanted(2, door="gate"), [36, 40]),
        (Wanted(2, who="GUARD"), [37, 39]),
        (Wanted(9, who="nobody"), []),
        (Wanted(9, kind="gap"), []),
    ],
)
def test_what_is_wanted_is_found(file: Path, wanted: Wanted, numbers: list[int]) -> None:
    assert [record["id"] for record in read(file, wanted)] == numbers


def test_a_clock_that_jumped_hides_nothing(file: Path) -> None:
    database = Database(file)
    database.add([Entry(5, "free", RecordAccess("front", "operator", "", True, ""))])
    database.add([Entry(41 * HOUR, "synchronized", RecordAccess("front", "operator", "", True, ""))])
    database.close()
    assert [record["id"] for record in read(file, Wanted(9, since=39 * HOUR))] == [39, 40, 42]
    assert [record["id"] for record in read(file, Wanted(9, until=2 * HOUR))] == [1, 41]


def test_reading_makes_no_file_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        read(tmp_path / "journal.db", Wanted(1))
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "journal.db")
    assert not list(tmp_path.iterdir())


# The proof


def test_a_chain_holds(file: Path) -> None:
    verdict = verify(file)
    assert (verdict.holds, verdict.signed, verdict.count) == (True, True, COUNT)
    assert (verdict.first, verdict.last, verdict.bad, verdict.dropped) == (1, COUNT, None, {})


def test_a_chain_holds_while_it_grows(file: Path) -> None:
    database = Database(file)
    database.add([Entry(0, "free", RecordAccess("front", "operator", "", True, ""))])
    assert verify(file).count == COUNT + 1
    database.close()


@pytest.mark.parametrize(
    ("script", "bad", "why"),
    [
        ("UPDATE record SET data = replace(data, 'Busy', 'Bosy') WHERE id = 7", 7, "do not fit together"),
        ("UPDATE record SET at = at + 1 WHERE id = 8", 8, "do not fit together"),
        ("UPDATE record SET clock = 'free' WHERE id = 9", 9, "do not fit together"),
        ("UPDATE record SET kind = 'call' WHERE id = 10", 10, "do not fit together"),
        ("UPDATE record SET hash = zeroblob(32) WHERE id = 11", 11, "do not fit together"),
        (
            # Its parts moved about: the same bytes, another meaning.
            "UPDATE record SET clock = clock || char(10) || kind, kind = data, data = '' WHERE id = 12",
            12,
            "do not fit together",
        ),
        ("DELETE FROM record WHERE id = 13", 13, "it is missing: 14 comes after 12"),
        ("UPDATE record SET id = 99 WHERE id = 40", 40, "it is missing: 99 comes after 39"),
        ("DELETE FROM record WHERE id > 38", 39, "it is missing: the seal knows records up to 40"),
        ("DELETE FROM record WHERE id < 3", 1, "it is missing: 3 comes after 0"),
        ("DELETE FROM record", 1, "it is missing: the seal knows records up to 40"),
        (
            "INSERT INTO record SELECT 41, at, clock, kind, data, hash FROM record WHERE id = 40",
            41,
            "do not fit together",
        ),
    ],
)
def test_the_first_bad_record_is_named(file: Path, script: str, bad: int, why: str) -> None:
    change(file, script)
    verdict = verify(file)
    assert not verdict.holds
    assert verdict.bad == bad
    assert why in verdict.why
    assert verdict.last == bad - 1


def test_a_chain_that_was_made_anew_is_not_signed(file: Path, tmp_path: Path) -> None:
    forged = tmp_path / "elsewhere" / "journal.db"
    database = Database(forged)
    database.add([Entry(0, "free", RecordAccess("front", "operator", "", True, ""))])
    database.close()
    key_file(forged).write_bytes(key_file(file).read_bytes())
    verdict = verify(forged)
    assert (verdict.holds, verdict.bad, verdict.signed) == (False, None, False)
    assert verdict.why == "the seal of the dropped and the newest records is not signed by this device"


def test_a_summary_that_was_made_up_is_not_signed(file: Path) -> None:
    change(
        file,
        "UPDATE seal SET number = 5, hash = (SELECT hash FROM record WHERE id = 5) WHERE name = 'dropped';"
        "DELETE FROM record WHERE id <= 5",
    )
    verdict = verify(file)
    assert (verdict.holds, verdict.count, verdict.signed) == (False, COUNT - 5, False)
    assert "the seal of the dropped records is not signed" in verdict.why


def test_without_the_key_the_chain_is_proved_and_the_signatures_are_not(file: Path) -> None:
    key_file(file).unlink()
    verdict = verify(file)
    assert (verdict.holds, verdict.signed, verdict.count) == (True, None, COUNT)


@pytest.mark.parametrize(
    "script",
    [
        "UPDATE record SET data = '{}' WHERE id = 5",
        "DELETE FROM record WHERE id = 5",
        "DELETE FROM record",
        "INSERT INTO record VALUES (5, 0, '', '', '', x'')",
        "INSERT OR REPLACE INTO record VALUES (5, 0, '', '', '', x'')",
        "DELETE FROM seal",
        "UPDATE seal SET number = 5 WHERE name = 'newest'",
    ],
)
def test_the_database_itself_refuses_what_is_no_append(file: Path, script: str) -> None:
    with (
        closing(sqlite3.connect(file)) as database,
        pytest.raises(sqlite3.IntegrityError, match=r"never|only ever"),
    ):
        database.execute(script)
    assert verify(file).count == COUNT


def test_one_changed_byte_of_a_record_is_found_wherever_it_is(file: Path) -> None:
    good = file.read_bytes()
    texts = {}
    with closing(sqlite3.connect(file)) as database:
        for number, data, digest in database.execute("SELECT id, data, hash FROM record"):
            texts[number] = (data.encode() + digest, len(data.encode()))
    tried = 0
    for number in (1, 20, COUNT):
        text, _ = texts[number]
        # Equal data stands in many records, its hash in one: the data lies before it.
        start = good.index(text)
        for place in range(start, start + len(text), 7):
            for bit in (1, 0x80):
                changed = bytearray(good)
                changed[place] ^= bit
                file.write_bytes(changed)
                verdict = verify(file)
                assert (verdict.holds, verdict.bad) == (False, number), f"byte {place} with {bit:#x}"
                tried += 1
    assert tried > 80


def test_any_changed_byte_of_the_file_is_found_or_changes_no_record(file: Path) -> None:
    good, records = file.read_bytes(), read(file, Wanted(99))
    for place in range(0, len(good), 97):
        changed = bytearray(good)
        changed[place] ^= 0x55
        file.write_bytes(changed)
        try:
            verdict = verify(file)
        except sqlite3.Error:
            continue
        if verdict.holds:
            assert read(file, Wanted(99)) == records, f"byte {place}"


@pytest.mark.parametrize("kept", [0, 1, 31, 32, 4000, 4151, 4152, 9000, 20_000])
def test_a_torn_end_costs_the_last_records_alone(tmp_path: Path, kept: int) -> None:
    # Between two checkpoints the newest records are in the -wal file alone; a power cut tears its end.
    file, torn = tmp_path / "journal.db", tmp_path / "torn" / "journal.db"
    database = Database(file)
    for number in range(8):
        database.add([Entry(number, "synchronized", RecordAccess("front", "dtmf", FLAT, True, ""))])
    torn.parent.mkdir()
    for name in ("journal.db", "journal.key"):
        (torn.parent / name).write_bytes((tmp_path / name).read_bytes())
    wal = (tmp_path / "journal.db-wal").read_bytes()
    database.close()
    (torn.parent / "journal.db-wal").write_bytes(wal[:-kept] if kept else wal)
    opened = Database(torn)
    number = opened.newest.number
    opened.add([Entry(9, "synchronized", RecordAccess("front", "dtmf", FLAT, True, ""))])
    opened.close()
    verdict = verify(torn)
    assert (verdict.holds, verdict.count) == (True, number + 1)
    assert number >= 8 - 1 - kept // 8000
    assert (number == 8) == (kept == 0)


def test_times_are_shown_in_utc(file: Path) -> None:
    assert read(file, Wanted(1))[0]["at"] == iso(40 * HOUR) == "1970-01-02T16:00:00.000+00:00"
